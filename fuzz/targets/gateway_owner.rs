//! The kernel's answer to the question who owns a connection: only that connection names a user.

#![no_main]
#![allow(missing_docs)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|answer: &[u8]| cba_gateway::fuzzing::owner(answer));
