//! Makes text from tokens, certificates and modules safe for a terminal.
//!
//! PURE. A label may contain an escape sequence, and a certificate's name may contain a newline. Neither may reach a terminal or a log
//! line.

use std::borrow::Cow;

pub(crate) mod shell;

/// Replaces every control and direction-changing character by `\u{..}`.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if moves_text(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Control characters, line separators, and characters that change the direction of the text.
fn moves_text(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Replaces such characters in a JSON document by JSON escapes, so that the values stay the same. Line feeds stay: in a
/// document they occur only between its members.
#[must_use]
pub(crate) fn printable_json(document: &str) -> String {
    use std::fmt::Write as _;
    document.chars().fold(String::with_capacity(document.len()), |mut out, c| {
        if c != '\n' && moves_text(c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c)); // writing to a String cannot fail
        } else {
            out.push(c);
        }
        out
    })
}

/// Text of several lines, each made safe for a terminal.
#[must_use]
pub(crate) fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// The maximum number of bytes of one message.
pub(crate) const MESSAGE: usize = 16 << 10;

/// Shortens a message to [`MESSAGE`], and adds the number of removed bytes.
#[must_use]
pub(crate) fn shortened(message: &str) -> Cow<'_, str> {
    if message.len() <= MESSAGE {
        return message.into();
    }
    let kept = message.char_indices().map(|(at, _)| at).take_while(|at| *at <= MESSAGE).last().unwrap_or(0);
    format!("{} ... ({} more bytes)", &message[..kept], message.len() - kept).into()
}

/// Bytes that should be UTF-8, made safe for a terminal. Invalid bytes become U+FFFD.
#[must_use]
pub(crate) fn printable_bytes(bytes: &[u8]) -> String {
    printable(&String::from_utf8_lossy(bytes))
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}"); // writing to a String cannot fail
        out
    })
}

/// Parses hexadecimal in the usual forms: either case, colons or spaces between bytes, an optional `0x` at the start.
/// `None` for other text or half a byte.
#[must_use]
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let text = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| !matches!(c, ':' | ' '))
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| !digits.is_empty() && digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(printable_bytes(b"\xffok"), "\u{fffd}ok");
    }

    #[test]
    fn a_json_document_keeps_its_values_and_has_no_control_characters() {
        let value = serde_json::json!({ "a": "\u{9b}2J\u{1b}[2J\u{202e}\u{7f}\u{85}", "b": "ü" });
        let document = serde_json::to_string_pretty(&value).unwrap();
        let escaped = printable_json(&document);
        assert!(escaped.lines().all(|line| printable(line) == line), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn hexadecimal_is_read_in_the_forms_people_paste() {
        for text in ["0aFf", "0A:FF", "0a ff", "0x0aff", " 0aff\n"] {
            assert_eq!(parse_hex(text), Some(vec![0x0a, 0xff]), "{text}");
        }
        for text in ["", "0", "0g", "0x", "0a:f"] {
            assert_eq!(parse_hex(text), None, "{text}");
        }
        assert_eq!(hex(&[0x0a, 0xff]), "0aff");
    }

    #[test]
    fn each_line_is_made_safe_and_lines_stay_lines() {
        assert_eq!(printable_lines("a\u{1b}b\nc\r\n\nd\n"), "a\\u{1b}b\nc\n\nd");
        assert_eq!(printable_lines(""), "");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character_and_says_how_much_is_missing() {
        let fits = "x".repeat(MESSAGE);
        assert_eq!(shortened(&fits), fits);
        let longer = format!("{fits}yz");
        assert_eq!(shortened(&longer), format!("{fits} ... (2 more bytes)"));
        // The limit is in the middle of a character.
        let wide = format!("x{}", "ü".repeat(MESSAGE / 2));
        let cut = shortened(&wide);
        assert_eq!(cut, format!("x{} ... (2 more bytes)", "ü".repeat(MESSAGE / 2 - 1)));
    }

    #[test]
    fn line_feeds_stay_in_a_document_and_other_characters_are_escaped() {
        assert_eq!(printable_json("{\n\"a\": \"\u{202e}ü\"}"), "{\n\"a\": \"\\u202eü\"}");
        assert_eq!(
            printable("\u{61c}\u{200e}\u{200f}\u{2028}\u{2069}ü"),
            "\\u{61c}\\u{200e}\\u{200f}\\u{2028}\\u{2069}ü"
        );
        assert_eq!(parse_hex("f3"), Some(vec![0xf3]));
    }
}
