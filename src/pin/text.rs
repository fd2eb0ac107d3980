//! The bytes that can be a PIN: text that a person could have typed.
//!
//! PURE. One extra byte costs a try, so text that only a program or a copy puts into a file is refused here, before any login. Other text
//! passes unchanged: spaces, and letters of all scripts.

/// The reason why bytes cannot be a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PinTextError {
    /// U+FEFF in UTF-8, which Windows programs write before the text.
    ByteOrderMark,
    /// UTF-16 or UTF-32, from its byte order mark or its zero bytes; with iconv's name.
    Wide(&'static str),
    /// A zero byte.
    Nul,
    /// A Windows line end.
    CarriageReturn,
    /// More than one line.
    Lines,
    /// Another control character.
    Control,
    /// A character without a shape, such as a zero-width space, or the replacement of an undecodable character.
    Invisible,
    /// Begins or ends with a space other than U+0020, or with a joiner: a remainder of copied text.
    OuterSpace,
    /// Not UTF-8; most likely this encoding, with iconv's name.
    NotUtf8(&'static str),
    /// A text that ykcs11 2.7.2 treats as a command instead of a PIN.
    Reserved,
}

/// PINs that ykcs11 does not compare: one skips the verification, one asks for a fingerprint.
const RESERVED: [&str; 2] = ["VERIFY_NONE", "VERIFY_BIO"];

/// The PIN in these bytes. One newline at the end was removed before.
pub(super) fn text(bytes: &[u8]) -> Result<&str, PinTextError> {
    if let Some(encoding) = wide(bytes) {
        return Err(PinTextError::Wide(encoding));
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        return Err(PinTextError::ByteOrderMark);
    }
    if bytes.contains(&0) {
        return Err(PinTextError::Nul);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| PinTextError::NotUtf8(single_byte_encoding(bytes)))?;
    for c in text.chars() {
        match c {
            '\r' => return Err(PinTextError::CarriageReturn),
            '\n' => return Err(PinTextError::Lines),
            c if c.is_control() => return Err(PinTextError::Control),
            c if is_invisible(c) => return Err(PinTextError::Invisible),
            _ => {}
        }
    }
    if text.starts_with(is_odd_space) || text.ends_with(is_odd_space) {
        return Err(PinTextError::OuterSpace);
    }
    if RESERVED.contains(&text) { Err(PinTextError::Reserved) } else { Ok(text) }
}

/// The likely encoding of bytes that are not UTF-8. Latin-1 has control characters where Windows-1252 has letters,
/// quotation marks and the euro sign.
fn single_byte_encoding(bytes: &[u8]) -> &'static str {
    const NOT_IN_WINDOWS_1252: [u8; 5] = [0x81, 0x8d, 0x8f, 0x90, 0x9d];
    let is_windows = bytes.iter().any(|byte| matches!(byte, 0x80..=0x9f));
    let is_defined = bytes.iter().all(|byte| !NOT_IN_WINDOWS_1252.contains(byte));
    if is_windows && is_defined { "WINDOWS-1252" } else { "ISO-8859-1" }
}

/// White space except U+0020, and the joiners. They are allowed inside a PIN: some keyboards type them.
fn is_odd_space(c: char) -> bool {
    c != ' ' && (c.is_whitespace() || matches!(c, '\u{200c}' | '\u{200d}'))
}

/// The encoding of UTF-16 or UTF-32 text. Without a byte order mark, the digits and letters of a PIN have zero bytes at
/// every second place. The last byte may be missing, if a line was read up to half a newline.
fn wide(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some("UTF-16"),
        _ => {}
    }
    let zeros =
        |first: usize, step: usize| bytes.len() > first && bytes.iter().skip(first).step_by(step).all(|b| *b == 0);
    let others = |first: usize, step: usize| bytes.iter().skip(first).step_by(step).all(|b| *b != 0);
    if others(0, 4) && zeros(1, 4) && zeros(2, 4) {
        Some("UTF-32LE")
    } else if bytes.len() > 3 && zeros(0, 4) && zeros(1, 4) && zeros(2, 4) {
        Some("UTF-32BE")
    } else if others(0, 2) && zeros(1, 2) {
        Some("UTF-16LE")
    } else if zeros(0, 2) && others(1, 2) && bytes.len() > 1 {
        Some("UTF-16BE")
    } else {
        None
    }
}

