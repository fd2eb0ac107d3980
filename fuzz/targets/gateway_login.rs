//! What a tool sends to the gateway: the value of its `Authorization` header, a line feed, and its body.

#![no_main]
#![allow(missing_docs)]

use cba_gateway::credentials::Credentials;
use cba_gateway::login_body::LoginBody;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (header, body) = bytes.split_at(end);
    match Credentials::read(header) {
        Ok(Credentials::Certificate(der)) => assert_eq!(der.first(), Some(&0x30)),
        Ok(Credentials::Token(token)) => assert!(token.bytes().all(|byte| byte.is_ascii_graphic())),
        Ok(Credentials::Password { .. }) | Err(_) => {}
    }
    let Ok(body) = LoginBody::read(body) else { return };
    assert!((100..=1024).contains(&body.message.len()) && body.signature.len() <= 1024);
    assert!(body.claimed_time().is_none_or(|time| time <= u64::MAX / 1000));
});
