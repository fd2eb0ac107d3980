//! The selection of module, token and identity, and the errors for none or several.

use crate::deadline::Finish as _;
use crate::fixture::{BINARY, EXTENSIONS, Fixture, Run, needs_root};

/// Two tokens, `cba` and `two`.
fn two_tokens() -> Fixture {
    let fixture = Fixture::new();
    fixture.provision(&["--label", "two"]);
    fixture
}

fn uris(fixture: &Fixture) -> Vec<String> {
    let list: serde_json::Value = serde_json::from_str(&fixture.run(&["list", "--json"]).ok()).unwrap();
    let slots = list["modules"][0]["slots"].as_array().unwrap().clone();
    slots.iter().filter(|slot| !slot["index"].is_null()).map(|slot| slot["uri"].as_str().unwrap().to_owned()).collect()
}

fn subject(request: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(request).unwrap();
    json["headers"]["Authorization"].as_str().unwrap().to_owned()
}

#[test]
fn with_two_tokens_and_no_selector_each_is_named_and_no_login_is_tried() {
    let mut fixture = two_tokens();
    fixture.faulty("");
    let error = fixture.sign(&[]).failed(3);
    for uri in uris(&fixture) {
        assert!(error.contains(&format!("hint: choose with --uri '{uri}'")), "{error}");
        fixture.sign(&["--uri", &uri]).ok();
    }
    fixture.faulty("");
    for wrong in [
        &["--slot", "7"][..],
        &["--slot-id", "99"],
        &["--token-label", "three"],
        &["--token-serial", "00"],
        &["--token-label", "cba", "--uri", "pkcs11:token=two"],
        &["--uri", "pkcs11:model=YubiKey"],
    ] {
        let error = fixture.sign(wrong).failed(3);
        assert!(error.contains("--uri 'pkcs11:token="), "{wrong:?}: {error}");
    }
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn an_index_alone_among_several_tokens_warns_with_the_uri() {
    let fixture = two_tokens();
    let (zero, one) = (fixture.sign(&["--slot", "0"]), fixture.sign(&["--slot", "1"]));
    assert!(
        zero.stderr.contains("warning: several tokens") && zero.stderr.contains(&uris(&fixture)[0]),
        "{}",
        zero.stderr
    );
    assert_ne!(subject(&zero.ok()), subject(&one.ok()));
    assert_eq!(fixture.sign(&["--token-label", "two"]).stderr, "");
}

#[test]
fn a_slot_id_works_decimal_and_hexadecimal_and_as_an_index_gets_the_hint() {
    let fixture = Fixture::new();
    let list: serde_json::Value = serde_json::from_str(&fixture.run(&["list", "--json"]).ok()).unwrap();
    let id = list["modules"][0]["slots"][0]["slot_id"].as_u64().unwrap();
    fixture.sign(&["--slot-id", &id.to_string()]).ok();
    fixture.sign(&["--slot-id", &format!("{id:#x}")]).ok();
    // SoftHSM2's slot IDs are larger than any number of tokens.
    let error = fixture.sign(&["--slot", &id.to_string()]).failed(2);
    assert!(error.contains("for a raw slot ID use --slot-id"), "{error}");
}

#[test]
fn a_certificate_of_another_key_that_shares_the_id_is_not_chosen() {
    let fixture = Fixture::new();
    fixture.tool("openssl", &["genrsa", "-out", "other.key", "2048"]);
    fixture.tool("openssl", &["rsa", "-in", "other.key", "-pubout", "-out", "other.pub"]);
    fixture.issue("other", "other.pub", EXTENSIONS, &["-days", "9"]);
    fixture.pkcs11_tool(&["--write-object", "other.der", "--type", "cert", "--id", "01", "--label", "other"]);
    let chosen = subject(&fixture.sign(&[]).ok());
    let certificate = fixture.run(&["certificate", "--format", "header"]).ok();
    assert_eq!(certificate.trim(), format!("Authorization: {chosen}"));
    fixture.pkcs11_tool(&["--delete-object", "--type", "cert", "--label", "cba"]);
    let error = fixture.sign(&[]).failed(3);
    assert!(error.contains("key 'cba' (ID 01) has no certificate"), "{error}");
    assert!(error.contains("certificate 'other' (ID 01) has no private key"), "{error}");
}

#[test]
fn of_two_valid_certificates_the_first_pinned_else_the_older_is_used() {
    let fixture = Fixture::new();
    let older = fixture.tool("openssl", &["x509", "-in", "cert.pem", "-noout", "-fingerprint", "-sha256"]);
    // Certificates count whole seconds: the second must begin later than the first.
    let begins = |file: &str| fixture.tool("openssl", &["x509", "-in", file, "-noout", "-startdate"]);
    while begins(&fixture.issue("newer", "pub.pem", EXTENSIONS, &["-days", "99"])) == begins("cert.pem") {}
    let newer = fixture.tool("openssl", &["x509", "-in", "newer.pem", "-noout", "-fingerprint", "-sha256"]);
    fixture.pkcs11_tool(&["--write-object", "newer.der", "--type", "cert", "--id", "01", "--label", "newer"]);
    let run = fixture.sign(&[]);
    assert!(run.stderr.contains("note: 2 certificates for this key; the older one is used"), "{}", run.stderr);
    let by_default = subject(&run.ok());
    let pinned = |pins: &[&str]| {
        let flags: Vec<&str> = pins.iter().flat_map(|pin| ["--certificate-sha256", pin.trim()]).collect();
        subject(&fixture.sign(&flags).ok())
    };
    assert_eq!(pinned(&[&older]), by_default);
    assert_ne!(pinned(&[&newer]), by_default);
    assert_ne!(pinned(&[&newer, &older]), by_default);
    assert_eq!(pinned(&[&older, &newer]), by_default);
}

#[test]
fn two_keys_with_certificates_are_refused_until_one_is_named() {
    let fixture = Fixture::new();
    fixture.generate_key("0a0b", "second", &[]);
    let error = fixture.sign(&[]).failed(3);
    assert_eq!(error.matches("hint: choose with --certificate-sha256 ").count(), 2, "{error}");
    let by_id = subject(&fixture.sign(&["--key-id", "0A:0B"]).ok());
    for selection in [
        &["--key-label", "second"][..],
        &["--uri", "pkcs11:id=%0a%0b"],
        &["--uri", "pkcs11:object=second;type=private"],
    ] {
        assert_eq!(subject(&fixture.sign(selection).ok()), by_id);
    }
    let hint = error.lines().find(|line| line.contains("second")).unwrap();
    let pin = hint.split_whitespace().nth(4).unwrap();
    assert_eq!(subject(&fixture.sign(&["--certificate-sha256", pin]).ok()), by_id);
}

#[test]
fn without_a_module_the_installed_one_with_a_token_is_found() {
    let mut fixture = Fixture::new();
    fixture.use_module(None);
    fixture.sign(&["--slot", "0"]).ok();
    // A module that failed may be the one with the token.
    fixture.set("SOFTHSM2_CONF", fixture.file("nowhere.conf"));
    let error = fixture.sign(&[]).failed(6);
    assert!(
        error.contains("error: no initialised token was found, and ") && error.contains(" installed modules failed"),
        "{error}"
    );
    assert!(error.contains("C_Initialize: CKR_GENERAL_ERROR: SOFTHSM2_CONF names "), "{error}");
}

#[test]
fn unusable_modules_are_named() {
    let mut fixture = Fixture::new();
    let garbage = fixture.write("garbage.so", "no library");
    for (module, word) in [
        ("nonesuch", "neither an absolute path nor a known module name"),
        ("./libsofthsm2.so", "neither an absolute path"),
        ("/nonexistent.so", "cannot open the module"),
        ("luna", "module luna is not installed"),
        (garbage.as_str(), "cannot load the module"),
        ("/lib/x86_64-linux-gnu/libc.so.6", "C_GetFunctionList"),
    ] {
        fixture.use_module(Some(module));
        let error = fixture.sign(&[]).failed(3);
        assert!(error.contains(word), "{module}: {error}");
        assert!(error.contains("\nhint: "), "{module}: {error}");
    }
}

#[test]
fn a_module_that_others_can_write_is_warned_about() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut fixture = Fixture::new();
    let module = fixture.file("module.so");
    std::fs::copy(crate::fixture::softhsm_module(), &module).unwrap();
    std::fs::set_permissions(&module, std::fs::Permissions::from_mode(0o777)).unwrap();
    fixture.use_module(Some(&module));
    let run = fixture.sign(&[]);
    assert!(
        run.stderr.contains("warning: the module") && run.stderr.contains("other users can change"),
        "{}",
        run.stderr
    );
    run.ok();
}

