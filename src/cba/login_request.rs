//! The login request, and the forms in which it is printed.
//!
//! PURE. Every form ends without a newline; the caller adds one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{AuthUrl, VerifiedPayload, Version};
use crate::certificate::{Certificate, HeaderEncoding};
use crate::text::hex;
use crate::text::shell::always_quoted;

/// The scheme of the `Authorization` header.
pub(crate) const SCHEME: &str = "CACertificate";

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestFormat {
    /// One line of JSON with method, URL, headers and body.
    #[default]
    Json,
    /// One line: only the body.
    Body,
    /// One line: only the `Authorization` header.
    Header,
    /// A configuration for `curl --config -`.
    Curl,
    /// Assignments for `eval` in a POSIX shell.
    Env,
}

/// The JSON of a payload. The order of its members follows observed requests.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(skip_serializing_if = "Option::is_none")]
    encoded_data_format: Option<&'static str>,
    encoded_data: String,
    encoded_signed_data: String,
}

#[derive(Serialize)]
struct Headers<'a> {
    #[serde(rename = "Authorization")]
    authorization: &'a str,
    #[serde(rename = "Content-Type")]
    content_type: &'static str,
}

#[derive(Serialize)]
struct Json<'a> {
    method: &'static str,
    url: &'a str,
    headers: Headers<'a>,
    body: &'a Body,
}

/// A request to `/token/authenticate`.
#[derive(Clone, Debug)]
pub struct LoginRequest {
    url: String,
    authorization: String,
    body: Body,
}

impl LoginRequest {
    /// Makes the request that carries a verified payload.
    #[must_use]
    pub fn new(
        url: &AuthUrl,
        (certificate, encoding): (&Certificate, HeaderEncoding),
        payload: &VerifiedPayload,
    ) -> Self {
        let body = Body {
            encoded_data_format: (payload.version() == Version::V2).then_some("v2"),
            encoded_data: STANDARD.encode(payload.message()),
            encoded_signed_data: STANDARD.encode(payload.signature()),
        };
        let authorization = format!("{SCHEME} {}", certificate.header_value(encoding));
        Self { url: url.authenticate(), authorization, body }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn is_v2(&self) -> bool {
        self.body.encoded_data_format.is_some()
    }

    pub(super) fn message(&self) -> Vec<u8> {
        // invariant: it was encoded by `new`
        STANDARD.decode(&self.body.encoded_data).unwrap_or_default()
    }

    /// The curl command that sends it, for a POSIX shell.
    pub(super) fn curl_command(&self) -> serde_json::Result<String> {
        let header = always_quoted(&format!("Authorization: {}", self.authorization));
        let (body, url) = (always_quoted(&serde_json::to_string(&self.body)?), always_quoted(&self.url));
        Ok(format!("curl -X POST -H {header} -H 'Content-Type: application/json' -d {body} {url}"))
    }

    /// The SHA-256 of the message: it identifies the payload and is not a secret.
    #[must_use]
    pub(crate) fn message_digest(&self) -> [u8; 32] {
        Sha256::digest(self.message()).into()
    }

    /// [`LoginRequest::message_digest`] in hexadecimal.
    #[must_use]
    pub fn message_sha256(&self) -> String {
        hex(&self.message_digest())
    }

    /// The request in one of its forms.
    ///
    /// # Errors
    /// Those of the JSON writer, which cannot occur for plain strings.
    pub fn render(&self, format: RequestFormat) -> serde_json::Result<String> {
        let body = serde_json::to_string(&self.body)?;
        Ok(match format {
            RequestFormat::Json => serde_json::to_string(&Json {
                method: "POST",
                url: &self.url,
                headers: Headers { authorization: &self.authorization, content_type: "application/json" },
                body: &self.body,
            })?,
            RequestFormat::Body => body,
            RequestFormat::Header => format!("Authorization: {}", self.authorization),
            RequestFormat::Curl => [
                format!("url = {}", curl_quoted(&self.url)),
                "request = \"POST\"".to_owned(),
                format!("header = {}", curl_quoted(&format!("Authorization: {}", self.authorization))),
                "header = \"Content-Type: application/json\"".to_owned(),
                format!("data = {}", curl_quoted(&body)),
            ]
            .join("\n"),
            RequestFormat::Env => [
                format!("CBA_URL={}", always_quoted(&self.url)),
                format!("CBA_AUTHORIZATION={}", always_quoted(&self.authorization)),
                format!("CBA_BODY={}", always_quoted(&body)),
            ]
            .join("\n"),
        })
    }
}

/// A quoted parameter of a curl configuration (curl's manual, `--config`).
fn curl_quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::leaf;

