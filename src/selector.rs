//! Selects the token: `--slot`, `--slot-id`, `--token-label`, `--token-serial` and RFC 7512 URIs.
//!
//! PURE. A selection that matches two tokens is refused, with a selector to paste for each; nothing is guessed.

use crate::error::{Explain, Kind};
use crate::facts::{Library, Slot, Token};
use crate::text::printable;

pub(crate) mod uri;

pub(crate) use uri::{ObjectType, Uri};

/// The selection by one source (the flags, or one URI). All given members must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenSelector {
    /// The index among the slots with an initialised token, from 0, in the module's order.
    pub slot: Option<usize>,
    /// The raw `CK_SLOT_ID`.
    pub slot_id: Option<u64>,
    /// The token's label.
    pub label: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// The token's manufacturer.
    pub manufacturer: Option<String>,
    /// The token's model.
    pub model: Option<String>,
    /// The manufacturer of the slot.
    pub slot_manufacturer: Option<String>,
    /// The description of the slot.
    pub slot_description: Option<String>,
    /// The manufacturer of the module.
    pub library_manufacturer: Option<String>,
    /// The description of the module.
    pub library_description: Option<String>,
    /// The module's version; a missing minor number is 0.
    pub library_version: Option<String>,
    /// The name of an unknown attribute. It matches nothing (RFC 7512 section 2.3).
    pub unknown: Option<String>,
}

impl TokenSelector {
    /// Whether the selection is empty.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the selection is only an index, which is stable only while the set of tokens is.
    #[must_use]
    pub(crate) fn is_index_alone(&self) -> bool {
        *self == Self { slot: self.slot, ..Self::default() } && self.slot.is_some()
    }

    /// Whether a token matches, without its slot.
    #[must_use]
    pub(crate) fn matches_token(&self, token: &Token) -> bool {
        same(&self.label, &token.label)
            && same(&self.serial, &token.serial)
            && same(&self.manufacturer, &token.manufacturer)
            && same(&self.model, &token.model)
    }

    /// Whether the slot matches, by its description.
    fn matches_slot(&self, slot: &Slot) -> bool {
        same(&self.slot_manufacturer, &slot.manufacturer) && same(&self.slot_description, &slot.description)
    }

    /// Whether a module matches.
    #[must_use]
    pub(crate) fn matches_library(&self, library: &Library) -> bool {
        let version = self.library_version.as_deref();
        same(&self.library_manufacturer, &library.manufacturer)
            && same(&self.library_description, &library.description)
            && version.is_none_or(|version| numbers(version) == numbers(&library.version))
    }

    /// Whether the selection needs a module: it names slots or modules.
    #[must_use]
    pub(crate) fn needs_module(&self) -> bool {
        let slot = self.slot_manufacturer.is_some() || self.slot_description.is_some();
        let library =
            self.library_manufacturer.is_some() || self.library_description.is_some() || self.library_version.is_some();
        self.slot.is_some() || self.slot_id.is_some() || slot || library || self.unknown.is_some()
    }

    fn describes_token(&self) -> bool {
        self.label.is_some() || self.serial.is_some() || self.manufacturer.is_some() || self.model.is_some()
    }

    /// The requirements for the token, in words.
    fn description(&self) -> Vec<String> {
        let serial = self.serial.as_ref().map(|serial| match serial.trim() {
            "" => "an empty serial number".to_owned(),
            serial => format!("serial {}", printable(serial)),
        });
        let quoted = [("label", &self.label), ("manufacturer", &self.manufacturer), ("model", &self.model)];
        let quoted =
            quoted.into_iter().filter_map(|(name, value)| Some(format!("{name} '{}'", printable(value.as_ref()?))));
        serial.into_iter().chain(quoted).collect()
    }
}

/// Compares a field. Fields are padded with spaces, by some modules with NUL.
fn same(wanted: &Option<String>, found: &str) -> bool {
    let trimmed = |text: &'_ str| text.trim_end_matches(PADDING).len();
    wanted.as_deref().is_none_or(|wanted| wanted[..trimmed(wanted)] == found[..trimmed(found)])
}

/// The padding of fields with a fixed length.
pub(crate) const PADDING: [char; 2] = [' ', '\0'];

