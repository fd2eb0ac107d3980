//! Finds a module, starts a worker, selects a slot, logs in, and selects an identity.
//!
//! Runs in the parent. The order matters: everything that can fail without a PIN fails before the program asks for one.
//! The PIN's state is checked before a PIN is sent.

use std::path::Path;
use std::time::Duration;

use crate::certificate::file_format::{self, HOLDS_A_PRIVATE_KEY};
use crate::certificate::{Certificate, leaf};
use crate::error::{Error, Kind, Result};
use crate::files::unreadable_hint;
use crate::identity::Identity;
use crate::log::warn_once;
use crate::os::input_file;

pub(crate) mod complete_hints;
pub(crate) mod evidence;
mod find_module;
mod loaded_module;
mod login;
mod module_hints;
mod pin_attempt;
pub(crate) mod signing_session;
mod slot_session;
mod token_session;
mod token_store;

pub(crate) use find_module::{open, open_all, open_with};
pub(crate) use loaded_module::{LoadedModule, check_module};
pub(crate) use login::Login;
pub(crate) use pin_attempt::{KEYPAD_TIMEOUT, SignError};
pub(crate) use slot_session::SlotSession;
pub(crate) use token_session::TokenSession;

/// Logs the reason for this certificate, and the certificates of the token that cannot be used.
pub(crate) fn report_notices(identity: &Identity) {
    identity.notice.iter().for_each(|notice| tracing::info!("{notice}"));
    for other in &identity.unreadable {
        if other.is_broken() {
            warn_once(&other.to_string());
        } else {
            tracing::debug!("{other}");
        }
    }
}

/// Reads a certificate file in any form.
///
/// # Errors
/// When it cannot be read, or does not contain exactly one certificate that is not a CA's.
pub(crate) fn read_certificate(path: &Path) -> Result<Certificate> {
    const LIMIT: usize = 1 << 20;
    let shown = path.display();
    let failed = |error: std::io::Error| {
        Error::new(Kind::Config, format!("cannot read {shown}: {error}")).hint(unreadable_hint(path))
    };
    let bytes =
        input_file::open_regular(path).and_then(|file| input_file::read_opened(&file, LIMIT)).map_err(failed)?;
    let unusable = |what: String| Error::new(Kind::Config, format!("cannot use the certificate file {shown}: {what}"));
    let file = file_format::read(&bytes)
        .map_err(|what| unusable(format!("it is {what}")).hint(what.remedy(&shown.to_string())))?;
    if file.has_private_key {
        warn_once(&format!("{shown} {HOLDS_A_PRIVATE_KEY}"));
    }
    let found = leaf::find(&file.certificates);
    found.map(|leaf| leaf.certificate).map_err(|error| {
        let path = file_format::quoted(&shown.to_string());
        unusable(error.to_string()).hint(format!("`cba-agent doctor --certificate {path}` checks the file"))
    })
}

/// Warns about a certificate that expires soon.
pub(crate) fn warn_before_end(certificate: &Certificate, warn_before: Duration, now: u64) {
    let left = certificate.not_after.saturating_sub(now);
    if certificate.is_valid_at(now) && left < warn_before.as_secs() {
        let end = crate::certificate::utc(certificate.not_after);
        let left = crate::values::days(left);
        warn_once(&format!("the certificate ends in {left} ({end}); register a new one in time"));
    }
}
