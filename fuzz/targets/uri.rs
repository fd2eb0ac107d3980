//! PKCS#11 URIs: a parsed URI is printed and parses to the same again, and no error repeats a possible PIN.

#![no_main]
#![allow(missing_docs)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cba_agent::fuzzing::uri(bytes));
