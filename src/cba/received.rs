//! A request from outside, for the `verify` command.
//!
//! PURE. A request that is read here is checked and reported. It can never become a [`super::Message`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::login_request::SCHEME;
use super::{AuthUrl, UncheckedPayload, Version};
use crate::certificate::{Certificate, CertificateError, HeaderEncoding, pem_certificates};
use crate::error::{Explain, Kind};

mod members;

use members::{AnswerJson, Object, ReceivedBody, ReceivedJson};

/// A parsed request.
#[derive(Debug)]
pub struct Received {
    /// v2 if `encodedDataFormat` is present.
    pub(crate) version: Version,
    /// The decoded `encodedData`.
    pub(crate) message: Vec<u8>,
    /// The decoded `encodedSignedData`.
    pub(crate) signature: Vec<u8>,
    /// The certificate of the header.
    pub certificate: Certificate,
    /// The form of the certificate in the header.
    pub(crate) encoding: HeaderEncoding,
    /// The place to which the request goes, if it was read with its URL.
    pub(crate) url: Option<String>,
}

impl Received {
    /// The payload, which nobody has checked yet.
    #[must_use]
    pub(crate) fn payload(&self) -> UncheckedPayload {
        UncheckedPayload { message: self.message.clone(), signature: self.signature.clone() }
    }
}

