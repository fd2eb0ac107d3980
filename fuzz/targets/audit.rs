//! Audit logs: a chain that passes the check was written completely.

#![no_main]
#![allow(missing_docs)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cba_agent::fuzzing::audit(bytes));