    fn request(version: Version) -> LoginRequest {
        let payload = VerifiedPayload::of_test(version, &[1; 100], &[2; 256]);
        LoginRequest::new(&AuthUrl::default(), (&leaf(), HeaderEncoding::Der), &payload)
    }

    #[test]
    fn v2_names_its_format_first_and_v1_has_no_such_member() {
        let v2 = request(Version::V2).render(RequestFormat::Body).unwrap();
        assert!(v2.starts_with(r#"{"encodedDataFormat":"v2","encodedData":"AQEB"#), "{v2}");
        let v1 = request(Version::V1).render(RequestFormat::Body).unwrap();
        assert!(v1.starts_with(r#"{"encodedData":"AQEB"#), "{v1}");
        assert!(v1.contains(r#","encodedSignedData":"AgIC"#));
    }

    #[test]
    fn json_is_one_line_with_the_documented_members_in_order() {
        let json = request(Version::V2).render(RequestFormat::Json).unwrap();
        assert!(!json.contains('\n'));
        let start = r#"{"method":"POST","url":"https://auth.anaplan.com/token/authenticate","headers":{"Authorization":"CACertificate MII"#;
        assert!(json.starts_with(start), "{json}");
        assert!(json.contains(r#"","Content-Type":"application/json"},"body":{"encodedDataFormat":"v2","#));
    }

    #[test]
    fn quoting_survives_curl_and_shell() {
        assert_eq!(curl_quoted(r#"a"b\c"#), r#""a\"b\\c""#);
        assert_eq!(always_quoted("it's"), r"'it'\''s'");
        let curl = request(Version::V2).render(RequestFormat::Curl).unwrap();
        assert!(curl.contains(r#"data = "{\"encodedDataFormat\":\"v2\""#), "{curl}");
    }

    #[test]
    fn each_form_holds_url_header_and_body() {
        let request = request(Version::V2);
        let url = "https://auth.anaplan.com/token/authenticate";
        let body = request.render(RequestFormat::Body).unwrap();
        let authorization = format!("CACertificate {}", leaf().header_value(HeaderEncoding::Der));
        assert_eq!(request.url(), url);
        assert_eq!(request.render(RequestFormat::Header).unwrap(), format!("Authorization: {authorization}"));
        assert_eq!(
            request.render(RequestFormat::Env).unwrap(),
            format!("CBA_URL='{url}'\nCBA_AUTHORIZATION='{authorization}'\nCBA_BODY='{body}'")
        );
        assert_eq!(
            request.curl_command().unwrap(),
            format!(
                "curl -X POST -H 'Authorization: {authorization}' -H 'Content-Type: application/json' -d '{body}' '{url}'"
            )
        );
        let curl = request.render(RequestFormat::Curl).unwrap();
        let lines: Vec<&str> = curl.lines().collect();
        assert_eq!((lines[0], lines[1], lines.len()), (format!("url = \"{url}\"").as_str(), "request = \"POST\"", 5));
        assert_eq!(lines[3], "header = \"Content-Type: application/json\"");
    }

    #[test]
    fn the_message_is_read_back_and_has_a_digest() {
        let request = request(Version::V1);
        assert_eq!(request.message(), [1; 100]);
        let digest: [u8; 32] = Sha256::digest([1; 100]).into();
        assert_eq!((request.message_digest(), request.message_sha256()), (digest, hex(&digest)));
        assert!(!request.is_v2() && self::request(Version::V2).is_v2());
    }
}
