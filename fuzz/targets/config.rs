//! Configuration files: no error repeats the value of a PIN key, nor forges a line.

#![no_main]
#![allow(missing_docs)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cba_agent::fuzzing::config(bytes));
