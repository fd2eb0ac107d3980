//! Answers on an agent's socket: only a complete HTTP answer is accepted, and its text is escaped.

#![no_main]
#![allow(missing_docs)]

use cba_agent::client;
use cba_agent::error::Error;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match client::read("/run/agent.sock", bytes) {
        Ok(answer) => {
            // Empty lines before it are ignored (RFC 9112 section 2.2).
            assert!(bytes.trim_ascii_start().starts_with(b"HTTP/1.") && bytes.ends_with(&answer.body));
        }
        Err(error) => {
            let error = Error::from(error);
            let words = error.hints.iter().chain([&error.message]);
            assert!(words.into_iter().all(|text| !text.chars().any(char::is_control)), "{error:?}");
        }
    }
});
