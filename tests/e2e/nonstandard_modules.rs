//! Modules and tokens that differ from the standard.

use serde_json::Value;

use crate::fixture::{EXTENSIONS, Fixture};
use crate::openssl::{accepted, openssl_accepts};

#[test]
fn an_always_authenticate_key_gets_its_context_login_with_either_mechanism() {
    let mut fixture = Fixture::with(&["--always-auth"]);
    for rules in ["", "nomech:42"] {
        fixture.faulty(rules);
        accepted(&fixture, fixture.sign(&[]));
        assert_eq!(fixture.calls("C_Login"), 2, "{rules}");
    }
}

#[test]
fn an_attribute_that_is_stored_but_not_enforced_does_not_prevent_a_signature() {
    let mut fixture = Fixture::new();
    for rules in [
        "attr:CKA_ALWAYS_AUTHENTICATE=1;unenforced",
        "attr:CKA_ALWAYS_AUTHENTICATE=1",
        "attr:CKA_ALWAYS_AUTHENTICATE=1;C_Login#2=0x100",
    ] {
        fixture.faulty(rules);
        accepted(&fixture, fixture.sign(&[]));
    }
}

#[test]
fn a_key_that_demands_a_login_against_its_attribute_gets_it_once() {
    let mut fixture = Fixture::with(&["--always-auth"]);
    for rules in [
        "attr:CKA_ALWAYS_AUTHENTICATE=0",
        "attr:CKA_ALWAYS_AUTHENTICATE=missing",
        "attr:CKA_ALWAYS_AUTHENTICATE=0;nomech:42",
    ] {
        fixture.faulty(rules);
        accepted(&fixture, fixture.sign(&[]));
        assert_eq!(fixture.calls("C_Sign"), 2, "{rules}");
    }
    fixture.faulty("attr:CKA_ALWAYS_AUTHENTICATE=0;C_Sign=0x101");
    let error = fixture.sign(&[]).failed(6);
    assert!(error.contains("C_Sign: CKR_USER_NOT_LOGGED_IN"), "{error}");
    assert_eq!(fixture.calls("C_Sign"), 2, "once more, and no more");
}

#[test]
fn a_wrong_context_pin_counts_as_a_wrong_pin() {
    let mut fixture = Fixture::with(&["--always-auth"]);
    fixture.faulty("C_Login#2=0xa0");
    let error = fixture.sign(&[]).failed(4);
    assert!(error.contains("login for the signature refused") && error.contains("CKR_PIN_INCORRECT"), "{error}");
    assert_eq!(fixture.calls("C_Sign"), 0);
    fixture.faulty("");
    assert!(fixture.sign(&[]).failed(4).contains("no login is tried"));
}

#[test]
fn a_module_that_needs_the_exact_buffer_length_gets_it() {
    let mut fixture = Fixture::new();
    fixture.faulty("exact");
    accepted(&fixture, fixture.sign(&[]));
}

#[test]
fn private_keys_without_modulus_or_sign_are_matched_by_their_public_key() {
    let mut fixture = Fixture::new();
    for rules in [
        "attr:CKA_MODULUS=missing",
        "attr:CKA_SIGN=missing",
        "attr:CKA_MODULUS=missing;attr:CKA_SIGN=missing;attr:CKA_ALWAYS_AUTHENTICATE=missing",
    ] {
        fixture.faulty(rules);
        accepted(&fixture, fixture.sign(&[]));
    }
}

#[test]
fn attributes_that_a_module_ignores_are_read_one_by_one() {
    let mut fixture = Fixture::new();
    fixture.import_key();
    fixture.faulty("few");
    accepted(&fixture, fixture.sign(&["--key-id", "01"]));
    assert!(fixture.sign(&["--key-id", "02"]).failed(5).contains("can be exported from the token"));
}

#[test]
fn the_attributes_of_an_object_are_read_in_one_call() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    accepted(&fixture, fixture.sign(&[]));
    // A private key, its public key, its certificate.
    assert_eq!(fixture.calls("C_GetAttributeValue"), 3);
}

