//! PKCS#11 URIs (RFC 7512): parses and prints them.
//!
//! PURE. Accepted are attributes that select a token, key or certificate, and `pin-source=file:`. An unknown attribute
//! of the path matches nothing, and one of the query is ignored (section 2.3). No error repeats a value: people put
//! PINs into URIs. Deliberately absent: `pin-value` and the attributes that name a module.

use std::fmt;

use super::token_selector::TokenSelector;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uri {
    /// Its selection of the token.
    pub token: TokenSelector,
    /// `object`: `CKA_LABEL`.
    pub object: Option<Vec<u8>>,
    /// `id`: `CKA_ID`.
    pub id: Option<Vec<u8>>,
    /// `type`.
    pub object_type: Option<ObjectType>,
    /// The path of `pin-source=file:PATH`.
    pub pin_file: Option<String>,
}

/// The object classes that make up an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectType {
    /// A private key.
    Private,
    /// A public key.
    Public,
    /// A certificate.
    Cert,
}

impl ObjectType {
    fn name(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
            Self::Cert => "cert",
        }
    }
}

/// The reason why a URI cannot be used. No message repeats a value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum UriError {
    /// Another scheme, or none.
    #[error("not a PKCS#11 URI: it must begin with 'pkcs11:'")]
    Scheme,
    #[error("attribute {0} of the URI has no '='")]
    NoValue(usize),
    /// An attribute that is refused for its own reason.
    #[error("attribute '{0}' is not accepted in a URI: {1}")]
    Refused(String, &'static str),
    #[error("attribute '{0}' is given twice")]
    Twice(String),
    #[error("the value of '{0}' is not valid: {1}")]
    Value(String, &'static str),
}

impl Uri {
    /// Parses a URI strictly.
    ///
    /// # Errors
    /// For every doubled, refused or malformed attribute.
    pub(crate) fn parse(text: &str) -> Result<Self, UriError> {
        let text = text.trim();
        let scheme = text.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("pkcs11:"));
        let rest = scheme.and_then(|_| text.get(7..)).ok_or(UriError::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self::default();
        let mut seen: Vec<(&str, bool)> = Vec::new();
        let attributes = path.split(';').map(|part| (part, false)).chain(query.split('&').map(|part| (part, true)));
        for (number, (part, in_query)) in attributes.filter(|(part, _)| !part.is_empty()).enumerate() {
            let (name, value) = part.split_once('=').ok_or(UriError::NoValue(number + 1))?;
            if seen.contains(&(name, in_query)) && (!in_query || name == PIN_SOURCE) {
                return Err(UriError::Twice(shown(name)));
            }
            seen.push((name, in_query));
            if let Some(why) = refusal(name, in_query) {
                return Err(UriError::Refused(name.to_owned(), why));
            }
            if in_query { uri.set_query(name, value)? } else { uri.set_path(name, value)? }
        }
        Ok(uri)
    }

    fn set_path(&mut self, name: &str, value: &str) -> Result<(), UriError> {
        let bytes = decode(value).ok_or_else(|| UriError::Value(shown(name), "broken percent-encoding"))?;
        // A token's fields that are not UTF-8 are read in the same way.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match name {
            "id" => self.id = Some(bytes),
            "object" => self.object = Some(bytes),
            "token" => self.token.label = Some(text),
            "serial" => self.token.serial = Some(text),
            "manufacturer" => self.token.manufacturer = Some(text),
            "model" => self.token.model = Some(text),
            "slot-manufacturer" => self.token.slot_manufacturer = Some(text),
            "slot-description" => self.token.slot_description = Some(text),
            "library-manufacturer" => self.token.library_manufacturer = Some(text),
            "library-description" => self.token.library_description = Some(text),
            "library-version" => self.token.library_version = Some(text),
            "slot-id" => {
                let id = text.parse().map_err(|_| UriError::Value(shown(name), "not a decimal number"))?;
                self.token.slot_id = Some(id);
            }
            "type" => {
                self.object_type = Some(match text.as_str() {
                    "private" => ObjectType::Private,
                    "public" => ObjectType::Public,
                    "cert" => ObjectType::Cert,
                    _ => return Err(UriError::Value(shown(name), "only private, public and cert are accepted")),
                });
            }
            _ => self.token.unknown = Some(shown(name)),
        }
        Ok(())
    }

    fn set_query(&mut self, name: &str, value: &str) -> Result<(), UriError> {
        if name != PIN_SOURCE {
            return Ok(());
        }
        let value = decode(value).and_then(|bytes| String::from_utf8(bytes).ok());
        let value = value.ok_or_else(|| UriError::Value(shown(name), "broken percent-encoding"))?;
        let path = value.strip_prefix("file:").filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| {
            UriError::Value(shown(name), "only file:PATH is accepted here; for another source use --pin-source")
        })?;
        self.pin_file = Some(path.strip_prefix("//").unwrap_or(path).to_owned());
        Ok(())
    }
}