#[test]
fn a_wrong_module_configuration_names_the_file_to_check() {
    let mut fixture = Fixture::new();
    fixture.set("SOFTHSM2_CONF", "/nonexistent");
    let error = fixture.sign(&[]).failed(6);
    assert!(error.contains("C_Initialize: CKR_GENERAL_ERROR") && error.contains("SOFTHSM2_CONF"), "{error}");
}

#[test]
fn without_a_token_the_error_has_a_remedy() {
    let fixture = Fixture::empty();
    std::fs::create_dir(fixture.file("tokens")).unwrap();
    fixture.write("softhsm2.conf", format!("directories.tokendir = {}\n", fixture.file("tokens")));
    let error = fixture.run(&["sign"]).failed(3);
    assert!(error.contains("no initialised token found") && error.contains("--init-token"), "{error}");
}

#[test]
fn a_missing_configured_token_is_named_with_the_directory_of_the_module() {
    let mut fixture = Fixture::new();
    let source = fixture.pin_source();
    let conf = fixture.file("softhsm2.conf");
    let place = format!(
        "the module looks for tokens in {}/tokens, as {conf} says; SOFTHSM2_CONF is set",
        fixture.path().display()
    );
    let absent = |fixture: &Fixture, flags: &[&str], words: &str| {
        let error = fixture.sign(flags).failed(3);
        assert!(error.contains(&format!("the token with {words} was not found")), "{error}");
        assert!(error.contains(&place) && !error.contains("init-token"), "{error}");
        let report = fixture.run(&[&["doctor", "--pin-source", &source], flags].concat());
        assert!(report.stdout.contains(&format!("the token with {words} was not found")), "{report:?}");
        assert!(report.stdout.contains(&place) && !report.stdout.contains("init-token"), "{report:?}");
    };
    for (flags, words) in [
        (&["--token-serial", "347af96b5ee5cbc6"][..], "serial 347af96b5ee5cbc6"),
        (&["--token-label", "other"], "label 'other'"),
        (&["--uri", "pkcs11:token=x;serial=1"], "serial 1, label 'x'"),
    ] {
        absent(&fixture, flags, words);
    }
    assert!(fixture.sign(&["--token-label", "other"]).failed(3).contains("hint: there is --uri 'pkcs11:token=cba"));
    // A directory without tokens, as in another user's configuration.
    std::fs::rename(fixture.file("tokens"), fixture.file("elsewhere")).unwrap();
    std::fs::create_dir(fixture.file("tokens")).unwrap();
    absent(&fixture, &["--token-label", "cba"], "label 'cba'");
    let config = fixture.write("c.toml", "[token]\nserial = \"1\"\n");
    fixture.set("CBA_AGENT_CONFIG", config);
    absent(&fixture, &[], "serial 1");
}

