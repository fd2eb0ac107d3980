//! Names in certificates: distinguished names, alternative names, and the strings and object identifiers in them.
//!
//! PURE. A value that a rule reads must be complete. An unreadable attribute or entry is left out or shown as bytes.

use const_oid::ObjectIdentifier;
use const_oid::db::DB;

use super::ber::{self, BerError, Element, OBJECT_IDENTIFIER, Reader, SEQUENCE, SET, UTF8_STRING};
use crate::text::{hex, printable};

/// `emailAddress` (RFC 2985 section 5.2.1), in DER without tag and length.
const EMAIL_ADDRESS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01];

const NUMERIC_STRING: u8 = 0x12;
const PRINTABLE_STRING: u8 = 0x13;
const T61_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const VISIBLE_STRING: u8 = 0x1a;
const UNIVERSAL_STRING: u8 = 0x1c;
const BMP_STRING: u8 = 0x1e;

/// A distinguished name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Name {
    /// In the form of RFC 4514, escaped for a terminal.
    pub(super) text: String,
    /// Its e-mail addresses, in every string type.
    pub(super) emails: Vec<String>,
}

impl Name {
    /// Reads `SEQUENCE OF SET OF SEQUENCE { type, value }`.
    pub(super) fn read(name: Element<'_>) -> Result<Self, BerError> {
        let mut sets = Vec::new();
        let mut emails = Vec::new();
        let mut all = name.of(SEQUENCE)?.reader();
        while !all.is_finished() {
            let mut set = all.expect(SET)?.reader();
            let mut attributes = Vec::new();
            while !set.is_finished() {
                let mut attribute = set.expect(SEQUENCE)?.reader();
                let (kind, value) = (attribute.expect(OBJECT_IDENTIFIER)?, attribute.next()?);
                attribute.finish()?;
                if kind.content == EMAIL_ADDRESS {
                    emails.extend(string(value).as_deref().and_then(email));
                }
                attributes.push(attribute_text(kind.content, value));
            }
            sets.push(attributes.join("+"));
        }
        sets.reverse();
        Ok(Self { text: printable(&sets.join(",")), emails })
    }
}

/// The entries of a subject alternative name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AlternativeNames {
    /// Each with its kind, in OpenSSL's words, escaped for a terminal.
    pub(super) names: Vec<String>,
    /// The e-mail addresses among them.
    pub(super) emails: Vec<String>,
    /// The number of unreadable entries.
    pub(super) unreadable: usize,
}

impl AlternativeNames {
    /// Reads the value of the extension and adds its entries.
    pub(super) fn add(&mut self, value: &[u8]) {
        let entries = Element::first(value).and_then(|all| all.of(SEQUENCE));
        let Ok(mut entries) = entries.map(Element::reader) else {
            self.unreadable += 1;
            return;
        };
        while !entries.is_finished() {
            let Ok(entry) = entries.next() else {
                self.unreadable += 1;
                return;
            };
            match entry_text(entry) {
                Some((kind, text)) => {
                    if kind == EMAIL {
                        self.emails.extend(email(&text));
                    }
                    let text = if text.is_empty() { kind.to_owned() } else { format!("{kind}:{text}") };
                    self.names.push(printable(&text));
                }
                None => self.unreadable += 1,
            }
        }
    }
}

const EMAIL: &str = "email";

