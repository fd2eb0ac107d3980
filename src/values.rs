//! Parses values that people write: words, fingerprints, numbers, durations and paths. No error message repeats the value.
//!
//! PURE.

use crate::text::parse_hex;

pub(crate) mod paths;
pub(crate) mod ranges;

/// The parsed value, or a text that names the expected form.
pub(crate) type Parsed<T> = Result<T, String>;

/// Formats a duration in whole days, for a notice.
#[must_use]
pub fn days(seconds: u64) -> String {
    match seconds / 86_400 {
        0 => "less than a day".into(),
        1 => "1 day".into(),
        days => format!("{days} days"),
    }
}

/// Looks up a value by its name.
///
/// # Errors
/// When no name is equal to the text. The error lists the names.
pub fn by_name<T: Copy>(text: &str, names: &[(&str, T)]) -> Result<T, String> {
    let found = names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let letter_case =
            if names.iter().any(|(name, _)| name.eq_ignore_ascii_case(text)) { " (in lower case)" } else { "" };
        let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        format!("must be one of: {}{letter_case}", names.join(", "))
    })
}

pub(crate) fn hexadecimal(text: &str, length: Option<usize>) -> Parsed<Vec<u8>> {
    let bytes = parse_hex(text).filter(|bytes| length.is_none_or(|length| bytes.len() == length));
    bytes.ok_or_else(|| match length {
        Some(length) => format!("must be {length} bytes in hexadecimal"),
        None => "must be whole bytes in hexadecimal".into(),
    })
}

/// A SHA-256 fingerprint in every usual form, such as openssl's `sha256 Fingerprint=AA:BB...`.
pub(crate) fn fingerprint(text: &str) -> Parsed<Vec<u8>> {
    let text = text.trim();
    let value = match text.split_once('=') {
        Some((name, value)) if name.to_ascii_lowercase().trim_end().ends_with("fingerprint") => value,
        _ => text,
    };
    let value = value.trim();
    let prefixed = value.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sha256:"));
    hexadecimal(if prefixed { &value[7..] } else { value }, Some(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole_and_in_words() {
        for (seconds, words) in [
            (0, "less than a day"),
            (86_399, "less than a day"),
            (86_400, "1 day"),
            (172_799, "1 day"),
            (172_800, "2 days"),
            (864_000, "10 days"),
        ] {
            assert_eq!(days(seconds), words);
        }
    }

    #[test]
    fn names_bytes_and_fingerprints_are_parsed_or_the_error_names_the_form() {
        let names = [("one", 1), ("two", 2)];
        assert_eq!((by_name("one", &names), by_name("two", &names)), (Ok(1), Ok(2)));
        assert_eq!(by_name("three", &names), Err("must be one of: one, two".into()));
        assert_eq!(by_name("TWO", &names), Err("must be one of: one, two (in lower case)".into()));
        assert_eq!(hexadecimal("0a:0b", None), Ok(vec![10, 11]));
        assert_eq!(hexadecimal("0a0b", Some(2)), Ok(vec![10, 11]));
        assert_eq!(hexadecimal("0a0b", Some(3)), Err("must be 3 bytes in hexadecimal".into()));
        assert_eq!(hexadecimal("0a0", None), Err("must be whole bytes in hexadecimal".into()));
        let digits = "ab".repeat(32);
        let value = Ok(vec![0xab; 32]);
        for text in [
            digits.clone(),
            format!("sha256:{digits}"),
            format!("SHA256:{digits}"),
            format!("sha256 Fingerprint={digits}"),
            format!(" SHA256 Fingerprint = {digits} "),
        ] {
            assert_eq!(fingerprint(&text), value, "{text}");
        }
        for text in [format!("other={digits}"), format!("md5:{digits}"), digits[2..].to_owned(), String::new()] {
            assert!(fingerprint(&text).is_err(), "{text}");
        }
    }
}