/// Prints only the selection. The PIN's source never appears.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot_id = self.token.slot_id.map(|id| id.to_string());
        let attributes: [(&str, Option<&[u8]>); 13] = [
            ("token", self.token.label.as_deref().map(str::as_bytes)),
            ("serial", self.token.serial.as_deref().map(str::as_bytes)),
            ("manufacturer", self.token.manufacturer.as_deref().map(str::as_bytes)),
            ("model", self.token.model.as_deref().map(str::as_bytes)),
            ("slot-manufacturer", self.token.slot_manufacturer.as_deref().map(str::as_bytes)),
            ("slot-description", self.token.slot_description.as_deref().map(str::as_bytes)),
            ("library-manufacturer", self.token.library_manufacturer.as_deref().map(str::as_bytes)),
            ("library-description", self.token.library_description.as_deref().map(str::as_bytes)),
            ("library-version", self.token.library_version.as_deref().map(str::as_bytes)),
            ("slot-id", slot_id.as_deref().map(str::as_bytes)),
            ("object", self.object.as_deref()),
            ("id", self.id.as_deref()),
            ("type", self.object_type.map(|t| t.name().as_bytes())),
        ];
        f.write_str("pkcs11:")?;
        for (n, (name, value)) in attributes.iter().filter_map(|(n, v)| v.map(|v| (n, v))).enumerate() {
            let separator = if n == 0 { "" } else { ";" };
            write!(f, "{separator}{name}={}", encode(value, *name == "id"))?;
        }
        Ok(())
    }
}

const PIN_SOURCE: &str = "pin-source";

/// The reason why an attribute is refused, with the option to use instead.
fn refusal(name: &str, in_query: bool) -> Option<&'static str> {
    match name {
        "pin-value" => Some("a PIN in a URI can be read by every user of this host; use --pin-source file:PATH"),
        "module-path" | "module-name" => Some("choose the module with --module"),
        PIN_SOURCE if !in_query => Some("it belongs after '?'"),
        _ => None,
    }
}

/// A name, if it can be one. Other text could be a misplaced value.
fn shown(name: &str) -> String {
    let plain = name.len() <= 24 && name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    if plain { name.to_owned() } else { "(not shown)".to_owned() }
}

