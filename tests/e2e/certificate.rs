//! `certificate`: the public certificate in each form.

use crate::deadline::Finish as _;
use crate::fixture::Fixture;

#[test]
fn pem_and_der_are_what_openssl_reads() {
    let fixture = Fixture::new();
    let wanted = fixture.tool("openssl", &["x509", "-in", "cert.pem", "-noout", "-fingerprint", "-sha256"]);
    let pem = fixture.write("out.pem", fixture.run(&["certificate"]).ok());
    assert_eq!(fixture.tool("openssl", &["x509", "-in", &pem, "-noout", "-fingerprint", "-sha256"]), wanted);
    let output = fixture.command(&["certificate", "--format", "der"]).finish();
    let der = fixture.write("out.der", output.stdout);
    assert_eq!(
        fixture.tool("openssl", &["x509", "-in", &der, "-inform", "DER", "-noout", "-fingerprint", "-sha256"]),
        wanted
    );
    assert!(fixture.run(&["certificate"]).ok().starts_with("-----BEGIN CERTIFICATE-----\n"));
}

#[test]
fn text_json_and_header_say_the_same() {
    let fixture = Fixture::new();
    let text = fixture.run(&["certificate", "--format", "text"]).ok();
    assert!(text.contains("integration@example.com") && text.contains("clientAuth, emailProtection"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&fixture.run(&["certificate", "--format", "json"]).ok()).unwrap();
    assert!(text.contains(json["sha256"].as_str().unwrap()));
    assert_eq!(json["emails"][0], "integration@example.com");
    let header = fixture.run(&["certificate", "--format", "header"]).ok();
    let request: serde_json::Value = serde_json::from_str(&fixture.sign(&[]).ok()).unwrap();
    assert_eq!(header.trim(), format!("Authorization: {}", request["headers"]["Authorization"].as_str().unwrap()));
}

#[test]
fn a_certificate_that_ends_soon_is_exit_8() {
    let fixture = Fixture::with(&["--days", "10"]);
    fixture.run(&["certificate", "--expires-within", "5d"]).ok();
    let run = fixture.run(&["certificate", "--expires-within", "30d"]);
    assert_eq!(run.code, 8);
    assert!(run.stderr.contains("error: the certificate ends in "), "{}", run.stderr);
}

#[test]
fn certificates_with_zero_padding_are_read() {
    let mut fixture = Fixture::new();
    let plain = fixture.run(&["certificate"]).ok();
    fixture.faulty("pad");
    assert_eq!(fixture.run(&["certificate"]).ok(), plain);
    fixture.sign(&[]).ok();
}

#[test]
fn an_expired_certificate_is_exit_8_for_any_period() {
    let fixture = Fixture::with(&["--days", "-1"]);
    for within in ["0s", "30d"] {
        let run = fixture.run(&["certificate", "--expires-within", within]);
        assert_eq!(run.code, 8);
        assert!(run.stderr.contains("error: the certificate ended on "), "{}", run.stderr);
        assert!(!run.stderr.contains("stays in use"), "{}", run.stderr);
    }
}

#[test]
fn a_certificate_from_a_file_must_be_allowed_and_fit() {
    let fixture = Fixture::new();
    let (own, other) = (fixture.file("cert.pem"), fixture.file("ca.pem"));
    let open = ["--policy-certificate-source", "token-or-file"];
    fixture.run(&["certificate", "--certificate-file", &own]).failed(5);
    fixture.run(&["certificate", "--certificate-file", &own, open[0], open[1]]).ok();
    fixture.run(&["certificate", "--certificate-file", &other, open[0], open[1]]).failed(3);
}

#[test]
fn a_certificate_whose_key_is_not_visible_is_a_candidate_too() {
    let fixture = Fixture::new();
    fixture.tool("openssl", &["genrsa", "-out", "k.pem", "2048"]);
    fixture.tool("openssl", &["rsa", "-in", "k.pem", "-pubout", "-out", "k.pub"]);
    fixture.issue("second", "k.pub", crate::fixture::EXTENSIONS, &["-days", "9"]);
    fixture.pkcs11_tool(&["--write-object", "second.der", "--type", "cert", "--id", "05"]);
    let error = fixture.run(&["certificate"]).failed(3);
    assert_eq!(error.matches("hint: choose with --certificate-sha256").count(), 2, "{error}");
    fixture.run(&["certificate", "--key-id", "05"]).ok();
}

#[test]
fn a_token_without_a_certificate_gets_no_hint_to_do_what_was_done() {
    let fixture = Fixture::new();
    for kind in ["cert", "privkey", "pubkey"] {
        fixture.pkcs11_tool(&["--delete-object", "--type", kind, "--id", "01"]);
    }
    let error = fixture.run(&["certificate"]).failed(3);
    assert!(
        error.contains("the token shows no certificate\nhint: some tokens show certificates only after a login"),
        "{error}"
    );
    let with_login = ["certificate", "--login", "--pin-source", &fixture.pin_source()];
    let error = fixture.run(&with_login).failed(3);
    assert!(error.contains("hint: order one for the token's key") && !error.contains("--login"), "{error}");
    let doctor = fixture.run(&["doctor", "--sign", "--pin-source", &fixture.pin_source()]);
    assert_eq!(doctor.code, 8, "{doctor:?}");
    assert!(doctor.stdout.contains("failed   trial payload    the token shows no private RSA key"), "{doctor:?}");
    assert!(!doctor.stdout.contains("only after a login: --sign"), "{doctor:?}");
}

#[test]
fn a_certificate_without_its_key_is_reported_with_a_whole_command() {
    let fixture = Fixture::new();
    fixture.pkcs11_tool(&["--delete-object", "--type", "pubkey", "--id", "01"]);
    fixture.pkcs11_tool(&["--keypairgen", "--key-type", "rsa:2048", "--id", "01", "--label", "new", "--usage-sign"]);
    let error = fixture.run(&["certificate"]).failed(3);
    assert!(error.contains("has no private key") && error.contains("`pkcs11-tool --module /"), "{error}");
}