/// Kind and text of a general name (RFC 5280 section 4.2.1.6).
fn entry_text(entry: Element<'_>) -> Option<(&'static str, String)> {
    const X400: u8 = ber::constructed(3);
    const DIRECTORY_NAME: u8 = ber::constructed(4);
    const EDI_PARTY: u8 = ber::constructed(5);
    let ascii = || entry.content.is_ascii().then(|| String::from_utf8_lossy(entry.content).into_owned());
    Some(match entry.tag {
        0xa0 => ("otherName", other_name(entry)?),
        // An address without `@` is invalid.
        0x81 => (EMAIL, ascii().filter(|text| email(text).is_some())?),
        0x82 => ("DNS", ascii()?),
        X400 => ("X400Name", String::new()),
        DIRECTORY_NAME => ("DirName", Name::read(Element::first(entry.content).ok()?).ok()?.text),
        EDI_PARTY => ("EdiPartyName", String::new()),
        0x86 => ("URI", ascii()?),
        0x87 => (
            "IP",
            match entry.content {
                [a, b, c, d] => std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string(),
                bytes => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string(),
            },
        ),
        0x88 => ("RID", oid_text(entry.content)?),
        // One of the kinds above in an invalid form.
        0x80..=0x88 | 0xa0..=0xa8 => return None,
        _ => ("unknown", hex(entry.whole)),
    })
}

/// Another kind of name, such as Microsoft's user principal name: its type and its text, or its bytes.
fn other_name(entry: Element<'_>) -> Option<String> {
    let mut parts = entry.reader();
    let kind = oid_text(parts.expect(OBJECT_IDENTIFIER).ok()?.content)?;
    let value = Element::first(parts.expect(ber::constructed(0)).ok()?.content).ok()?;
    Some(format!("{kind}:{}", string(value).unwrap_or_else(|| hex(value.content))))
}

/// An e-mail address; `None` for other text.
fn email(text: &str) -> Option<String> {
    let (user, domain) = text.rsplit_once('@')?;
    let is_whole = !user.is_empty() && !domain.is_empty() && !text.contains(char::is_whitespace);
    is_whole.then(|| printable(text))
}

/// The text of a string of any type; `None` for other values, or bytes that do not fit the type.
fn string(value: Element<'_>) -> Option<String> {
    let content = value.content;
    match value.tag {
        UTF8_STRING => String::from_utf8(content.to_vec()).ok(),
        NUMERIC_STRING | PRINTABLE_STRING | IA5_STRING | VISIBLE_STRING => {
            content.is_ascii().then(|| String::from_utf8_lossy(content).into_owned())
        }
        // In practice this type contains Latin-1; the standard says T.61.
        T61_STRING => Some(content.iter().map(|byte| char::from(*byte)).collect()),
        BMP_STRING => {
            let pairs = content.chunks(2).map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)));
            String::from_utf16(&pairs.collect::<Option<Vec<_>>>()?).ok()
        }
        UNIVERSAL_STRING => {
            content.chunks(4).map(|four| char::from_u32(u32::from_be_bytes(four.try_into().ok()?))).collect()
        }
        _ => None,
    }
}

/// An attribute in the form of RFC 4514: with its name if known here, else as numbers and bytes.
fn attribute_text(kind: &[u8], value: Element<'_>) -> String {
    let known = ObjectIdentifier::from_bytes(kind).ok();
    let name = known.and_then(|oid| DB.find_names_for_oid(oid).min_by_key(|name| name.len()));
    match (name, string(value)) {
        (Some(name), Some(text)) => format!("{}={}", name.to_ascii_uppercase(), escaped(&text)),
        _ => format!("{}=#{}", oid_text(kind).unwrap_or_else(|| hex(kind)), hex(value.whole)),
    }
}

/// RFC 4514 section 2.4.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let last = text.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        match c {
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', c]),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\{:02x}", u32::from(c)); // writing to a String cannot fail
            }
            c => out.push(c),
        }
    }
    out
}

/// An object identifier as dotted numbers; as bytes if a number is too large.
pub(super) fn oid_text(content: &[u8]) -> Option<String> {
    if content.is_empty() || content.last()? & 0x80 != 0 {
        return None;
    }
    let arcs: Option<Vec<u128>> = content
        .split_inclusive(|byte| byte & 0x80 == 0)
        .map(|arc| {
            let add = |value: u128, byte: &u8| Some(value.checked_mul(128)? | u128::from(byte & 0x7f));
            arc.iter().try_fold(0, add)
        })
        .collect();
    let Some([first, rest @ ..]) = arcs.as_deref() else { return Some(format!("OID {}", hex(content))) };
    let root = (*first / 40).min(2);
    let arcs = [root, *first - root * 40].into_iter().chain(rest.iter().copied());
    Some(arcs.map(|arc| arc.to_string()).collect::<Vec<_>>().join("."))
}