#[test]
fn an_attribute_that_is_not_reported_is_not_proven() {
    let mut fixture = Fixture::new();
    fixture.faulty("attr:CKA_SENSITIVE=missing");
    let error = fixture.sign(&[]).failed(5);
    assert!(error.contains("does not report whether the key is sensitive"), "{error}");
    accepted(&fixture, fixture.sign(&["--policy-require", "non-extractable"]));
}

#[test]
fn a_mechanism_that_is_listed_and_refused_gives_way_to_the_other() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_SignInit#1=0x70");
    let run = fixture.sign(&["-v"]);
    assert!(run.stderr.contains("signed by CKM_RSA_PKCS"), "{}", run.stderr);
    accepted(&fixture, run);
    fixture.faulty("C_SignInit=0x70");
    let error = fixture.sign(&[]).failed(3);
    assert!(error.contains("C_SignInit: CKR_MECHANISM_INVALID"), "{error}");
    fixture.faulty("nomech:42;nomech:1");
    let error = fixture.sign(&[]).failed(3);
    assert!(error.contains("neither CKM_SHA512_RSA_PKCS nor CKM_RSA_PKCS"), "{error}");
}

#[test]
fn an_unreadable_mechanism_list_does_not_prevent_a_signature() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_GetMechanismList=0x6");
    accepted(&fixture, fixture.sign(&[]));
}

#[test]
fn a_token_with_a_pin_pad_asks_for_the_pin_itself() {
    let mut fixture = Fixture::new();
    fixture.faulty("flags+CKF_PROTECTED_AUTHENTICATION_PATH");
    // SoftHSM2 has no PIN pad: it refuses the missing PIN, and no try is spent.
    let error = fixture.run(&["sign", "--pin-source", "pinpad"]).failed(4);
    assert!(error.contains("C_Login: CKR_ARGUMENTS_BAD"), "{error}");
    assert_eq!(fixture.calls("C_Login"), 1);
}

#[test]
fn a_certificate_from_a_file_needs_its_policy_and_its_modulus() {
    let fixture = Fixture::new();
    fixture.pkcs11_tool(&["--delete-object", "--type", "cert", "--id", "01"]);
    assert!(fixture.sign(&[]).failed(3).contains("has no certificate"));
    let file = fixture.file("cert.pem");
    assert!(fixture.sign(&["--certificate-file", &file]).failed(5).contains("from a file"));
    accepted(&fixture, fixture.sign(&["--certificate-file", &file, "--policy-certificate-source", "token-or-file"]));
    let other = Fixture::with(&["--label", "other"]).file("cert.pem");
    assert!(fixture.sign(&["--certificate-file", &other]).failed(2).contains("cannot read"));
    let error =
        fixture.sign(&["--certificate-file", &fixture.file("ca.pem"), "--policy-certificate-source", "token-or-file"]);
    assert!(error.failed(3).contains("of the file has no private key"));
}

#[test]
fn leading_zeros_that_a_driver_drops_or_adds_do_not_spoil_a_signature() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=widen");
    accepted(&fixture, fixture.sign(&[]));
    // The first byte of this key's modulus is 2 or 3, so every third signature begins with a zero.
    fixture.pkcs11_tool(&["--delete-object", "--type", "cert", "--id", "01"]);
    fixture.tool("openssl", &["genrsa", "-out", "odd.key", "2050"]);
    fixture.tool("openssl", &["rsa", "-in", "odd.key", "-outform", "DER", "-out", "odd.key.der"]);
    fixture.tool("openssl", &["rsa", "-in", "odd.key", "-pubout", "-out", "odd.pub"]);
    fixture.issue("odd", "odd.pub", EXTENSIONS, &["-days", "9"]);
    fixture.pkcs11_tool(&["--write-object", "odd.key.der", "--type", "privkey", "--id", "05", "--usage-sign"]);
    fixture.pkcs11_tool(&["--write-object", "odd.der", "--type", "cert", "--id", "05"]);
    std::fs::copy(fixture.file("odd.pem"), fixture.file("cert.pem")).unwrap();
    fixture.faulty("C_Sign=strip");
    for _ in 0..200 {
        accepted(&fixture, fixture.sign(&[]));
        if fixture.calls("stripped") > 0 {
            break;
        }
    }
    assert!(fixture.calls("stripped") > 0, "no signature began with a zero");
    fixture.faulty("C_Sign=corrupt");
    fixture.sign(&[]).failed(7);
}

