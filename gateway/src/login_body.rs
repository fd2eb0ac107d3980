//! The body of `POST /token/authenticate` as clients send it, v1 or v2.
//!
//! PURE. It accepts variations in form. What counts is the signature over the decoded message, which `verify` checks.

use serde::Deserialize;

use crate::credentials::{decode_base64, without_byte_order_mark};
use crate::library::Version;

/// The allowed length of a message, in bytes.
const MESSAGE_LENGTHS: std::ops::RangeInclusive<usize> = 100..=1024;

/// The length of a signature with the largest accepted RSA key, in bytes.
const SIGNATURE_LIMIT: usize = 1024;

/// A larger time is in milliseconds: in seconds it would be after the year 5000.
const MAX_SECONDS: u64 = 100_000_000_000;

/// The times of 2020 to 2099. Eight random bytes are such a time, in seconds or milliseconds, once in 7 million cases.
const PLAUSIBLE_SECONDS: std::ops::Range<u64> = 1_577_836_800..4_102_444_800;

/// The payload that a caller sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoginBody {
    /// From `encodedDataFormat`; v1 if it is absent.
    pub version: Version,
    /// The decoded `encodedData`.
    pub message: Vec<u8>,
    /// The decoded `encodedSignedData`.
    pub signature: Vec<u8>,
}

/// The reason why a body is not a payload.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Not a JSON object with the members of a payload.
    #[error("the body is not a payload in JSON: {0}")]
    Json(String),
    /// An unknown `encodedDataFormat`.
    #[error("encodedDataFormat is neither v1 nor v2")]
    Format,
    /// A member that is not base64.
    #[error("{0} is not base64")]
    Base64(&'static str),
    #[error("the message has {message} bytes and the signature {signature}")]
    Length { message: usize, signature: usize },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    #[serde(default)]
    encoded_data_format: Option<String>,
    encoded_data: String,
    encoded_signed_data: String,
}

impl BodyError {
    /// Converts an error of the parser. About a value of the wrong type, its text quotes the value, so it is not used.
    fn json(error: serde_json::Error) -> Self {
        let text = error.to_string();
        let is_about_keys = ["missing field", "duplicate field"].iter().any(|start| text.starts_with(start));
        if !error.is_data() || is_about_keys {
            return Self::Json(text);
        }
        Self::Json(format!("a value has the wrong type at line {} column {}", error.line(), error.column()))
    }
}

impl Members {
    fn read(json: &[u8]) -> Result<Self, BodyError> {
        // The parser would also accept an array.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(BodyError::Json("it is not an object".into()));
        }
        serde_json::from_slice(json).map_err(BodyError::json)
    }
}

impl LoginBody {
    /// Parses a body: a JSON object, or a JSON string that contains one. Either may begin with a byte order mark.
    pub(crate) fn read(body: &[u8]) -> Result<Self, BodyError> {
        let body = without_byte_order_mark(body);
        let members = if body.trim_ascii_start().starts_with(b"\"") {
            let inner: String = serde_json::from_slice(body).map_err(BodyError::json)?;
            Members::read(without_byte_order_mark(inner.as_bytes()))?
        } else {
            Members::read(body)?
        };
        let version = match members.encoded_data_format.as_deref() {
            None | Some("v1") => Version::V1,
            Some("v2") => Version::V2,
            Some(_) => return Err(BodyError::Format),
        };
        let decode = |text: &str, name| decode_base64(text.as_bytes()).ok_or(BodyError::Base64(name));
        let message = decode(&members.encoded_data, "encodedData")?;
        let signature = decode(&members.encoded_signed_data, "encodedSignedData")?;
        if !MESSAGE_LENGTHS.contains(&message.len()) || signature.len() > SIGNATURE_LIMIT {
            return Err(BodyError::Length { message: message.len(), signature: signature.len() });
        }
        Ok(Self { version, message, signature })
    }