#[test]
fn a_token_directory_that_cannot_be_read_is_named_with_its_owner() {
    needs_root("it acts as other users of the host");
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new();
    let mode = |name: &str, mode: u32| {
        std::fs::set_permissions(fixture.file(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let as_nobody = |arguments: &[&str]| {
        let mut command = fixture.program("setpriv");
        command.args(["--reuid", "65534", "--clear-groups", BINARY]).args(arguments);
        Run::from_output(command.finish())
    };
    for name in [".", "softhsm2.conf"] {
        mode(name, 0o755);
    }
    let token = std::fs::read_dir(fixture.file("tokens")).unwrap().next().unwrap().unwrap().file_name();
    let token = format!("tokens/{}", token.to_str().unwrap());
    for (directory, code, words) in [
        (0o700, 6, "tokens belongs to user root and group root (mode 0700), and user nobody cannot enter it"),
        (0o711, 6, "tokens belongs to user root and group root (mode 0711), and user nobody cannot read it"),
        (0o755, 3, "1 of the tokens in"),
    ] {
        mode("tokens", directory);
        mode(&token, 0o700);
        for selection in [&["--token-label", "cba"][..], &[]] {
            // SoftHSM2 does not start without its directory, and ignores a token that it cannot read.
            let error = as_nobody(&[&["sign"], selection].concat()).failed(code);
            assert!(error.contains(words) && !error.contains("init-token"), "{error}");
        }
    }
    assert!(as_nobody(&["sign"]).failed(3).contains("belong to user root and group root (mode 0700)"));
}

#[test]
fn a_yubikeys_attestation_of_the_key_is_not_chosen() {
    let fixture = Fixture::new();
    let usual = subject(&fixture.sign(&[]).ok());
    fixture.pkcs11_tool(&["--delete-object", "--type", "cert", "--id", "01"]);
    // The same key and ID, and the extension with the firmware version.
    let extensions = format!("{EXTENSIONS}1.3.6.1.4.1.41482.3.3=DER:04:03:05:04:03\n");
    fixture.issue("attestation", "pub.pem", &extensions, &["-days", "9"]);
    fixture.pkcs11_tool(&[
        "--write-object",
        "attestation.der",
        "--type",
        "cert",
        "--id",
        "01",
        "--label",
        "attestation",
    ]);
    let error = fixture.sign(&[]).failed(3);
    assert!(error.contains("key 'cba' (ID 01) has no certificate"), "{error}");
    fixture.run(&["certificate"]).failed(3);
    fixture.pkcs11_tool(&["--write-object", "cert.der", "--type", "cert", "--id", "01"]);
    let run = fixture.sign(&[]);
    assert_eq!(run.stderr, "");
    assert_eq!(subject(&run.ok()), usual);
}
