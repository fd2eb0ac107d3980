//! Frames in both directions: a decoded message is encoded and decoded to the same message, and no length over the
//! limit is accepted.

#![no_main]
#![allow(missing_docs)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cba_agent::fuzzing::frames(bytes));