/// Format characters without a key on keyboards, and the replacement of undecodable characters. The joiners U+200C and
/// U+200D are allowed: Persian keyboards type one, and emoji contain the other.
fn is_invisible(c: char) -> bool {
    let point = u32::from(c);
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{2800}' | '\u{3164}' | '\u{ffa0}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffd}' | '\u{fdd0}'..='\u{fdef}'
        | '\u{e0000}'..='\u{e0fff}')
        || point & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_pin_passes_unchanged() {
        for pin in [
            "1234",
            "12 34",
            " 1234 ",
            "pün",
            "пароль",
            "密码一二",
            "p\u{e4}\u{308}ß€",
            "a\u{a0}b",
            "می\u{200c}خواهم",
            "VERIFY",
            "verify_none",
            "VERIFY_NONE1",
            "1:2=3'\"$",
        ] {
            assert_eq!(text(pin.as_bytes()), Ok(pin), "{pin}");
        }
    }

    #[test]
    fn each_accident_is_named() {
        let utf_16 = |text: &str, order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
        let little = |text: &str| utf_16(text, u16::to_le_bytes);
        let big = |text: &str| utf_16(text, u16::to_be_bytes);
        let utf_32 = |text: &str| text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect::<Vec<u8>>();
        for (bytes, why) in [
            (b"\xef\xbb\xbf1234".to_vec(), PinTextError::ByteOrderMark),
            (b"\xef\xbb\xbf".to_vec(), PinTextError::ByteOrderMark),
            (little("\u{feff}1234\r\n"), PinTextError::Wide("UTF-16")),
            (big("\u{feff}1234\r\n"), PinTextError::Wide("UTF-16")),
            (little("1234"), PinTextError::Wide("UTF-16LE")),
            (big("1234"), PinTextError::Wide("UTF-16BE")),
            // A line of a stream ends inside its newline.
            (little("1234\n")[..9].to_vec(), PinTextError::Wide("UTF-16LE")),
            (utf_32("\u{feff}12"), PinTextError::Wide("UTF-32")),
            (utf_32("12"), PinTextError::Wide("UTF-32LE")),
            (vec![0, 0, 0, 0x31, 0, 0, 0, 0x32], PinTextError::Wide("UTF-32BE")),
            (b"1234\0".to_vec(), PinTextError::Nul),
            (b"\x001234".to_vec(), PinTextError::Nul),
            (vec![0], PinTextError::Nul),
            (b"1234\r".to_vec(), PinTextError::CarriageReturn),
            (b"1234\n".to_vec(), PinTextError::Lines),
            (b"12\x1b[A34".to_vec(), PinTextError::Control),
            (b"12\x7f34".to_vec(), PinTextError::Control),
            ("12\u{85}34".as_bytes().to_vec(), PinTextError::Control),
            ("12\u{200b}34".as_bytes().to_vec(), PinTextError::Invisible),
            ("1234\u{feff}".as_bytes().to_vec(), PinTextError::Invisible),
            ("p\u{fffd}n".as_bytes().to_vec(), PinTextError::Invisible),
            ("1234\u{a0}".as_bytes().to_vec(), PinTextError::OuterSpace),
            ("\u{a0}1234".as_bytes().to_vec(), PinTextError::OuterSpace),
            ("1234\u{2007}".as_bytes().to_vec(), PinTextError::OuterSpace),
            ("\u{3000}1234".as_bytes().to_vec(), PinTextError::OuterSpace),
            ("1234\u{200d}".as_bytes().to_vec(), PinTextError::OuterSpace),
            ("12\u{3164}34".as_bytes().to_vec(), PinTextError::Invisible),
            ("1234\u{2800}".as_bytes().to_vec(), PinTextError::Invisible),
            (b"p\xfcn4".to_vec(), PinTextError::NotUtf8("ISO-8859-1")),
            (b"1234\xff".to_vec(), PinTextError::NotUtf8("ISO-8859-1")),
            (b"\x931234\x94".to_vec(), PinTextError::NotUtf8("WINDOWS-1252")),
            (b"1234\x80".to_vec(), PinTextError::NotUtf8("WINDOWS-1252")),
            (b"12\x81\x8034".to_vec(), PinTextError::NotUtf8("ISO-8859-1")),
            (b"VERIFY_NONE".to_vec(), PinTextError::Reserved),
            (b"VERIFY_BIO".to_vec(), PinTextError::Reserved),
        ] {
            assert_eq!(text(&bytes), Err(why), "{bytes:?}");
        }
    }

    #[test]
    fn noncharacters_at_the_end_of_each_plane_are_invisible() {
        for c in ['\u{fffe}', '\u{ffff}', '\u{1fffe}', '\u{10ffff}'] {
            assert_eq!(text(format!("1{c}2").as_bytes()), Err(PinTextError::Invisible), "{c:?}");
        }
        assert_eq!(text("1\u{1fffd}2".as_bytes()), Ok("1\u{1fffd}2"));
    }
}
