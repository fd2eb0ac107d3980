//! The selection of a token by one source, and which tokens it matches.
//!
//! PURE.

use crate::facts::{Library, Slot, Token};
use crate::text::printable;

/// The selection by one source (the flags, or one URI). All given members must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenSelector {
    /// The index among the slots with an initialised token, from 0, in the module's order.
    pub slot: Option<usize>,
    /// The raw `CK_SLOT_ID`.
    pub slot_id: Option<u64>,
    pub label: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
    pub slot_manufacturer: Option<String>,
    pub slot_description: Option<String>,
    pub library_manufacturer: Option<String>,
    pub library_description: Option<String>,
    /// The module's version; a missing minor number is 0.
    pub library_version: Option<String>,
    /// The name of an unknown attribute. It matches nothing (RFC 7512 section 2.3).
    pub unknown: Option<String>,
}

impl TokenSelector {
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
    pub(super) fn matches_slot(&self, slot: &Slot) -> bool {
        same(&self.slot_manufacturer, &slot.manufacturer) && same(&self.slot_description, &slot.description)
    }

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

    pub(super) fn describes_token(&self) -> bool {
        self.label.is_some() || self.serial.is_some() || self.manufacturer.is_some() || self.model.is_some()
    }

    /// The requirements for the token, in words.
    pub(super) fn description(&self) -> Vec<String> {
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
