//! PKCS#11 URIs: a parsed URI is printed and parses to the same again, and no error repeats a possible PIN.

#![no_main]
#![allow(missing_docs)]

use cba_agent::selector::Uri;
use libfuzzer_sys::fuzz_target;

/// No other text looks like this.
const MARKER: &str = "QZXPINXZQ";

fuzz_target!(|text: &str| {
    match Uri::parse(text) {
        Ok(mut uri) => {
            let printed = uri.to_string();
            let again = Uri::parse(&printed).unwrap_or_else(|error| panic!("{printed:?}: {error}"));
            // The PIN's source and the name of an unknown attribute are never printed.
            uri.pin_file = None;
            uri.token.unknown = None;
            assert_eq!(uri, again, "{printed:?}");
        }
        Err(error) => {
            let error = error.to_string();
            if let Some((before, rest)) = text.split_once("pin-value=") {
                let after = rest.find(['&', ';', '?']).map_or("", |end| &rest[end..]);
                let marked = Uri::parse(&format!("{before}pin-value={MARKER}{after}"));
                assert!(!marked.is_err_and(|error| error.to_string().contains(MARKER)), "{text:?}");
            }
            assert!(!error.chars().any(char::is_control), "{error:?}");
        }
    }
});
