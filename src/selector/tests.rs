//! Unit tests of the token selectors.
//!
//! PURE.

use super::*;
use crate::error::{Explain as _, Kind};
use crate::facts::Token;

fn slot(id: u64, label: &str, serial: &str) -> Slot {
    let token = Token { label: label.into(), serial: serial.into(), initialized: true, ..Token::default() };
    Slot { id, token: Some(token), error: None, ..Slot::default() }
}

fn choose<'a>(slots: &'a [Slot], selectors: &[TokenSelector]) -> Result<&'a Slot, SelectError> {
    select(&Library::default(), slots, selectors)
}

fn uninitialised(id: u64) -> Slot {
    Slot { id, token: Some(Token::default()), error: None, ..Slot::default() }
}

fn unreadable(id: u64) -> Slot {
    Slot { id, token: None, error: Some("C_GetTokenInfo: CKR_DEVICE_ERROR".into()), ..Slot::default() }
}

fn by_index(slot: usize) -> Vec<TokenSelector> {
    vec![TokenSelector { slot: Some(slot), ..TokenSelector::default() }]
}

fn by_id(id: u64) -> Vec<TokenSelector> {
    vec![TokenSelector { slot_id: Some(id), ..TokenSelector::default() }]
}

fn by_label(label: &str) -> TokenSelector {
    TokenSelector { label: Some(label.into()), ..TokenSelector::default() }
}

#[test]
fn an_index_counts_initialised_tokens_only() {
    let slots = [uninitialised(7), slot(900_001, "a", "1"), slot(3, "b", "2")];
    assert_eq!(choose(&slots, &by_index(0)).unwrap().id, 900_001);
    assert_eq!(choose(&slots, &by_index(1)).unwrap().id, 3);
}

#[test]
fn an_unreadable_slot_keeps_its_place_and_is_refused_by_index() {
    let slots = [unreadable(4), slot(5, "a", "1")];
    assert!(matches!(choose(&slots, &by_index(0)), Err(SelectError::Unreadable { id: 4, .. })));
    assert_eq!(choose(&slots, &by_index(1)).unwrap().id, 5);
    assert_eq!(choose(&slots, &by_id(4)).unwrap().id, 4);
}

#[test]
fn a_token_with_an_identity_is_selected_by_it_and_not_by_its_index() {
    let mut odd = slot(5, "a", "1");
    odd.error = Some("C_GetTokenInfo: the answer does not parse".into());
    let slots = [odd];
    assert_eq!(choose(&slots, &[]).unwrap().id, 5);
    assert_eq!(choose(&slots, &[by_label("a")]).unwrap().id, 5);
    assert!(matches!(choose(&slots, &by_index(0)), Err(SelectError::Unreadable { id: 5, .. })));
}

#[test]
fn unreadable_slots_are_never_ignored_silently() {
    let slots = [unreadable(4), slot(5, "a", "1")];
    assert!(matches!(choose(&slots, &[]), Err(SelectError::BesideUnreadable { id: 4, .. })));
    assert_eq!(choose(&slots, &[by_label("a")]).unwrap().id, 5);
    let error = choose(&slots, &[by_label("b")]).unwrap_err();
    assert_eq!(error.kind(), Kind::TokenFailed);
    assert!(error.to_string().contains("CKR_DEVICE_ERROR"));
}

#[test]
fn no_selector_is_fine_with_one_token_and_refused_with_two() {
    assert_eq!(choose(&[slot(9, "a", "1"), uninitialised(1)], &[]).unwrap().id, 9);
    let error = choose(&[slot(9, "a", "1"), slot(8, "b", "2")], &[]).unwrap_err();
    assert_eq!(error.kind(), Kind::Ambiguous);
    assert!(error.hints()[0].contains("--uri 'pkcs11:token=a;serial=1'"), "{:?}", error.hints());
}

#[test]
fn all_selectors_must_match() {
    let slots = [slot(9, "a", "1"), slot(8, "b", "2")];
    assert!(choose(&slots, &[by_label("a"), by_label("b")]).is_err());
    let both = TokenSelector { slot: Some(0), label: Some("b".into()), ..TokenSelector::default() };
    assert!(matches!(choose(&slots, &[both]), Err(SelectError::NoMatch { .. })));
}

#[test]
fn twins_are_told_apart_by_slot_id() {
    let slots = [slot(9, "a", "0"), slot(8, "a", "0")];
    let error = choose(&slots, &[by_label("a")]).unwrap_err();
    assert!(error.hints()[0].contains("slot-id=9") && error.hints()[1].contains("slot-id=8"));
    let pasted = Uri::parse(&token_uri(&slots[1], &slots).to_string()).unwrap();
    assert_eq!(choose(&slots, &[pasted.token]).unwrap().id, 8);
}

