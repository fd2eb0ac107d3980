//! A tool's input for the gateway: the value of its `Authorization` header, a line feed, and its body.

#![no_main]
#![allow(missing_docs)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cba_gateway::fuzzing::login(bytes));
