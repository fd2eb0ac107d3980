//! Names in certificates: distinguished names, alternative names, and the strings and object identifiers in them.
//!
//! PURE. A value that a rule reads must be complete. An unreadable attribute or entry is left out or shown as bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use const_oid::ObjectIdentifier;
use const_oid::db::{DB, rfc3280};
use der::asn1::{Any, AnyRef};
use der::{Decode as _, Encode as _, Tag, Tagged as _};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::pkix::name::{GeneralName, OtherName};

use super::ber::{self, BerError, Element, OBJECT_IDENTIFIER, SEQUENCE, SET, UTF8_STRING, in_der};
use crate::text::{hex, printable};

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
                if kind.content == rfc3280::EMAIL_ADDRESS.as_bytes() {
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
    let Ok(name) = GeneralName::from_der(&entry.to_der()) else { return refused_entry_text(entry) };
    Some(match name {
        // An address without `@` is invalid.
        GeneralName::Rfc822Name(text) => (EMAIL, Some(text.to_string()).filter(|text| email(text).is_some())?),
        GeneralName::DnsName(text) => ("DNS", text.to_string()),
        GeneralName::UniformResourceIdentifier(text) => ("URI", text.to_string()),
        GeneralName::DirectoryName(_) => ("DirName", directory_name(entry)?),
        GeneralName::IpAddress(address) => ("IP", ip_address(address.as_bytes())?),
        GeneralName::OtherName(other) => ("otherName", other_name(&other)?),
        GeneralName::RegisteredId(oid) => ("RID", oid.to_string()),
        GeneralName::EdiPartyName(_) => ("EdiPartyName", String::new()),
    })
}

/// The same for entries that the library refuses: unknown kinds, long object identifiers, and rare string types.
fn refused_entry_text(entry: Element<'_>) -> Option<(&'static str, String)> {
    const X400: u8 = ber::constructed(3);
    const DIRECTORY_NAME: u8 = ber::constructed(4);
    const EDI_PARTY: u8 = ber::constructed(5);
    Some(match entry.tag {
        X400 => ("X400Name", String::new()),
        DIRECTORY_NAME => ("DirName", directory_name(entry)?),
        EDI_PARTY => ("EdiPartyName", String::new()),
        0x88 => ("RID", oid_text(entry.content)?),
        // One of the known kinds in an invalid form.
        0x80..=0x88 | 0xa0..=0xa8 => return None,
        _ => ("unknown", hex(entry.whole)),
    })
}

fn directory_name(entry: Element<'_>) -> Option<String> {
    Some(Name::read(Element::first(entry.content).ok()?).ok()?.text)
}

fn ip_address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| Ipv4Addr::from(bytes).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).to_string())).ok()
}

/// Another kind of name, such as Microsoft's user principal name: its type and its text, or its bytes.
fn other_name(name: &OtherName) -> Option<String> {
    let value = name.value.to_der().ok()?;
    let text = string(Element::first(&value).ok()?);
    Some(format!("{}:{}", name.type_id, text.unwrap_or_else(|| hex(name.value.value()))))
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
    let by_library = || {
        let oid = ObjectIdentifier::from_bytes(kind).ok()?;
        // The library shows some types of strings as bytes, so each string is converted to UTF-8.
        let value = match string(value).filter(|_| DB.by_oid(&oid).is_some()) {
            Some(text) => Any::new(Tag::Utf8String, text.into_bytes()),
            None => Any::from_der(&value.to_der()),
        };
        Some(AttributeTypeAndValue { oid, value: value.ok()? }.to_string())
    };
    let in_bytes = || format!("{}=#{}", oid_text(kind).unwrap_or_else(|| hex(kind)), hex(value.whole));
    by_library().unwrap_or_else(in_bytes)
}

/// An object identifier as dotted numbers; as bytes if the library cannot hold it. `None` if it is malformed.
pub(super) fn oid_text(content: &[u8]) -> Option<String> {
    let is_whole = content.last()? & 0x80 == 0;
    let text = || {
        ObjectIdentifier::from_bytes(content).map_or_else(|_| format!("OID {}", hex(content)), |oid| oid.to_string())
    };
    is_whole.then(text)
}

/// The object identifiers of a `SEQUENCE OF OBJECT IDENTIFIER`, as dotted numbers.
pub(super) fn oids(value: &[u8]) -> Result<Vec<String>, BerError> {
    let der = in_der(value)?;
    let text = |oid: AnyRef<'_>| {
        oid.tag().assert_eq(Tag::ObjectIdentifier)?;
        oid_text(oid.value()).ok_or(BerError::Value("an object identifier is not valid"))
    };
    Vec::<AnyRef<'_>>::from_der(&der)?.into_iter().map(text).collect()
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
            assert_eq!(name(rfc3280::EMAIL_ADDRESS.as_bytes(), &tlv(tag, content)).emails, ["a@b.c"], "{tag}");
        }
        assert_eq!(name(rfc3280::EMAIL_ADDRESS.as_bytes(), &tlv(UTF8_STRING, b"a\xff@b.c")).emails, [""; 0]);
        assert_eq!(name(rfc3280::EMAIL_ADDRESS.as_bytes(), &tlv(UTF8_STRING, b"nobody")).emails, [""; 0]);
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
        assert_eq!(oid_text(&[0x88, 0x37]).unwrap(), "OID 8837"); // 2.999, whose arc the library cannot hold
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
