//! Bodies of `POST /sign`: an accepted body has two members of fixed forms.

#![no_main]
#![allow(missing_docs)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| cba_agent::fuzzing::asked(body));
