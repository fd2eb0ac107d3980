//! Certificates and their files: facts, both encodings of the header, chains, attestations, padding.

#![no_main]
#![allow(missing_docs)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cba_agent::fuzzing::certificate(bytes));