    /// Returns the time in a v2 message, in seconds of Unix time. Some clients write milliseconds.
    ///
    /// A v1 message is random and has no time. If it begins with one, it is a v2 message whose version was removed: the
    /// signature does not cover the version. The time and the one use of that message still count.
    #[must_use]
    pub(crate) fn claimed_time(&self) -> Option<u64> {
        let time = u64::from_be_bytes(*self.message.first_chunk()?);
        let seconds = if time > MAX_SECONDS { time / 1000 } else { time };
        (self.version == Version::V2 || PLAUSIBLE_SECONDS.contains(&seconds)).then_some(seconds)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn message(time: u64) -> Vec<u8> {
        [&time.to_be_bytes()[..], &[7; 92]].concat()
    }

    fn body(format: Option<&str>, message: &[u8]) -> String {
        let mut body =
            json!({ "encodedData": STANDARD.encode(message), "encodedSignedData": STANDARD.encode([1; 256]) });
        if let Some(format) = format {
            body["encodedDataFormat"] = json!(format);
        }
        serde_json::to_string_pretty(&body).unwrap()
    }

    #[test]
    fn both_versions_are_read_in_every_form_that_clients_send() {
        let v1 = LoginBody::read(body(None, &[9; 150]).as_bytes()).unwrap();
        assert_eq!((v1.version, v1.message.len(), v1.claimed_time()), (Version::V1, 150, None));
        let text = body(Some("v2"), &message(1_750_736_826));
        let v2 = LoginBody::read(text.as_bytes()).unwrap();
        assert_eq!(v2.claimed_time(), Some(1_750_736_826));
        let as_string = serde_json::to_string(&text).unwrap();
        let marked_inside = serde_json::to_string(&format!("\u{feff}{text}")).unwrap();
        for same in [as_string.clone(), format!("\u{feff}{text}"), format!("\u{feff}{as_string}"), marked_inside] {
            assert_eq!(LoginBody::read(same.as_bytes()).unwrap(), v2, "{same}");
        }
    }

    #[test]
    fn a_time_in_milliseconds_is_read_as_seconds() {
        let text = body(Some("v2"), &message(1_750_736_826_123));
        assert_eq!(LoginBody::read(text.as_bytes()).unwrap().claimed_time(), Some(1_750_736_826));
    }

    #[test]
    fn a_v2_message_keeps_its_time_without_its_version() {
        for (time, seconds) in
            [(1_750_736_826, Some(1_750_736_826)), (1_750_736_826_123, Some(1_750_736_826)), (7, None)]
        {
            assert_eq!(
                LoginBody::read(body(None, &message(time)).as_bytes()).unwrap().claimed_time(),
                seconds,
                "{time}"
            );
        }
        assert_eq!(LoginBody::read(body(Some("v2"), &message(7)).as_bytes()).unwrap().claimed_time(), Some(7));
    }

    #[test]
    fn invalid_payloads_are_refused() {
        for text in [
            String::new(),
            "[]".into(),
            json!(["v1", STANDARD.encode([1; 100]), STANDARD.encode([1; 256])]).to_string(),
            "{}".into(),
            "\"{}\"".into(),
            body(Some("v3"), &message(1)),
            body(Some("V2"), &message(1)),
            body(None, &[1; 99]),
            body(None, &[1; 1025]),
            body(None, &[1; 100]).replace("AQEB", "*"),
            body(None, &[1; 100]).replacen('{', r#"{"encodedData":"AAAA","#, 1),
        ] {
            assert!(LoginBody::read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_names_the_member_or_the_place() {
        let cut = body(None, &[1; 100]);
        for (text, part) in [
            ("{}", "missing field `encodedData`"),
            (r#"{"encodedData":"AAAA","encodedData":"AAAA"}"#, "duplicate field `encodedData`"),
            (r#"{"encodedData":7}"#, "a value has the wrong type at line 1 column"),
            (&cut[..20], "EOF"),
            ("[]", "it is not an object"),
        ] {
            let error = LoginBody::read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_signature_has_at_most_1024_bytes_and_the_greatest_second_is_not_in_milliseconds() {
        let with_signature = |length| {
            let signature = STANDARD.encode(vec![1; length]);
            let body = json!({ "encodedData": STANDARD.encode([1; 100]), "encodedSignedData": signature });
            LoginBody::read(body.to_string().as_bytes())
        };
        assert_eq!(with_signature(1024).unwrap().signature.len(), 1024);
        assert!(matches!(with_signature(1025), Err(BodyError::Length { signature: 1025, .. })));
        let text = body(Some("v2"), &message(MAX_SECONDS));
        assert_eq!(LoginBody::read(text.as_bytes()).unwrap().claimed_time(), Some(MAX_SECONDS));
    }

    #[test]
    fn an_error_quotes_no_part_of_the_body() {
        let text = body(Some("v2"), &message(1));
        let nested = |times| (0..times).fold(text.clone(), |text, _| serde_json::to_string(&text).unwrap());
        for text in [nested(2), nested(3), text.replace("\"v2\"", "[\"AAAAAAAA\"]"), "\"\\\"AAAAAAAA\\\"\"".into()] {
            let error = LoginBody::read(text.as_bytes()).unwrap_err();
            let shown = crate::library::with_causes(&error);
            assert!(!shown.contains("AAAA"), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>, text in "\\PC*") {
            let _ = LoginBody::read(&bytes);
            let _ = LoginBody::read(text.as_bytes());
        }
    }
}