/// Major and minor number of a version.
fn numbers(version: &str) -> Option<(u8, u8)> {
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The reason why no token was selected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SelectError {
    /// No slot has an initialised token.
    #[error("no initialised token found")]
    NoToken {
        /// Slots with an uninitialised token.
        uninitialised: usize,
    },
    /// The selected token is in no slot.
    #[error("the token with {asked} was not found")]
    NotThere {
        /// The selection, in words.
        asked: String,
        /// The existing tokens, each as a selector.
        candidates: Vec<String>,
    },
    /// None of the tokens matches.
    #[error("no token matches the selection{}", .asked.as_deref().map(|a| format!(" ({a})")).unwrap_or_default())]
    NoMatch {
        /// The part of the selection that does not match, if known.
        asked: Option<String>,
        /// The existing tokens, each as a selector.
        candidates: Vec<String>,
    },
    /// More than one matches.
    #[error("{} tokens match the selection", .candidates.len())]
    Ambiguous {
        /// Each as a selector.
        candidates: Vec<String>,
    },
    /// Nothing readable matches, but an unreadable slot might.
    #[error("no token matches, and slot ID {id} cannot be read: {cause}")]
    MaybeUnreadable {
        /// Its slot ID.
        id: u64,
        /// The module's error.
        cause: String,
    },
    /// One token matches, but an unreadable slot might match too.
    #[error("one token is here, and slot ID {id}, which may hold another, cannot be read: {cause}")]
    BesideUnreadable {
        /// Its slot ID.
        id: u64,
        /// The module's error.
        cause: String,
        /// The readable one, as a selector.
        readable: String,
    },
    /// The slot of the index cannot be read.
    #[error("slot {index} (slot ID {id}) cannot be read: {cause}")]
    Unreadable {
        /// The selected index.
        index: usize,
        /// Its slot ID.
        id: u64,
        /// The module's error.
        cause: String,
    },
    /// The token in the selected slot has no initialised PIN and label.
    #[error("the token in slot ID {id} is not initialised")]
    Uninitialised {
        /// The slot ID.
        id: u64,
    },
}

impl Explain for SelectError {
    fn kind(&self) -> Kind {
        match self {
            Self::Ambiguous { .. } | Self::BesideUnreadable { .. } => Kind::Ambiguous,
            Self::MaybeUnreadable { .. } => Kind::TokenFailed,
            _ => Kind::NotFound,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoToken { uninitialised: 0 } => {
                vec!["plug the token in, or check the module's configuration; `cba-agent list` shows the slots".into()]
            }
            Self::NoToken { .. } => vec![format!("a token is there but not initialised: {}", initialise(""))],
            Self::Uninitialised { id } => vec![format!("initialise it: {}", initialise(&format!("--slot {id} ")))],
            Self::NotThere { candidates, .. } | Self::NoMatch { candidates, .. } if candidates.is_empty() => {
                vec!["plug the token in, or check the module's configuration; `cba-agent list` shows the slots".into()]
            }
            Self::NotThere { candidates, .. } | Self::NoMatch { candidates, .. } => {
                candidates.iter().map(|c| format!("there is {c}")).collect()
            }
            Self::Ambiguous { candidates } => candidates.iter().map(|c| format!("choose with {c}")).collect(),
            Self::BesideUnreadable { id, readable, .. } => {
                vec![format!("choose with {readable}"), format!("choose with --slot-id {id}")]
            }
            Self::Unreadable { id, .. } | Self::MaybeUnreadable { id, .. } => {
                vec![format!("if you mean this slot, choose it with --slot-id {id}")]
            }
        }
    }
}

/// The two commands that initialise a token.
fn initialise(slot: &str) -> String {
    format!(
        "`pkcs11-tool {slot}--init-token --label cba`, then `pkcs11-tool --token-label cba --login --login-type so --init-pin`"
    )
}

/// Selects the only slot that every selector matches.
///
/// # Errors
/// When none or several match, or when the index means a slot that cannot be read.
pub(crate) fn select<'a>(
    library: &Library,
    slots: &'a [Slot],
    selectors: &[TokenSelector],
) -> Result<&'a Slot, SelectError> {
    let blame = |asked: String| SelectError::NoMatch { asked: Some(asked), candidates: candidates(slots) };
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
        return SelectError::NoMatch { asked: None, candidates: candidates(slots) };
    }
    let descriptions: Vec<String> = selectors.iter().flat_map(TokenSelector::description).collect();
    match (descriptions.is_empty(), nothing_here) {
        (false, _) => SelectError::NotThere { asked: descriptions.join(", "), candidates: candidates(slots) },
        (true, true) => SelectError::NoToken { uninitialised: slots.len() },
        (true, false) => SelectError::NoMatch { asked: None, candidates: candidates(slots) },
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
    let asked = if looks_like_id {
        format!("--slot counts initialised tokens from 0; {index} is a slot ID: use --slot-id {index}")
    } else {
        format!("--slot {index}, but there are {count} initialised tokens, counted from 0")
    };
    SelectError::NoMatch { asked: Some(asked), candidates: candidates(slots) }
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
