//! OpenSSL verifies payloads, for the tests of this crate and of the other stacks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::fixture::{Fixture, Run};

/// Checks a run of `sign`: it must succeed, and openssl must accept its payload.
#[track_caller]
pub(crate) fn accepted(fixture: &Fixture, run: Run) {
    openssl_accepts(fixture, &serde_json::from_str(&run.ok()).unwrap());
}

/// Returns the message of a request, after openssl has verified the signature with the certificate of the request.
#[track_caller]
pub(crate) fn openssl_accepts(fixture: &Fixture, request: &Value) -> Vec<u8> {
    let decode = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let body = &request["body"];
    let message = decode(&body["encodedData"]);
    let header = request["headers"]["Authorization"].as_str().unwrap().strip_prefix("CACertificate ").unwrap();
    let certificate = STANDARD.decode(header).unwrap();
    let form = if certificate.starts_with(b"-----") { "PEM" } else { "DER" };
    let certificate = fixture.write("header.cert", certificate);
    let key = fixture.tool("openssl", &["x509", "-inform", form, "-in", &certificate, "-pubkey", "-noout"]);
    let (key, signature) = (fixture.write("header.pub", key), fixture.write("sig", decode(&body["encodedSignedData"])));
    let data = fixture.write("msg", &message);
    let said = fixture.tool("openssl", &["dgst", "-sha512", "-verify", &key, "-signature", &signature, &data]);
    assert_eq!(said.trim(), "Verified OK");
    message
}
