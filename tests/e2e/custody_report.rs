//! The report of `custody`: its forms, its cost, and its readers.

use serde_json::Value;

use crate::agent::Agent;
use crate::custody::{custody, fits_its_schema, report};
use crate::fixture::{Fixture, in_browser};

#[test]
fn a_report_costs_one_login_and_no_signature_and_its_members_keep_their_order() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let first = custody(&fixture, &["--format", "json"]).ok();
    assert_eq!((fixture.calls("C_Login"), fixture.calls("C_Sign") + fixture.calls("C_SignInit")), (1, 0));
    let second = custody(&fixture, &["--format", "json"]).ok();
    let stable = |report: &str| report.split("\"run\"").next().unwrap().to_owned();
    assert_eq!(stable(&first), stable(&second));
    let wrong = format!("file:{}", fixture.write("wrong", "nonsense"));
    assert!(fixture.run(&["custody", "--pin-source", &wrong]).failed(4).contains("CKR_PIN_INCORRECT"));
}

#[test]
fn text_and_page_say_what_is_allowed_by_which_policy_on_what_kind_of_token() {
    let fixture = Fixture::new();
    let config = fixture.write("own.toml", "[policy]\nmin_rsa_bits = 2048\n");
    let text = custody(&fixture, &["--config", &config, "--policy-require", "local"]).ok();
    let head: Vec<&str> = text.lines().take(4).collect();
    assert_eq!(head[..2], ["Key custody: ALLOWED", "allowed to sign Anaplan logins"]);
    assert_eq!(head[2], "software token: no hardware protection (SoftHSM)");
    assert!(head[3].contains(&config) && head[3].contains("require = local (--policy-require)"), "{text}");
    let place = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words}: {text}"));
    assert!(place("\nToken\n") < place("\nCertificate\n") && place("\nCertificate\n") < place(" token_serials "));
    assert!(place(" sandbox ") < place("\nPrivate key\n") && place("\nPrivate key\n") < place("\nModule\n"));
    assert!(text.contains("The private key must not be exportable from the token."), "{text}");
    let page = custody(&fixture, &["--format", "html"]).ok();
    for words in ["allowed to sign Anaplan logins", "software token: no hardware protection", "no file was read"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let refused = custody(&fixture, &["--policy-require", "hardware-token"]);
    assert!(refused.stdout.starts_with("Key custody: REFUSED\nnot allowed to sign Anaplan logins\n"), "{refused:?}");
    let found = report(&fixture, &[]);
    assert_eq!(found["token"]["software"], "SoftHSM");
    for row in found["rules"].as_array().unwrap() {
        let sentence = row["means"].as_str().unwrap();
        assert!(sentence.ends_with('.') && sentence.split(' ').count() <= 25, "{sentence}");
    }
}

#[test]
fn the_agents_report_is_the_same_document_without_its_pin() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let agent = Agent::ready(&fixture, &[]);
    let served = agent.ask("GET", "/custody", "").body;
    fits_its_schema(&fixture, &served);
    let (mut served, mut ours): (Value, Value) = (serde_json::from_str(&served).unwrap(), report(&fixture, &[]));
    for report in [&mut served, &mut ours] {
        report.as_object_mut().unwrap().remove("run");
    }
    assert_eq!(served, ours);
}

#[test]
fn an_attribute_that_crashes_the_module_costs_only_that_evidence() {
    let mut fixture = Fixture::new();
    fixture.faulty("attr:CKA_ALLOWED_MECHANISMS=abort");
    let agent = Agent::ready(&fixture, &[]);
    let served: Value = serde_json::from_str(&agent.ask("GET", "/custody", "").body).unwrap();
    assert_eq!((&served["verdict"], &served["key"]["allowed_mechanisms"]), (&"allowed".into(), &Value::Null));
    assert_eq!(agent.ask("POST", "/sign", "{}").status, 200);
}

#[test]
fn the_text_is_a_table_without_terminal_control_characters() {
    let fixture = Fixture::with(&["--label", "\u{1b}[2Jx"]);
    let text = custody(&fixture, &[]).ok();
    assert!(text.starts_with("Key custody: ALLOWED\n"), "{text}");
    for line in [" require.sensitive ", " label", " signs with"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn the_page_loads_from_a_file_makes_no_request_and_fits_a_phone() {
    let fixture = Fixture::new();
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/other-ca.pem");
    let allowed = fixture.write("allowed.html", custody(&fixture, &["--format", "html"]).ok());
    let refused = custody(&fixture, &["--format", "html", "--roots", other]);
    assert_eq!(refused.code, 8);
    assert!(!refused.stdout.contains("<script") && refused.stdout.contains("Content-Security-Policy"));
    let refused = fixture.write("refused.html", refused.stdout);
    in_browser("page.py", &[&fixture.file("pictures"), &allowed, &refused]);
}
