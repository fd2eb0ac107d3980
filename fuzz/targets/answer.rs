//! What answers on an agent's socket: only a whole answer of HTTP is taken, and its words are made harmless.

#![no_main]
#![allow(missing_docs)]

use cba_agent::client;
use cba_agent::error::Error;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match client::read("/run/agent.sock", bytes) {
        Ok(answer) => {
            // Empty lines before it are to be passed over (RFC 9112 section 2.2).
            assert!(bytes.trim_ascii_start().starts_with(b"HTTP/1.") && bytes.ends_with(&answer.body));
        }
        Err(error) => {
            let error = Error::from(error);
            let words = error.hints.iter().chain([&error.message]);
            assert!(words.into_iter().all(|text| !text.chars().any(char::is_control)), "{error:?}");
        }
    }
});
