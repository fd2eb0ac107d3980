//! `verify`: the requests that it accepts, and the rule that it names.

use serde_json::Value;

use crate::fixture::Fixture;

#[test]
fn accepts_what_sign_prints_in_every_form() {
    let fixture = Fixture::new();
    for version in ["v1", "v2"] {
        for encoding in ["der", "pem"] {
            let flags = ["--payload-version", version, "--header-encoding", encoding];
            let request = fixture.sign(&flags).ok();
            let said = fixture.run_with_input(&["verify", "--roots", &fixture.file("ca.pem")], &request).ok();
            assert!(said.starts_with(&format!("valid: {version}")), "{said}");
            assert!(said.contains("chain: chains to the roots") && said.contains("not checked here"), "{said}");
        }
    }
    for format in ["body", "header", "curl", "env", "html"] {
        let request = fixture.sign(&["--format", format]).ok();
        let error = fixture.run_with_input(&["verify"], &request).failed(8);
        assert!(error.contains(&format!("this is the {format} format of sign")), "{error}");
        assert!(error.contains("`cba-agent sign --format json`"), "{error}");
    }
    let header = fixture.write("h", fixture.sign(&["--format", "header"]).ok());
    let body = fixture.write("b", fixture.sign(&["--format", "body"]).ok());
    fixture.run(&["verify", "--header", &header, "--body", &body, "--max-age", "300"]).ok();
    fixture.run_with_input(&["verify", "--header", &header, "--body", "-"], fixture.read("b")).ok();
}

#[test]
fn names_the_rule_that_failed() {
    let fixture = Fixture::new();
    let other = Fixture::with(&["--label", "other"]);
    let request: Value = serde_json::from_str(&fixture.sign(&[]).ok()).unwrap();
    let foreign: Value = serde_json::from_str(&other.sign(&[]).ok()).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut request = request.clone();
        change(&mut request);
        request.to_string()
    };
    let cases: [(String, &str); 9] = [
        (changed(&|r| r["headers"]["Authorization"] = foreign["headers"]["Authorization"].clone()), "another key"),
        (
            changed(&|r| r["body"]["encodedSignedData"] = foreign["body"]["encodedSignedData"].clone()),
            "does not verify",
        ),
        (changed(&|r| r["body"]["encodedData"] = "AAAA".into()), "the message has 3 bytes"),
        (changed(&|r| r["body"]["encodedDataFormat"] = "V2".into()), "\"v2\" exactly"),
        (changed(&|r| r["body"]["more"] = 1.into()), "not a request in the json format"),
        (changed(&|r| r["method"] = "GET".into()), "POST"),
        (changed(&|r| r["headers"]["Authorization"] = "Basic x".into()), "CACertificate"),
        ("not json".into(), "not a request in the json format"),
        (String::new(), "standard input (stdin) was empty"),
    ];
    for (request, word) in cases {
        let error = fixture.run_with_input(&["verify"], &request).failed(8);
        assert!(error.contains("invalid: ") && error.contains(word), "{word}: {error}");
    }
}

#[test]
fn an_old_request_is_stale_and_a_foreign_root_is_refused() {
    let fixture = Fixture::new();
    let other = Fixture::with(&["--label", "other"]);
    let request = fixture.sign(&[]).ok();
    // The clock counts whole seconds: an age of zero is only true within the second of the signature.
    let stale = loop {
        let run = fixture.run_with_input(&["verify", "--max-age", "0s"], &request);
        if run.code != 0 {
            break run.failed(8);
        }
    };
    assert!(stale.contains("old, more than 0 s"), "{stale}");
    let error = fixture.run_with_input(&["verify", "--roots", &other.file("ca.pem")], &request).failed(8);
    assert!(error.contains("does not chain to the roots"), "{error}");
}

#[test]
fn a_v1_message_may_be_longer_and_hold_anything() {
    let fixture = Fixture::new();
    fixture.tool("openssl", &["genrsa", "-out", "k.pem", "2048"]);
    fixture.tool("openssl", &["rsa", "-in", "k.pem", "-pubout", "-out", "k.pub"]);
    fixture.issue("old", "k.pub", crate::fixture::EXTENSIONS, &["-days", "9"]);
    fixture.write("m", "x".repeat(150));
    fixture.tool("openssl", &["dgst", "-sha512", "-sign", "k.pem", "-out", "s", "m"]);
    let base64 = |file: &str| fixture.tool("openssl", &["base64", "-A", "-in", file]);
    let header = fixture.write("h", format!("CACertificate {}", base64("old.der")));
    let body =
        fixture.write("b", format!(r#"{{"encodedData":"{}","encodedSignedData":"{}"}}"#, base64("m"), base64("s")));
    let said = fixture.run(&["verify", "--header", &header, "--body", &body]).ok();
    assert!(said.starts_with("valid: v1, no time"), "{said}");
    fixture.run(&["verify", "--header", &header]).failed(2);
}

#[test]
fn outside_text_forges_no_line_on_the_terminal() {
    let fixture = Fixture::empty();
    let run = fixture.run_with_input(&["verify"], "{\"\\u001b[31mEVIL\\nhint: run this\":1}");
    let error = run.failed(8);
    assert!(!error.contains('\u{1b}') && !error.contains("\nhint: run this"), "{error}");
}

#[test]
fn a_url_that_sign_would_not_print_is_refused() {
    let fixture = Fixture::new();
    let request = fixture.sign(&[]).ok();
    for url in
        ["http://evil.example/token/authenticate", "javascript:/token/authenticate", "https://x/?/token/authenticate"]
    {
        let changed = request.replace("https://auth.anaplan.com/token/authenticate", url);
        fixture.run_with_input(&["verify"], changed).failed(8);
    }
}
