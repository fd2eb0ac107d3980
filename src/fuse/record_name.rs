//! The names of a token's record: its file for programs, its URI for people.
//!
//! PURE.

use sha2::{Digest as _, Sha256};

use crate::facts::Token;
use crate::selector::{TokenSelector, Uri};
use crate::text::hex;

/// The URI that selects one fuse: every field of its record, also empty ones.
#[must_use]
pub(crate) fn uri_of(token: &Token) -> Uri {
    let field = |text: &str| Some(text.to_owned());
    let token = TokenSelector {
        label: field(&token.label),
        serial: field(&token.serial),
        manufacturer: field(&token.manufacturer),
        model: field(&token.model),
        ..TokenSelector::default()
    };
    Uri { token, ..Uri::default() }
}

/// The file name of a token's record. It contains the label, as in every version so far, so that all versions find it.
/// The content decides which records belong to one token.
pub(super) fn file_name(token: &Token) -> String {
    let parts = [&token.manufacturer, &token.model, &token.serial, &token.label];
    let digest = parts.iter().fold(Sha256::new(), |digest, part| digest.chain_update(part).chain_update([0]));
    hex(&digest.finalize()[..16])
}
