//! `list`: for people, for programs, and for pasting.

use serde_json::Value;

use crate::deadline::Finish as _;
use crate::stand::{Run, Stand};

fn objects(stand: &Stand, arguments: &[&str]) -> Vec<Value> {
    let all: Vec<&str> = ["list", "--json"].into_iter().chain(arguments.iter().copied()).collect();
    let list: Value = serde_json::from_str(&stand.run(&all).ok()).unwrap();
    list["modules"][0]["slots"][0]["objects"].as_array().unwrap().clone()
}

#[test]
fn every_printed_uri_selects_its_token() {
    let stand = Stand::new();
    let source = stand.pin_source();
    let public = objects(&stand, &[]);
    let private = objects(&stand, &["--login", "--pin-source", &source]);
    assert_eq!((public.len(), private.len()), (2, 3), "the private key shows after the login");
    for object in public.iter().chain(&private) {
        stand.sign(&["--uri", object["uri"].as_str().unwrap()]).ok();
    }
}

#[test]
fn nothing_logs_in_without_login() {
    let mut stand = Stand::new();
    stand.faulty("");
    stand.run(&["list"]).ok();
    stand.run(&["certificate"]).ok();
    assert_eq!(stand.calls("C_Login"), 0);
}

#[test]
fn the_table_shows_token_key_certificate_and_a_snippet_that_works() {
    let stand = Stand::new();
    let text = stand.run(&["list", "--login", "--pin-source", &stand.pin_source()]).ok();
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
    let file = stand.write("c.toml", snippet.lines().map(|line| format!("{}\n", line.trim())).collect::<String>());
    stand.sign(&["--config", &file]).ok();
}

#[test]
fn a_slot_that_cannot_be_read_is_listed_and_usable_by_its_id_alone() {
    let mut stand = Stand::new();
    stand.faulty("clock");
    let text = stand.run(&["list"]).ok();
    assert!(
        text.contains("cannot be read completely, so --slot cannot select it: C_GetTokenInfo")
            && text.contains("certificate"),
        "{text}"
    );
    let list: Value = serde_json::from_str(&stand.run(&["list", "--json"]).ok()).unwrap();
    let slot = &list["modules"][0]["slots"][0];
    assert_eq!(slot["index"], 0, "it keeps its place");
    let error = stand.sign(&["--slot", "0"]).failed(3);
    let id = slot["slot_id"].to_string();
    assert!(error.contains(&format!("--slot-id {id}")), "{error}");
    stand.sign(&["--slot-id", &id]).ok();
    stand.sign(&["--token-label", "cba"]).ok();
    stand.faulty("C_GetTokenInfo=0x30");
    let text = stand.run(&["list"]).ok();
    assert!(text.contains("C_GetTokenInfo: CKR_DEVICE_ERROR"), "{text}");
    stand.sign(&["--slot-id", &id]).ok();
}

#[test]
fn a_selection_without_an_option_hides_no_token() {
    let stand = Stand::new();
    let config = stand.write("wrong.toml", "[token]\nserial = \"wrong\"\n");
    let error = stand.run(&["sign", "--config", &config, "--pin-source", &stand.pin_source()]).failed(3);
    assert!(error.contains("the token with serial wrong was not found"), "{error}");
    assert!(stand.run(&["list", "--config", &config]).ok().contains("token 'cba'"));
    let mut command = stand.command(&["list"]);
    command.env("CBA_AGENT_TOKEN_LABEL", "wrong");
    assert!(Run::from_output(command.finish()).ok().contains("token 'cba'"));
    // An option selects.
    let error = stand.run(&["list", "--config", &config, "--token-label", "cba"]).failed(3);
    assert!(error.contains("no slot matches the selection"), "{error}");
    assert!(stand.run(&["list", "--token-label", "cba"]).ok().contains("token 'cba'"));
}

#[test]
fn labels_with_escape_sequences_do_no_harm() {
    let mut stand = Stand::new();
    stand.faulty("label=\u{1b}[2Jevil");
    let run = stand.run(&["list"]);
    assert!(!run.ok().contains('\u{1b}'));
    assert!(!stand.sign(&["-v"]).stderr.contains('\u{1b}'));
}