#[test]
fn a_slot_id_given_as_an_index_gets_the_hint() {
    let slots = [slot(1_234_567, "a", "1")];
    let error = choose(&slots, &by_index(1_234_567)).unwrap_err();
    assert!(error.to_string().contains("--slot-id 1234567"), "{error}");
}

#[test]
fn an_uninitialised_token_is_not_chosen_by_its_id() {
    assert_eq!(choose(&[uninitialised(1)], &by_id(1)), Err(SelectError::Uninitialised { id: 1 }));
    assert_eq!(choose(&[uninitialised(1)], &[]), Err(SelectError::NoToken { uninitialised: 1 }));
}

#[test]
fn both_kinds_of_padding_are_equal() {
    let slots = [slot(9, "a", "1\0\0"), slot(8, "b ", "")];
    for uri in ["pkcs11:token=a;serial=1", "pkcs11:token=a%20%20;serial=1%00", "pkcs11:serial=1%20%00%20"] {
        assert_eq!(choose(&slots, &[Uri::parse(uri).unwrap().token]).unwrap().id, 9, "{uri}");
    }
    for uri in ["pkcs11:token=b;serial=", "pkcs11:serial=%20%20;token=b%20"] {
        assert_eq!(choose(&slots, &[Uri::parse(uri).unwrap().token]).unwrap().id, 8, "{uri}");
    }
    assert!(choose(&slots, &[Uri::parse("pkcs11:token=%20a").unwrap().token]).is_err());
}

#[test]
fn module_and_slot_are_compared_with_the_uri() {
    let library =
        Library { manufacturer: "M".into(), description: "D".into(), version: "2.0".into(), ..Library::default() };
    let mut slots = [slot(9, "a", "1"), slot(8, "a", "2")];
    slots[1].description = "second reader".into();
    let choose = |uri: &str| select(&library, &slots, &[Uri::parse(uri).unwrap().token]).map(|slot| slot.id);
    assert_eq!(choose("pkcs11:slot-description=second%20reader"), Ok(8));
    assert_eq!(choose("pkcs11:slot-id=9;library-manufacturer=M;library-description=D;library-version=2"), Ok(9));
    for uri in ["pkcs11:slot-id=9;library-version=2.1", "pkcs11:slot-id=9;slot-description=x"] {
        assert_eq!(choose(uri).unwrap_err().kind(), Kind::NotFound, "{uri}");
    }
    let error = choose("pkcs11:slot-id=9;x-vendor=1").unwrap_err().to_string();
    assert!(error.contains("'x-vendor'"), "{error}");
}

/// Each member alone, and whether it needs a module.
fn each_alone() -> Vec<(TokenSelector, bool)> {
    let with = |change: fn(&mut TokenSelector)| {
        let mut selector = TokenSelector::default();
        change(&mut selector);
        selector
    };
    vec![
        (with(|s| s.slot = Some(0)), true),
        (with(|s| s.slot_id = Some(0)), true),
        (with(|s| s.slot_manufacturer = Some("x".into())), true),
        (with(|s| s.slot_description = Some("x".into())), true),
        (with(|s| s.library_manufacturer = Some("x".into())), true),
        (with(|s| s.library_description = Some("x".into())), true),
        (with(|s| s.library_version = Some("1".into())), true),
        (with(|s| s.unknown = Some("x".into())), true),
        (with(|s| s.label = Some("x".into())), false),
        (with(|s| s.serial = Some("x".into())), false),
        (with(|s| s.manufacturer = Some("x".into())), false),
        (with(|s| s.model = Some("x".into())), false),
    ]
}

#[test]
fn each_member_counts_for_what_a_selection_needs() {
    assert!(TokenSelector::default().is_empty() && !TokenSelector::default().needs_module());
    assert!(!TokenSelector::default().is_index_alone());
    for (selector, needs_module) in each_alone() {
        assert!(!selector.is_empty());
        assert_eq!(selector.needs_module(), needs_module, "{selector:?}");
        assert_eq!(selector.is_index_alone(), selector.slot.is_some(), "{selector:?}");
        let describes = !needs_module;
        assert_eq!(selector.describes_token(), describes, "{selector:?}");
    }
    let both = TokenSelector { slot: Some(0), label: Some("a".into()), ..TokenSelector::default() };
    assert!(!both.is_index_alone() && both.needs_module());
}

#[test]
fn each_field_of_a_token_is_compared() {
    let token = Token {
        label: "l".into(),
        serial: "s".into(),
        manufacturer: "m".into(),
        model: "d".into(),
        ..Token::default()
    };
    let selector = |values: [&str; 4]| {
        let [label, serial, manufacturer, model] = values.map(|value| Some(value.to_owned()));
        TokenSelector { label, serial, manufacturer, model, ..TokenSelector::default() }
    };
    assert!(selector(["l", "s", "m", "d"]).matches_token(&token));
    for values in [["x", "s", "m", "d"], ["l", "x", "m", "d"], ["l", "s", "x", "d"], ["l", "s", "m", "x"]] {
        assert!(!selector(values).matches_token(&token), "{values:?}");
    }
}

