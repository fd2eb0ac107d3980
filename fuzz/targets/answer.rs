//! Answers on an agent's socket: only a complete HTTP answer is accepted, and its text is escaped.

#![no_main]
#![allow(missing_docs)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cba_agent::fuzzing::answer(bytes));
