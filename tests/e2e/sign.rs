//! `sign`: output formats (also the HTML page), payload versions, key sizes, mechanisms and the policy.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::fixture::{EXTENSIONS, Fixture, in_browser};
use crate::openssl::openssl_accepts;
use crate::service::now;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_v2_request_is_fresh_and_openssl_verifies_it() {
    let fixture = Fixture::new();
    let request = json(&fixture.sign(&["--slot", "0"]).ok());
    assert_eq!(request["method"], "POST");
    assert_eq!(request["url"], "https://auth.anaplan.com/token/authenticate");
    assert_eq!(request["headers"]["Content-Type"], "application/json");
    assert_eq!(request["body"]["encodedDataFormat"], "v2");
    let message = openssl_accepts(&fixture, &request);
    assert_eq!(message.len(), 100);
    let time = u64::from_be_bytes(message[..8].try_into().unwrap());
    assert!(now().abs_diff(time) < 60, "{time}");
}

#[test]
fn two_requests_have_different_random_bytes() {
    let fixture = Fixture::new();
    let message = || openssl_accepts(&fixture, &json(&fixture.sign(&[]).ok()));
    let (first, second) = (message(), message());
    // Bytes 8 to 99 are random: the test compares the beginning and the end.
    assert_ne!(first[8..24], second[8..24]);
    assert_ne!(first[84..], second[84..]);
}

#[test]
fn v1_needs_its_flag_and_warns_that_it_can_be_replayed() {
    let mut fixture = Fixture::new();
    let run = fixture.sign(&["--payload-version", "v1"]);
    assert!(run.stderr.starts_with("warning: ") && run.stderr.contains("can replay it"), "{}", run.stderr);
    let request = json(&run.ok());
    assert_eq!(request["body"].get("encodedDataFormat"), None);
    assert_eq!(openssl_accepts(&fixture, &request).len(), 100);
    fixture.set("CBA_AGENT_PAYLOAD_VERSION", "v1");
    assert!(fixture.sign(&[]).failed(5).contains("payload version v1 is not allowed"));
}

#[test]
fn every_key_size_signs() {
    for bits in ["2048", "3072", "4096"] {
        let fixture = Fixture::with(&["--bits", bits]);
        let request = json(&fixture.sign(&[]).ok());
        let signature = STANDARD.decode(request["body"]["encodedSignedData"].as_str().unwrap()).unwrap();
        assert_eq!((signature.len() * 8).to_string(), bits);
        openssl_accepts(&fixture, &request);
    }
}

#[test]
fn both_header_encodings_hold_the_same_certificate() {
    let fixture = Fixture::new();
    for (encoding, start) in [("der", "CACertificate MII"), ("pem", "CACertificate LS0tLS1CRUdJTi")] {
        let request = json(&fixture.sign(&["--header-encoding", encoding]).ok());
        assert!(request["headers"]["Authorization"].as_str().unwrap().starts_with(start));
        openssl_accepts(&fixture, &request);
    }
}

