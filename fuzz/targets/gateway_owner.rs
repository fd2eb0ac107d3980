//! The kernel's answer about the owner of a connection: only exactly that connection names a user.

#![no_main]
#![allow(missing_docs)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|answer: &[u8]| cba_gateway::fuzzing::owner(answer));