fn decode(value: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            out.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

fn encode(bytes: &[u8], all: bool) -> String {
    use fmt::Write as _;
    let mut out = String::new();
    for &byte in bytes {
        if !all && (byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_what_p11tool_prints() {
        let uri = Uri::parse(
            "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=347af96b5ee5cbc6;token=cba;id=%01;object=cba;type=private",
        )
        .unwrap();
        assert_eq!(uri.token.model.as_deref(), Some("SoftHSM v2"));
        assert_eq!(uri.id.as_deref(), Some(&[1u8][..]));
        assert_eq!(uri.object_type, Some(ObjectType::Private));
    }

    #[test]
    fn refuses_what_could_carry_a_pin_or_code_and_repeats_no_value() {
        for text in [
            "pkcs11:token=a?pin-value=SECRET1",
            "pkcs11:pin-value=SECRET1",
            "pkcs11:token=a?pin-source=|SECRET1",
            "pkcs11:token=a?pin-source=SECRET1",
            "pkcs11:token=a?module-path=/SECRET1.so",
            "pkcs11:token=a?module-name=SECRET1",
            "pkcs11:SECRET1",
            "pkcs11:slot-id=SECRET1",
            "pkcs11:type=SECRET1",
            "pkcs11:token=SECRET1%zz",
            "pkcs11:token=SECRET1;token=SECRET1",
            "SECRET1",
        ] {
            let error = Uri::parse(text).unwrap_err().to_string();
            assert!(!error.contains("SECRET1"), "{text}: {error}");
        }
    }

    #[test]
    fn an_unknown_attribute_of_the_path_is_kept_without_its_value_and_one_of_the_query_is_ignored() {
        for text in ["pkcs11:token=a;x-vendor=SECRET1", "pkcs11:token=a;SECRET1=a"] {
            let uri = Uri::parse(text).unwrap();
            assert!(uri.token.unknown.is_some_and(|name| !name.contains("SECRET1")), "{text}");
        }
        let uri = Uri::parse("pkcs11:token=a?x-vendor=1&x-vendor=2&pin-source=file:/p&max-sessions=%zz").unwrap();
        assert_eq!((uri.token.unknown, uri.pin_file.as_deref()), (None, Some("/p")));
    }

    #[test]
    fn a_pin_file_is_taken_with_and_without_slashes() {
        for text in ["pkcs11:?pin-source=file:/etc/pin", "pkcs11:?pin-source=file:///etc/pin"] {
            assert_eq!(Uri::parse(text).unwrap().pin_file.as_deref(), Some("/etc/pin"));
        }
    }

    #[test]
    fn each_attribute_has_its_place_in_the_selection() {
        let uri = Uri::parse(
            "pkcs11:token=a;serial=b;manufacturer=c;model=d;slot-manufacturer=e;slot-description=f;slot-id=7;\
             library-manufacturer=g;library-description=h;library-version=1.2;object=i;id=%F0%0f;type=public",
        )
        .unwrap();
        let text = |text: &str| Some(text.to_owned());
        let wanted = TokenSelector {
            label: text("a"),
            serial: text("b"),
            manufacturer: text("c"),
            model: text("d"),
            slot_manufacturer: text("e"),
            slot_description: text("f"),
            slot_id: Some(7),
            library_manufacturer: text("g"),
            library_description: text("h"),
            library_version: text("1.2"),
            ..TokenSelector::default()
        };
        assert_eq!(uri.token, wanted);
        assert_eq!((uri.object.as_deref(), uri.id.as_deref()), (Some(&b"i"[..]), Some(&[0xf0, 0x0f][..])));
        assert_eq!(uri.object_type, Some(ObjectType::Public));
        assert_eq!(Uri::parse(&uri.to_string()).unwrap(), uri);
        for (name, kind) in [("private", ObjectType::Private), ("cert", ObjectType::Cert)] {
            assert_eq!(Uri::parse(&format!("pkcs11:type={name}")).unwrap().object_type, Some(kind));
        }
    }

    #[test]
    fn an_attribute_without_a_value_is_named_by_its_place() {
        for (text, place) in [("pkcs11:token", 1), ("pkcs11:token=a;;serial", 2), ("pkcs11:token=a?pin-source", 2)] {
            let error = Uri::parse(text).unwrap_err();
            assert!(matches!(error, UriError::NoValue(number) if number == place), "{text}: {error}");
        }
        assert!(Uri::parse("pkcs11:?pin-source=file:/pin").is_ok());
        assert!(matches!(Uri::parse("pkcs11:pin-source=file:/pin"), Err(UriError::Refused(..))));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = Uri::parse(&text);
            let _ = Uri::parse(&format!("pkcs11:{text}"));
        }

        #[test]
        fn printed_uris_are_read_back(
            label in proptest::option::of(".{0,32}"),
            serial in proptest::option::of("[ -~]{0,16}"),
            object in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            id in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
            slot_id in proptest::option::of(any::<u64>()),
        ) {
            let token = TokenSelector { label, serial, slot_id, ..TokenSelector::default() };
            let uri = Uri { token, object, id, object_type: Some(ObjectType::Cert), pin_file: None };
            prop_assert_eq!(Uri::parse(&uri.to_string()).unwrap(), uri);
        }
    }
}
