//! Starts a worker: checks the token, asks the policy, logs in, and reads the evidence.
//!
//! Runs in the parent.

use std::sync::Arc;

use super::state::PoolShared;
use crate::cba::Version;
use crate::config::Config;
use crate::custody::Evidence;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::TokenId;
use crate::modules;
use crate::pin::Credential;
use crate::policy::PayloadChoice;
use crate::session::signing_session::SigningSession;
use crate::session::{self, Login, TokenSession, read_certificate};
use crate::signer;

/// Starts a worker, logs it in on the expected token, and returns the evidence of its key.
///
/// # Errors
/// When one of these steps fails. The worker has ended then.
pub(super) fn start(
    shared: &PoolShared,
    credential: Option<Arc<Credential>>,
    expected: Option<&TokenId>,
) -> Result<(SigningSession, Evidence)> {
    let config = &shared.config;
    let time = || Deadline::after(config.serve.call_timeout);
    let login = Login::with(credential, config.serve.call_timeout);
    let file = config.certificate_file.as_deref().map(read_certificate).transpose()?;
    let slot_session = session::open(config, &time())?.open_session(config, time())?;
    let token_id = slot_session.token_id();
    if expected.is_some_and(|expected| *expected != token_id) {
        let message = format!("{} is not the token that this agent uses; no PIN is sent to it", slot_session.name());
        slot_session.end(None);
        return Err(Error::new(Kind::TokenRemoved, message).hint(
            "insert the other token again, or make the agent use this one: `systemctl reload cba-agent`, or SIGHUP",
        ));
    }
    let mut session = signer::ready(TokenSession::new(slot_session, login), file, config, first_choice(config))?;
    session.release();
    let digest = modules::sha256(&session.slot_session().module.path);
    // Attributes that serve only as evidence are left out if an earlier worker was lost while it read them.
    let in_detail = shared.lock().evidence_is_safe;
    let evidence = session.evidence(digest, in_detail).inspect_err(|_| shared.lock().evidence_is_safe = false)?;
    Ok((session, evidence))
}

/// The choice of payload that a worker is checked with before it gets the PIN. Each request is checked with its own
/// choice.
pub(super) fn first_choice(config: &Config) -> PayloadChoice {
    let allowed = config.policy.payload_versions.as_ref().and_then(|versions| versions.first().copied());
    PayloadChoice { version: allowed.unwrap_or(Version::V2), by_flag: false }
}