/// The reason why a request cannot be parsed.
#[derive(Debug, thiserror::Error)]
pub enum ReceivedError {
    /// The JSON differs from the output of `sign`.
    #[error("not a request in the json format")]
    Json(#[source] serde_json::Error),
    /// The JSON is not a payload.
    #[error("the body is not a payload")]
    Body(#[source] serde_json::Error),
    /// Another method than POST, or another path.
    #[error("a login is POST to an https URL that ends in /token/authenticate")]
    Target,
    /// The name of a header twice, in another case.
    #[error("the header {0} is there twice")]
    Twin(String),
    /// Another `Content-Type`.
    #[error("the Content-Type is not application/json")]
    ContentType,
    /// Another value than `v2`.
    #[error("encodedDataFormat must be \"v2\" exactly, or absent for v1")]
    DataFormat,
    /// Not padded standard base64 in one line.
    #[error("{0} is not standard base64 with padding and without line breaks")]
    Base64(&'static str),
    /// Another scheme.
    #[error("the Authorization header does not begin with 'CACertificate '")]
    Scheme,
    /// The PEM text is not encoded.
    #[error("the header holds raw PEM text; it must be base64 of the DER or of the whole PEM text")]
    RawPem,
    /// Extra bytes follow the PEM.
    #[error("the header's base64 has extra bytes after the PEM certificate")]
    AfterPem,
    /// Extra bytes follow the DER.
    #[error("the header's base64 has {0} extra bytes after the certificate")]
    AfterDer(usize),
    /// Base64 of base64.
    #[error("the header's certificate is base64 applied twice")]
    Twice,
    /// The decoded bytes are not a certificate.
    #[error("the header's certificate cannot be read")]
    Certificate(#[source] CertificateError),
}

impl Explain for ReceivedError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl Received {
    /// Parses the `json` format.
    ///
    /// # Errors
    /// The first problem with its form.
    pub fn from_json(text: &[u8]) -> Result<Self, ReceivedError> {
        let Object(members) = serde_json::from_slice(text).map_err(ReceivedError::Json)?;
        Self::from_members(members)
    }

    /// Parses an agent's answer. Unknown members are ignored and not passed on.
    ///
    /// # Errors
    /// The first problem with its form.
    pub fn from_agent(text: &[u8]) -> Result<Self, ReceivedError> {
        let Object(answer): Object<AnswerJson> = serde_json::from_slice(text).map_err(ReceivedError::Json)?;
        Self::from_members(answer.into())
    }

    fn from_members(json: ReceivedJson) -> Result<Self, ReceivedError> {
        let to_the_service = AuthUrl::parse(&json.url).is_ok_and(|url| url.authenticate() == json.url);
        if json.method != "POST" || !to_the_service {
            return Err(ReceivedError::Target);
        }
        let (Object(headers), Object(body)) = (json.headers, json.body);
        let is_twin = |name: &String| ["authorization", "content-type"].contains(&name.to_ascii_lowercase().as_str());
        if let Some(twin) = headers.others.into_keys().find(is_twin) {
            return Err(ReceivedError::Twin(twin));
        }
        if !headers.content_type.eq_ignore_ascii_case("application/json") {
            return Err(ReceivedError::ContentType);
        }
        Ok(Self { url: Some(json.url), ..Self::new(&headers.authorization, body)? })
    }

    /// Parses a header, with or without its name, and a body.
    pub(crate) fn from_parts(header: &str, body: &[u8]) -> Result<Self, ReceivedError> {
        let header = header.trim();
        let named = header.get(..14).is_some_and(|name| name.eq_ignore_ascii_case("authorization:"));
        let value = if named { header[14..].trim_start() } else { header };
        let Object(body) = serde_json::from_slice(body).map_err(ReceivedError::Body)?;
        Self::new(value, body)
    }

    fn new(authorization: &str, body: ReceivedBody) -> Result<Self, ReceivedError> {
        let version = match body.encoded_data_format.as_deref() {
            None => Version::V1,
            Some("v2") => Version::V2,
            Some(_) => return Err(ReceivedError::DataFormat),
        };
        let value = authorization.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix(' '));
        let (certificate, encoding) = certificate(value.ok_or(ReceivedError::Scheme)?)?;
        Ok(Self {
            version,
            message: base64(&body.encoded_data, "encodedData")?,
            signature: base64(&body.encoded_signed_data, "encodedSignedData")?,
            certificate,
            encoding,
            url: None,
        })
    }
}

fn base64(text: &str, name: &'static str) -> Result<Vec<u8>, ReceivedError> {
    STANDARD.decode(text).map_err(|_| ReceivedError::Base64(name))
}

fn certificate(value: &str) -> Result<(Certificate, HeaderEncoding), ReceivedError> {
    if value.contains("-----BEGIN") {
        return Err(ReceivedError::RawPem);
    }
    let bytes = base64(value, "the header's certificate")?;
    if bytes.starts_with(b"MII") || bytes.starts_with(b"LS0tLS1") {
        return Err(ReceivedError::Twice);
    }
    let is_pem = bytes.starts_with(b"-----BEGIN");
    let (parsed, encoding) = if is_pem {
        if !bytes.trim_ascii_end().ends_with(b"-----END CERTIFICATE-----") {
            return Err(ReceivedError::AfterPem);
        }
        (Certificate::from_pem(&bytes), HeaderEncoding::Pem)
    } else {
        (Certificate::from_der(&bytes), HeaderEncoding::Der)
    };
    let certificate = parsed.map_err(ReceivedError::Certificate)?;
    // A token's certificate may be padded; a sent one may not.
    let der = if is_pem { pem_certificates(&bytes).map_err(ReceivedError::Certificate)?.concat() } else { bytes };
    if der != certificate.der() {
        return Err(ReceivedError::AfterDer(der.len().saturating_sub(certificate.der().len())));
    }
    Ok((certificate, encoding))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::certificate::tests::{LEAF_PEM, leaf};
    use crate::error::Error;

    fn body(format: &str) -> String {
        format!(r#"{{{format}"encodedData":"AAAA","encodedSignedData":"AAAA"}}"#)
    }

    fn header(value: &str) -> String {
        format!("Authorization: CACertificate {value}\n")
    }

    #[test]
    fn takes_both_encodings_and_both_versions() {
        for encoding in [HeaderEncoding::Der, HeaderEncoding::Pem] {
            let header = header(&leaf().header_value(encoding));
            let received = Received::from_parts(&header, body(r#""encodedDataFormat":"v2","#).as_bytes()).unwrap();
            assert_eq!((received.encoding, received.version), (encoding, Version::V2));
            assert_eq!(received.certificate, leaf());
            assert_eq!(Received::from_parts(&header, body("").as_bytes()).unwrap().version, Version::V1);
        }
    }

    #[test]
    fn names_the_known_mistakes_in_the_header() {
        let pem = String::from_utf8(LEAF_PEM.to_vec()).unwrap();
        let twice = STANDARD.encode(leaf().header_value(HeaderEncoding::Der));
        let parse = |value: &str| Received::from_parts(&header(value), body("").as_bytes()).unwrap_err();
        assert!(matches!(parse(&pem), ReceivedError::RawPem));
        assert!(matches!(parse(&twice), ReceivedError::Twice));
        assert!(matches!(parse("AAAA"), ReceivedError::Certificate(_)));
        let bearer = Received::from_parts("Authorization: Bearer x", body("").as_bytes());
        assert!(matches!(bearer.unwrap_err(), ReceivedError::Scheme));
    }

    #[test]
    fn refuses_any_bytes_behind_the_certificate() {
        for more in [&[0][..], &[0; 700], &[0xff], b"\n", b"x", leaf().der()] {
            let der = [leaf().der(), more].concat();
            let body_lines = STANDARD.encode(&der);
            let pem = format!("-----BEGIN CERTIFICATE-----\n{body_lines}\n-----END CERTIFICATE-----\n");
            for sent in [STANDARD.encode(&der), STANDARD.encode(pem)] {
                assert!(Received::from_parts(&header(&sent), body("").as_bytes()).is_err(), "{more:?}");
            }
        }
    }

    #[test]
    fn refuses_members_in_another_case_and_broken_base64() {
        let header = header(&leaf().header_value(HeaderEncoding::Der));
        for body in [
            body(r#""encodedDataFormat":"V2","#),
            body(r#""encodeddataformat":"v2","#),
            body(r#""EncodedDataFormat":"v2","#),
            body(r#""encodedDataFormat":null,"#),
            body(r#""more":1,"#),
            r#"{"encodedData":"AAA","encodedSignedData":"AAAA"}"#.into(),
            r#"["v2","AAAA","AAAA"]"#.into(),
            r#"{"encodedData":"AA\nAA","encodedSignedData":"AAAA"}"#.into(),
            r#"{"encodedData":"__--","encodedSignedData":"AAAA"}"#.into(),
        ] {
            assert!(Received::from_parts(&header, body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_request_is_a_post_of_json_to_the_service() {
        let json = |method: &str, url: &str, content_type: &str, more: &str| {
            let value = leaf().header_value(HeaderEncoding::Der);
            format!(
                r#"{{"method":"{method}","url":"{url}","headers":{{"Authorization":"CACertificate {value}","Content-Type":"{content_type}"}},"body":{}{more}}}"#,
                body("")
            )
        };
        let url = "https://auth.anaplan.com/token/authenticate";
        for (method, url, content_type, wanted) in [
            ("POST", url, "application/json", "fine"),
            ("POST", url, "Application/JSON", "fine"),
            ("GET", url, "application/json", "target"),
            ("post", url, "application/json", "target"),
            ("POST", "https://auth.anaplan.com", "application/json", "target"),
            ("POST", "https://AUTH.anaplan.com/token/authenticate", "application/json", "target"),
            ("POST", "http://evil.example/token/authenticate", "application/json", "target"),
            ("POST", url, "text/plain", "content"),
        ] {
            for read in [
                Received::from_json(json(method, url, content_type, "").as_bytes()),
                Received::from_agent(json(method, url, content_type, r#","more":1"#).as_bytes()),
            ] {
                let found = match &read {
                    Ok(received) if received.message == [0; 3] && received.signature == [0; 3] => "fine",
                    Ok(_) => "other bytes",
                    Err(ReceivedError::Target) => "target",
                    Err(ReceivedError::ContentType) => "content",
                    Err(_) => "other",
                };
                assert_eq!(found, wanted, "{method} {url} {content_type}");
            }
        }
        let request = json("POST", url, "application/json", "");
        assert_eq!(Received::from_json(request.as_bytes()).unwrap().url.as_deref(), Some(url));
        for read in [Received::from_json, Received::from_agent] {
            for (member, twin) in [("Authorization", "authorization"), ("Content-Type", "CONTENT-TYPE")] {
                let both = request.replace(&format!("\"{member}\""), &format!("\"{twin}\":\"x\",\"{member}\""));
                assert!(matches!(read(both.as_bytes()), Err(ReceivedError::Twin(name)) if name == twin), "{both}");
            }
            read(request.replace("\"Content-Type\"", "\"X-More\":1,\"Content-Type\"").as_bytes()).unwrap();
            let headers =
                format!(r#"["CACertificate {}","application/json"]"#, leaf().header_value(HeaderEncoding::Der));
            let body = r#"["v2","AAAA","AAAA"]"#;
            for array in [
                format!(r#"["POST","{url}",{headers},{body}]"#),
                request.replace(&self::body(""), body),
                format!(r#"{{"method":"POST","url":"{url}","headers":{headers},"body":{}}}"#, self::body("")),
                "null".into(),
            ] {
                let error = Error::from(read(array.as_bytes()).unwrap_err());
                assert!(error.message.contains("expected a JSON object"), "{array}: {error}");
            }
        }
        let more = Received::from_json(json("POST", url, "application/json", r#","more":1"#).as_bytes());
        assert!(matches!(more, Err(ReceivedError::Json(_))));
        assert_eq!(more.unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn the_header_may_lack_its_name_and_pem_must_end_where_it_ends() {
        let der = leaf().header_value(HeaderEncoding::Der);
        for header in [format!("CACertificate {der}"), format!("  AUTHORIZATION:CACertificate {der}")] {
            assert!(Received::from_parts(&header, body("").as_bytes()).is_ok(), "{header}");
        }
        for header in [format!("CACertificate{der}"), format!("cacertificate {der}"), "Authorization:".into()] {
            let read = Received::from_parts(&header, body("").as_bytes());
            assert!(matches!(read, Err(ReceivedError::Scheme)), "{header}");
        }
        let pem = |text: String| Received::from_parts(&header(&STANDARD.encode(text)), body("").as_bytes());
        assert!(pem(leaf().pem()).is_ok() && pem(format!("{}\n\n", leaf().pem())).is_ok());
        assert!(matches!(pem(format!("{}x", leaf().pem())), Err(ReceivedError::AfterPem)));
        let padded = STANDARD.encode([leaf().der(), &[0, 0, 0]].concat());
        let read = Received::from_parts(&header(&padded), body("").as_bytes());
        assert!(matches!(read, Err(ReceivedError::AfterDer(3))), "{read:?}");
        // The base64 of PEM and of DER, each encoded once more.
        for once in [HeaderEncoding::Der, HeaderEncoding::Pem] {
            let twice = STANDARD.encode(leaf().header_value(once));
            let read = Received::from_parts(&header(&twice), body("").as_bytes());
            assert!(matches!(read, Err(ReceivedError::Twice)));
        }
    }

    proptest! {
        #[test]
        fn never_panics(header in "\\PC*", body: Vec<u8>) {
            let _ = Received::from_parts(&header, &body);
            let _ = Received::from_json(&body);
            let _ = Received::from_agent(&body);
        }
    }
}