#[test]
fn a_slow_login_does_not_age_the_message() {
    let mut fixture = Fixture::with(&["--always-auth"]);
    fixture.faulty("C_Login#2=delay:2200");
    let request: Value = serde_json::from_str(&fixture.sign(&[]).ok()).unwrap();
    let ended = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let message = openssl_accepts(&fixture, &request);
    let made = u64::from_be_bytes(message[..8].try_into().unwrap());
    assert!(ended - made <= 1, "made {made}, ended {ended}: a slow login aged the message");
}

#[test]
fn a_failure_after_a_login_logs_out_and_a_refused_pin_ends_the_worker_at_once() {
    let mut fixture = Fixture::new();
    for (rules, flags, code) in [("C_Sign=0x30", &[][..], 6), ("", &["--policy-require", "hardware-token"], 5)] {
        fixture.faulty(rules);
        fixture.sign(flags).failed(code);
        assert_eq!(fixture.calls("C_Logout"), 1, "{rules}");
    }
    fixture.faulty("C_Login=0xa0");
    fixture.sign(&[]).failed(4);
    assert_eq!((fixture.calls("C_Logout"), fixture.calls("C_Finalize")), (0, 0));
}

#[test]
fn a_token_that_is_being_rewritten_is_read_again() {
    let mut fixture = Fixture::new();
    fixture.faulty("blank:2");
    accepted(&fixture, fixture.sign(&[]));
    let whole = fixture.run(&["list", "--json"]).ok();
    fixture.faulty("");
    assert_eq!(whole, fixture.run(&["list", "--json"]).ok());
    // A token without it is still a token.
    fixture.faulty("serial=");
    accepted(&fixture, fixture.sign(&[]));
}

#[test]
fn a_label_ends_at_its_first_nul() {
    let mut fixture = Fixture::new();
    fixture.faulty("pad:rest");
    accepted(&fixture, fixture.sign(&["--token-label", "cba"]));
    let list = fixture.run(&["list"]);
    assert!(list.stdout.contains("token 'cba'\n") && !list.stdout.contains("Other"), "{list:?}");
}

#[test]
fn a_token_without_login_gets_no_pin_even_if_one_is_configured() {
    let mut fixture = Fixture::new();
    fixture.faulty("flags-CKF_LOGIN_REQUIRED");
    // SoftHSM2 hides its key.
    let error = fixture.sign(&[]).failed(3);
    assert!(error.contains("the token shows no private RSA key"), "{error}");
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn a_module_that_something_else_has_initialised_is_used() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Initialize=after:0x191");
    accepted(&fixture, fixture.sign(&[]));
}

#[test]
fn a_module_that_needs_parameters_is_sent_to_p11_kit() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Initialize=0x7");
    let error = fixture.sign(&[]).failed(6);
    assert!(error.contains("C_Initialize: CKR_ARGUMENTS_BAD") && error.contains("x-init-reserved"), "{error}");
}

#[test]
fn a_mechanism_without_any_flag_is_tried() {
    let mut fixture = Fixture::new();
    fixture.faulty("mechanisms:no-flags");
    accepted(&fixture, fixture.sign(&[]));
}

#[test]
fn a_slot_that_is_listed_twice_is_one_slot() {
    let mut fixture = Fixture::new();
    fixture.faulty("twice");
    accepted(&fixture, fixture.sign(&["--token-label", "cba"]));
    let list = fixture.run(&["list"]);
    assert_eq!(list.stdout.matches("token 'cba'").count(), 1, "{list:?}");
}

#[test]
fn list_names_the_variables_that_the_module_does_not_get() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Initialize=0x5");
    fixture.set("PKCS11SPY", "/usr/lib/module.so");
    let error = fixture.run(&["list"]).failed(6);
    assert!(error.contains("the module does not get PKCS11SPY; --module-debug passes it on"), "{error}");
}
