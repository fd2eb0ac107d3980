//! Selects the token: `--slot`, `--slot-id`, `--token-label`, `--token-serial` and RFC 7512 URIs.
//!
//! PURE. A selection that matches two tokens is refused, with a selector to paste for each; nothing is guessed.

use crate::facts::{Library, Slot};
use crate::text::printable;

mod error;
mod token_selector;
pub(crate) mod uri;

pub(crate) use error::SelectError;
pub(crate) use token_selector::{PADDING, TokenSelector};
pub(crate) use uri::{ObjectType, Uri};

/// Selects the only slot that every selector matches.
///
/// # Errors
/// When none or several match, or when the index means a slot that cannot be read.
pub(crate) fn select<'a>(
    library: &Library,
    slots: &'a [Slot],
    selectors: &[TokenSelector],
) -> Result<&'a Slot, SelectError> {
    let blame = |selection: String| SelectError::NoMatch { selection: Some(selection), candidates: candidates(slots) };
    if let Some(name) = selectors.iter().find_map(|selector| selector.unknown.as_ref()) {
        return Err(blame(format!("the attribute '{name}' of the URI is not known, so it matches nothing")));
    }
    if !selectors.iter().all(|selector| selector.matches_library(library)) {
        let own = Uri { token: library_selector(library), ..Uri::default() };
        return Err(blame(format!("the module is {own}")));
    }
    let indexed: Vec<&Slot> = indexed(slots).collect();
    if let Some(id) = selectors.iter().find_map(|s| s.slot_id) {
        let slot = slots.iter().find(|slot| slot.id == id);
        let no_match = || blame(format!("slot ID {id}"));
        let slot = slot.ok_or_else(no_match)?;
        if slot.error.is_none() && !slot.token.as_ref().is_some_and(|token| token.initialized) {
            return Err(SelectError::Uninitialised { id });
        }
        return if matches_all(slot, &indexed, selectors) { Ok(slot) } else { Err(no_match()) };
    }
    if let Some(index) = selectors.iter().find_map(|s| s.slot) {
        let Some(slot) = indexed.get(index) else {
            return Err(no_such_index(index, slots, indexed.len()));
        };
        if let Some(cause) = &slot.error {
            return Err(SelectError::Unreadable { index, id: slot.id, cause: cause.clone() });
        }
    }
    // A token with only an invalid clock still has an identity.
    let says_who_it_is = |slot: &&Slot| slot.token.as_ref().is_some_and(|token| token.initialized);
    let found: Vec<&Slot> =
        indexed.iter().copied().filter(says_who_it_is).filter(|slot| matches_all(slot, &indexed, selectors)).collect();
    let silent = |slot: &&Slot| slot.token.is_none().then(|| (slot.id, slot.error.clone().unwrap_or_default()));
    let unreadable = indexed.iter().find_map(silent);
    let says_nothing = selectors.iter().all(|selector| !selector.describes_token() && selector.slot.is_none());
    match (found.as_slice(), unreadable) {
        ([one], Some((id, cause))) if says_nothing => {
            Err(SelectError::BesideUnreadable { id, cause, readable: selector_of(one, slots) })
        }
        ([], Some((id, cause))) => Err(SelectError::MaybeUnreadable { id, cause }),
        ([], None) => Err(not_there(slots, selectors, indexed.is_empty())),
        (found, _) => one_of(found, slots),
    }
}

fn not_there(slots: &[Slot], selectors: &[TokenSelector], nothing_here: bool) -> SelectError {
    // The token may be in another slot than the selected one.
    let is_here = slots
        .iter()
        .filter_map(|slot| slot.token.as_ref())
        .any(|token| selectors.iter().all(|selector| selector.matches_token(token)));
    if is_here && !nothing_here {
        return SelectError::NoMatch { selection: None, candidates: candidates(slots) };
    }
    let descriptions: Vec<String> = selectors.iter().flat_map(TokenSelector::description).collect();
    match (descriptions.is_empty(), nothing_here) {
        (false, _) => SelectError::NotThere { selection: descriptions.join(", "), candidates: candidates(slots) },
        (true, true) => SelectError::NoToken { uninitialised: slots.len() },
        (true, false) => SelectError::NoMatch { selection: None, candidates: candidates(slots) },
    }
}

fn library_selector(library: &Library) -> TokenSelector {
    TokenSelector {
        library_manufacturer: Some(library.manufacturer.clone()),
        library_description: Some(library.description.clone()),
        library_version: Some(library.version.clone()),
        ..TokenSelector::default()
    }
}

fn one_of<'a>(found: &[&'a Slot], slots: &[Slot]) -> Result<&'a Slot, SelectError> {
    match found {
        [one] => Ok(one),
        several => Err(SelectError::Ambiguous { candidates: several.iter().map(|s| selector_of(s, slots)).collect() }),
    }
}

/// The slots that an index counts: those with an initialised token, and unreadable ones, which may have one.
pub(crate) fn indexed(slots: &[Slot]) -> impl Iterator<Item = &Slot> {
    slots.iter().filter(|slot| slot.error.is_some() || slot.token.as_ref().is_some_and(|token| token.initialized))
}

/// The URI of a slot's token, for [`select`]. It contains the slot ID only if nothing else distinguishes two tokens.
#[must_use]
pub(crate) fn token_uri(slot: &Slot, slots: &[Slot]) -> Uri {
    let Some(token) = &slot.token else {
        return Uri { token: TokenSelector { slot_id: Some(slot.id), ..TokenSelector::default() }, ..Uri::default() };
    };
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut selector = TokenSelector {
        label: given(&token.label),
        serial: given(&token.serial),
        manufacturer: given(&token.manufacturer),
        model: given(&token.model),
        ..TokenSelector::default()
    };
    let twins = slots.iter().filter(|s| s.token.as_ref().is_some_and(|t| selector.matches_token(t))).count();
    if twins > 1 || slot.error.is_some() || selector.is_empty() {
        selector.slot_id = Some(slot.id);
    }
    Uri { token: selector, ..Uri::default() }
}

fn matches_all(slot: &Slot, indexed: &[&Slot], selectors: &[TokenSelector]) -> bool {
    selectors.iter().all(|selector| {
        selector.slot_id.is_none_or(|id| id == slot.id)
            && selector.matches_slot(slot)
            && selector.slot.is_none_or(|index| indexed.get(index).is_some_and(|at| at.id == slot.id))
            && match &slot.token {
                Some(token) => selector.matches_token(token),
                None => !selector.describes_token(),
            }
    })
}

fn no_such_index(index: usize, slots: &[Slot], count: usize) -> SelectError {
    if count == 0 {
        return SelectError::NoToken { uninitialised: slots.len() };
    }
    let looks_like_id = slots.iter().any(|slot| u64::try_from(index) == Ok(slot.id));
    let selection = if looks_like_id {
        format!("--slot counts initialised tokens from 0; {index} is a slot ID: use --slot-id {index}")
    } else {
        let tokens = if count == 1 { "1 token is".into() } else { format!("{count} tokens are") };
        format!("--slot {index} counts from 0, and only {tokens} initialised")
    };
    SelectError::NoMatch { selection: Some(selection), candidates: candidates(slots) }
}

fn candidates(slots: &[Slot]) -> Vec<String> {
    indexed(slots).map(|slot| selector_of(slot, slots)).collect()
}

fn selector_of(slot: &Slot, slots: &[Slot]) -> String {
    let label = slot.token.as_ref().map(|t| format!("   (label '{}')", printable(&t.label))).unwrap_or_default();
    format!("--uri '{}'{label}", token_uri(slot, slots))
}

#[cfg(test)]
mod tests;
