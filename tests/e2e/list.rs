//! `list`: for people, for programs, and for pasting.

use serde_json::Value;

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, Run};

fn objects(fixture: &Fixture, arguments: &[&str]) -> Vec<Value> {
    let all: Vec<&str> = ["list", "--json"].into_iter().chain(arguments.iter().copied()).collect();
    let list: Value = serde_json::from_str(&fixture.run(&all).ok()).unwrap();
    list["modules"][0]["slots"][0]["objects"].as_array().unwrap().clone()
}

#[test]
fn every_printed_uri_selects_its_token() {
    let fixture = Fixture::new();
    let source = fixture.pin_source();
    let public = objects(&fixture, &[]);
    let private = objects(&fixture, &["--login", "--pin-source", &source]);
    assert_eq!((public.len(), private.len()), (2, 3), "the private key shows after the login");
    for object in public.iter().chain(&private) {
        fixture.sign(&["--uri", object["uri"].as_str().unwrap()]).ok();
    }
}

#[test]
fn nothing_logs_in_without_login() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    fixture.run(&["list"]).ok();
    fixture.run(&["certificate"]).ok();
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn the_table_shows_token_key_certificate_and_a_snippet_that_works() {
    let fixture = Fixture::new();
    let text = fixture.run(&["list", "--login", "--pin-source", &fixture.pin_source()]).ok();
    for word in [
        "slot 0 (ID ",
        "token 'cba'",
        "private key",
        "public key",
        "certificate",
        "RSA 2048, sensitive, not extractable",
        "CN=integration cba",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let snippet = text.split("# for the configuration file:").nth(1).unwrap();
    let file = fixture.write("c.toml", snippet.lines().map(|line| format!("{}\n", line.trim())).collect::<String>());
    fixture.sign(&["--config", &file]).ok();
}

#[test]
fn a_slot_that_cannot_be_read_is_listed_and_usable_by_its_id_alone() {
    let mut fixture = Fixture::new();
    fixture.faulty("clock");
    let text = fixture.run(&["list"]).ok();
    assert!(
        text.contains("cannot be read completely, so --slot cannot select it: C_GetTokenInfo")
            && text.contains("certificate"),
        "{text}"
    );
    let list: Value = serde_json::from_str(&fixture.run(&["list", "--json"]).ok()).unwrap();
    let slot = &list["modules"][0]["slots"][0];
    assert_eq!(slot["index"], 0, "it keeps its place");
    let error = fixture.sign(&["--slot", "0"]).failed(3);
    let id = slot["slot_id"].to_string();
    assert!(error.contains(&format!("--slot-id {id}")), "{error}");
    fixture.sign(&["--slot-id", &id]).ok();
    fixture.sign(&["--token-label", "cba"]).ok();
    fixture.faulty("C_GetTokenInfo=0x30");
    let text = fixture.run(&["list"]).ok();
    assert!(text.contains("C_GetTokenInfo: CKR_DEVICE_ERROR"), "{text}");
    fixture.sign(&["--slot-id", &id]).ok();
}

#[test]
fn a_selection_without_an_option_hides_no_token() {
    let fixture = Fixture::new();
    let config = fixture.write("wrong.toml", "[token]\nserial = \"wrong\"\n");
    let error = fixture.run(&["sign", "--config", &config, "--pin-source", &fixture.pin_source()]).failed(3);
    assert!(error.contains("the token with serial wrong was not found"), "{error}");
    assert!(fixture.run(&["list", "--config", &config]).ok().contains("token 'cba'"));
    let mut command = fixture.command(&["list"]);
    command.env("CBA_AGENT_TOKEN_LABEL", "wrong");
    assert!(Run::from_output(command.finish()).ok().contains("token 'cba'"));
    // An option selects.
    let error = fixture.run(&["list", "--config", &config, "--token-label", "cba"]).failed(3);
    assert!(error.contains("no slot matches the selection"), "{error}");
    assert!(fixture.run(&["list", "--token-label", "cba"]).ok().contains("token 'cba'"));
}

#[test]
fn labels_with_escape_sequences_do_no_harm() {
    let mut fixture = Fixture::new();
    fixture.faulty("label=\u{1b}[2Jevil");
    let run = fixture.run(&["list"]);
    assert!(!run.ok().contains('\u{1b}'));
    assert!(!fixture.sign(&["-v"]).stderr.contains('\u{1b}'));
}
