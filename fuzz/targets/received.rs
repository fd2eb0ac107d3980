//! Requests for `verify`: only the signatures of the seeds, each over its own message, are ever accepted.

#![no_main]
#![allow(missing_docs)]

use std::sync::LazyLock;

use cba_agent::cba::received::Received;
use cba_agent::cba::verify::Freshness;
use cba_agent::cba::{message, verify};
use libfuzzer_sys::fuzz_target;

/// Signatures that a token really made.
static SIGNED: LazyLock<Vec<Received>> = LazyLock::new(|| {
    let whole = [
        &include_bytes!("../seeds/received/request.json")[..],
        include_bytes!("../seeds/received/request-pem.json"),
        include_bytes!("../seeds/received/request-v1.json"),
    ];
    let (header, body) = include_str!("../seeds/received/parts").split_once('\n').expect("two lines");
    let parts = Received::from_parts(header, body.as_bytes());
    let all = whole.into_iter().map(Received::from_json).chain([parts]);
    all.map(|received| received.expect("a seed is a request")).collect()
});

fn check(received: &Received) {
    let now = message::time_of(&SIGNED[0].message).expect("a v2 message");
    let freshness = Freshness { now, max_age: 300, max_ahead: 60 };
    let signed = (received.message.as_slice(), received.signature.as_slice());
    if verify(received.version, received.payload(), &received.certificate, freshness).is_ok() {
        let is_real = |real: &Received| (real.message.as_slice(), real.signature.as_slice()) == signed;
        assert!(SIGNED.iter().any(is_real), "a forged signature was accepted");
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(received) = Received::from_json(bytes) {
        check(&received);
    }
    let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    if let Ok(received) = Received::from_parts(&String::from_utf8_lossy(&bytes[..at]), &bytes[at + 1..]) {
        check(&received);
    }
});