#[test]
fn each_field_of_a_module_is_compared() {
    let library =
        Library { manufacturer: "M".into(), description: "D".into(), version: "2.1".into(), ..Library::default() };
    for (values, wanted) in [
        (["M", "D", "2.1"], true),
        (["x", "D", "2.1"], false),
        (["M", "x", "2.1"], false),
        (["M", "D", "2.2"], false),
        (["M", "D", "2"], false),
    ] {
        let [manufacturer, description, version] = values.map(|value| Some(value.to_owned()));
        let selector = TokenSelector {
            library_manufacturer: manufacturer,
            library_description: description,
            library_version: version,
            ..TokenSelector::default()
        };
        assert_eq!(selector.matches_library(&library), wanted, "{values:?}");
    }
    let slots = [slot(9, "a", "1")];
    let other = TokenSelector { library_manufacturer: Some("x".into()), ..TokenSelector::default() };
    let error = select(&library, &slots, &[other]).unwrap_err().to_string();
    assert!(error.contains("library-manufacturer=M") && error.contains("library-version=2.1"), "{error}");
}

#[test]
fn a_token_that_is_not_there_is_named_with_what_was_asked() {
    let selection = TokenSelector {
        label: Some("l".into()),
        serial: Some("s".into()),
        manufacturer: Some("m".into()),
        model: Some("d".into()),
        ..TokenSelector::default()
    };
    let error = choose(&[slot(9, "a", "1")], std::slice::from_ref(&selection)).unwrap_err();
    assert_eq!(error.to_string(), "the token with serial s, label 'l', manufacturer 'm', model 'd' was not found");
    assert_eq!(error.hints().len(), 1);
    assert!(error.hints()[0].starts_with("there is ") && error.hints()[0].contains("token=a"), "{:?}", error.hints());
    let nowhere = choose(&[], &[selection]).unwrap_err();
    assert!(nowhere.hints()[0].contains("plug the token in"), "{:?}", nowhere.hints());
    // The token is there, in another slot than the one that was chosen.
    let here =
        TokenSelector { slot_description: Some("x".into()), label: Some("a".into()), ..TokenSelector::default() };
    let error = choose(&[slot(9, "a", "1")], &[here]).unwrap_err();
    assert!(matches!(error, SelectError::NoMatch { selection: None, .. }), "{error}");
}

#[test]
fn each_error_has_its_kind_and_a_command_that_helps() {
    let cause = || "E".to_owned();
    let candidates = || vec!["C".to_owned()];
    for (error, kind, hint) in [
        (SelectError::NoToken { uninitialised: 0 }, Kind::NotFound, "plug the token in"),
        (SelectError::NoToken { uninitialised: 1 }, Kind::NotFound, "pkcs11-tool --init-token"),
        (SelectError::Uninitialised { id: 7 }, Kind::NotFound, "pkcs11-tool --slot 7 --init-token"),
        (SelectError::NoMatch { selection: None, candidates: Vec::new() }, Kind::NotFound, "plug the token in"),
        (SelectError::NoMatch { selection: None, candidates: candidates() }, Kind::NotFound, "there is C"),
        (SelectError::NotThere { selection: cause(), candidates: Vec::new() }, Kind::NotFound, "plug the token in"),
        (SelectError::NotThere { selection: cause(), candidates: candidates() }, Kind::NotFound, "there is C"),
        (SelectError::Ambiguous { candidates: candidates() }, Kind::Ambiguous, "choose with C"),
        (SelectError::MaybeUnreadable { id: 7, cause: cause() }, Kind::TokenFailed, "--slot-id 7"),
        (SelectError::Unreadable { index: 0, id: 7, cause: cause() }, Kind::NotFound, "--slot-id 7"),
        (
            SelectError::BesideUnreadable { id: 7, cause: cause(), readable: "R".into() },
            Kind::Ambiguous,
            "choose with R",
        ),
    ] {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.hints()[0].contains(hint), "{error}: {:?}", error.hints());
    }
}

#[test]
fn the_uri_of_a_slot_without_token_data_names_its_slot_id() {
    let slots = [unreadable(4), slot(5, "a", "1")];
    let uri = token_uri(&slots[0], &slots);
    assert_eq!(uri.token, TokenSelector { slot_id: Some(4), ..TokenSelector::default() });
    assert_eq!(choose(&slots, &[uri.token]).unwrap().id, 4);
}

#[test]
fn an_index_beyond_the_last_token_is_answered_with_their_number() {
    let message = |slots: &[Slot]| choose(slots, &by_index(9)).unwrap_err().to_string();
    let one = message(&[slot(5, "a", "1")]);
    assert!(one.contains("only 1 token is initialised"), "{one}");
    let two = message(&[slot(5, "a", "1"), slot(6, "b", "2"), uninitialised(7)]);
    assert!(two.contains("only 2 tokens are initialised"), "{two}");
}
