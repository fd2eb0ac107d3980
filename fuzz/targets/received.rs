//! Requests for `verify`: only the signatures of the seeds, each over its own message, are ever accepted.

#![no_main]
#![allow(missing_docs)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cba_agent::fuzzing::received(bytes));