/// The object identifiers of a `SEQUENCE OF OBJECT IDENTIFIER`, as dotted numbers.
pub(super) fn oids(value: &[u8]) -> Result<Vec<String>, BerError> {
    let mut outer = Reader::new(value);
    let mut all = outer.expect(SEQUENCE)?.reader();
    outer.finish()?;
    let mut found = Vec::new();
    while !all.is_finished() {
        let content = all.expect(OBJECT_IDENTIFIER)?.content;
        found.push(oid_text(content).ok_or(BerError::Value("an object identifier is not valid"))?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn name(kind: &[u8], value: &[u8]) -> Name {
        let attribute = tlv(SEQUENCE, &[tlv(OBJECT_IDENTIFIER, kind), value.to_vec()].concat());
        let name = tlv(SEQUENCE, &tlv(SET, &attribute));
        Name::read(Element::first(&name).unwrap()).unwrap()
    }

    #[test]
    fn an_email_address_of_the_subject_may_have_any_string_type() {
        let utf16: Vec<u8> = "a@b.c".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let utf32: Vec<u8> = "a@b.c".chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
        for (tag, content) in [
            (UTF8_STRING, &b"a@b.c"[..]),
            (PRINTABLE_STRING, b"a@b.c"),
            (T61_STRING, b"a@b.c"),
            (IA5_STRING, b"a@b.c"),
            (VISIBLE_STRING, b"a@b.c"),
            (BMP_STRING, &utf16),
            (UNIVERSAL_STRING, &utf32),
        ] {
            assert_eq!(name(EMAIL_ADDRESS, &tlv(tag, content)).emails, ["a@b.c"], "{tag}");
        }
        assert_eq!(name(EMAIL_ADDRESS, &tlv(UTF8_STRING, b"a\xff@b.c")).emails, [""; 0]);
        assert_eq!(name(EMAIL_ADDRESS, &tlv(UTF8_STRING, b"nobody")).emails, [""; 0]);
    }

    #[test]
    fn names_are_written_as_rfc_4514_wants_them() {
        const CN: &[u8] = &[0x55, 0x04, 0x03];
        assert_eq!(name(CN, &tlv(UTF8_STRING, b" a,b\n ")).text, "CN=\\ a\\,b\\0a\\ ");
        assert_eq!(name(CN, &tlv(T61_STRING, b"M\xfcller")).text, "CN=Müller");
        assert_eq!(name(CN, &tlv(UTF8_STRING, b"\xff")).text, "2.5.4.3=#0c01ff");
        assert_eq!(name(&[0x2a, 0x03], &tlv(UTF8_STRING, b"x")).text, "1.2.3=#0c0178");
        assert_eq!(name(CN, &tlv(UTF8_STRING, "a\u{202e}b".as_bytes())).text, "CN=a\\u{202e}b");
    }

    #[test]
    fn object_identifiers_of_any_size_are_shown() {
        assert_eq!(oid_text(&[0x55, 0x1d, 0x11]).unwrap(), "2.5.29.17");
        assert_eq!(oid_text(&[0x88, 0x37]).unwrap(), "2.999");
        let mut huge = vec![0x2a];
        huge.extend([0xff; 30]);
        huge.push(0x7f);
        assert!(oid_text(&huge).unwrap().starts_with("OID 2aff"));
        assert!(oid_text(&[0x2a].repeat(200)).is_some());
        assert_eq!((oid_text(&[]), oid_text(&[0x2a, 0x80])), (None, None));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            AlternativeNames::default().add(&bytes);
            let _ = (oids(&bytes), oid_text(&bytes));
            if let Ok(element) = Element::first(&bytes) {
                let _ = Name::read(element);
            }
        }
    }
}