#[test]
fn each_format_is_as_documented() {
    let fixture = Fixture::new();
    let body = fixture.sign(&["--format", "body"]).ok();
    assert!(body.starts_with(r#"{"encodedDataFormat":"v2","encodedData":"#) && body.ends_with("\"}\n"), "{body}");
    assert_eq!(body.lines().count(), 1);
    let header = fixture.sign(&["--format", "header"]).ok();
    assert!(header.starts_with("Authorization: CACertificate MII") && header.lines().count() == 1);
    let script = fixture.write("env.sh", fixture.sign(&["--format", "env"]).ok());
    let said = fixture.tool(
        "dash",
        &[
            "-c",
            &format!("eval \"$(cat {script})\"; printf '%s|%s|%s' \"$CBA_URL\" \"$CBA_AUTHORIZATION\" \"$CBA_BODY\""),
        ],
    );
    let parts: Vec<&str> = said.split('|').collect();
    assert_eq!(parts[0], "https://auth.anaplan.com/token/authenticate");
    assert!(parts[1].starts_with("CACertificate MII"));
    assert_eq!(json(parts[2])["encodedDataFormat"], "v2");
}

#[test]
fn without_the_hashing_mechanism_the_token_signs_the_digest_info() {
    let fixture = Fixture::new();
    let conf =
        format!("{}slots.mechanisms = -CKM_SHA512_RSA_PKCS,CKM_SHA512_RSA_PKCS\n", fixture.read("softhsm2.conf"));
    fixture.write("softhsm2.conf", conf);
    let run = fixture.sign(&["-v"]);
    assert!(run.stderr.contains("signed by CKM_RSA_PKCS"), "{}", run.stderr);
    openssl_accepts(&fixture, &json(&run.ok()));
    let refused = fixture.sign(&["--policy-mechanism", "sha512-rsa-pkcs"]).failed(5);
    assert!(refused.contains("the token would sign with CKM_RSA_PKCS"), "{refused}");
}

#[test]
fn a_policy_refusal_signs_nothing() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    for (flags, reason, hint) in [
        (
            &["--policy-require", "hardware-token"][..],
            "the token is not a hardware token",
            "the rule is \"hardware-token\" in require of [policy]",
        ),
        (&["--policy-min-rsa-bits", "3072"], "2048 bits", "generate an RSA key of 3072 bits or more"),
        (&["--policy-token-serials", "00"], "token serial", "the rule is token_serials in [policy]"),
        (&["--policy-payload-versions", "v1"], "payload version v2", "use --payload-version v1"),
        (
            &["--policy-extended-key-usage", "serverAuth"],
            "the certificate is for clientAuth, emailProtection",
            "the rule is extended_key_usage in [policy]",
        ),
    ] {
        let refused = fixture.sign(flags).failed(5);
        assert!(refused.contains(reason) && refused.contains(hint), "{refused}");
    }
    assert_eq!(fixture.calls("C_SignInit"), 0);
}

#[test]
fn each_certificate_rule_refuses_a_real_certificate() {
    let extensions = |changed: &str| EXTENSIONS.replace("extendedKeyUsage=clientAuth,emailProtection", changed);
    for (name, ext, validity, hint) in [
        ("ended", EXTENSIONS.to_owned(), &["-days", "-1"][..], "order a new certificate"),
        ("server", extensions("extendedKeyUsage=serverAuth"), &["-days", "9"], "with extendedKeyUsage clientAuth or"),
        ("ca", EXTENSIONS.replace("CA:FALSE", "CA:TRUE"), &["-days", "9"], "use the client certificate"),
        (
            "usage",
            EXTENSIONS.replace("digitalSignature", "keyEncipherment"),
            &["-days", "9"],
            "keyUsage digitalSignature",
        ),
    ] {
        let fixture = Fixture::new();
        fixture.issue(name, "pub.pem", &ext, validity);
        fixture.pkcs11_tool(&["--delete-object", "--type", "cert", "--id", "01"]);
        fixture.pkcs11_tool(&["--write-object", &fixture.file(&format!("{name}.der")), "--type", "cert", "--id", "01"]);
        // `doctor` and `custody` give the same hint.
        let of_doctor = fixture.run(&["doctor", "--sign", "--pin-source", &fixture.pin_source()]);
        let of_custody = fixture.run(&["custody", "--pin-source", &fixture.pin_source()]).stderr;
        for said in [fixture.sign(&[]).failed(5), of_doctor.stdout, of_custody] {
            assert!(said.contains(hint), "{name}: {said}");
        }
    }
}

#[test]
fn a_certificate_that_expires_soon_causes_a_warning() {
    let fixture = Fixture::with(&["--days", "10"]);
    let run = fixture.sign(&[]);
    assert!(run.stderr.contains("warning: the certificate ends in "), "{}", run.stderr);
    let quiet = fixture.sign(&["--warn-before", "5d"]);
    assert_eq!(quiet.stderr, "");
    quiet.ok();
    run.ok();
}

#[test]
fn a_successful_run_prints_only_its_result() {
    let run = Fixture::new().sign(&[]);
    assert_eq!(run.stderr, "");
    assert_eq!(run.ok().lines().count(), 1);
}

#[test]
fn an_imported_extractable_key_is_refused_by_default() {
    let fixture = Fixture::new();
    fixture.import_key();
    let refused = fixture.sign(&["--key-id", "02"]).failed(5);
    assert!(refused.contains("can be exported from the token"), "{refused}");
    let allowed = fixture.sign(&["--key-id", "02", "--policy-require", "sensitive"]);
    openssl_accepts(&fixture, &json(&allowed.ok()));
}

#[test]
fn the_page_copies_exactly_the_other_formats_and_shows_its_age() {
    let fixture = Fixture::new();
    let html = fixture.sign(&["--format", "html"]).ok();
    let page = fixture.write("page.html", &html);
    assert!(html.contains("integration@example.com") && html.contains("Content-Security-Policy"), "{html}");
    // Returns the content of a copy box of the page, as text.
    let text = |id: &str| {
        let (_, rest) = html.split_once(&format!("<pre id=\"{id}\" tabindex=\"0\">")).unwrap();
        rest.split_once("</pre>").unwrap().0.replace("&quot;", "\"").replace("&amp;", "&")
    };
    let (header, body) = (fixture.write("header", text("header") + "\n"), fixture.write("body", text("body") + "\n"));
    fixture.run(&["verify", "--header", &header, "--body", &body, "--roots", "ca.pem"]).ok();
    assert_eq!(fixture.read("header"), fixture.sign(&["--format", "header"]).ok());
    let pictures = fixture.file("pictures");
    let v1 = fixture.write("v1.html", fixture.sign(&["--format", "html", "--payload-version", "v1"]).ok());
    in_browser("clicks.py", &[&page, &format!("header={header}"), &format!("body={body}")]);
    in_browser("page.py", &[&pictures, &page, &v1]);
}
