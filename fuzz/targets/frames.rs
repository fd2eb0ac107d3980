//! Frames in both directions: a decoded message is encoded and decoded to the same message, and no length over the
//! limit is accepted.

#![no_main]
#![allow(missing_docs)]

use std::fmt::Debug;

use cba_agent::worker_protocol::{FrameKind, HEADER, LIMIT, Reply, Request, decode, encode, length};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// A message of either direction.
trait Message: serde::Serialize + serde::de::DeserializeOwned + Debug + PartialEq {}
impl<T: serde::Serialize + serde::de::DeserializeOwned + Debug + PartialEq> Message for T {}

fn both_ways<T: Message>(bytes: &[u8]) {
    let Ok(message) = decode::<T>(bytes) else { return };
    let frame = encode(&message).expect("what was read is no longer than what was read");
    let (header, body) = frame.split_first_chunk::<HEADER>().expect("a frame has a header");
    assert_eq!(length(*header, FrameKind::Message, LIMIT).expect("our own length"), body.len());
    assert_eq!(decode::<T>(body).expect("our own frame"), message);
    // It contains no field with which its sender could choose the signed bytes.
    let text = serde_json::from_slice::<Value>(body).expect("JSON").to_string();
    assert!(!text.contains("\"Sign\":{\"message\"") && !text.contains("\"data\""), "{text}");
}

fuzz_target!(|bytes: &[u8]| {
    if let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
        assert!(length(*header, FrameKind::Message, LIMIT).unwrap_or_default() <= LIMIT);
    }
    both_ways::<Request>(bytes);
    both_ways::<Reply>(bytes);
});
