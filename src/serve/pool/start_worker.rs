//! The start of a worker: on the token that the agent holds, judged, logged in, and known.
//!
//! Runs in the parent.

use std::sync::Arc;

use super::Shared;
use crate::cba::Version;
use crate::config::Config;
use crate::custody::Evidence;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::TokenId;
use crate::pin::Credential;
use crate::policy::Wish;
use crate::session::{self, Login, read_certificate};
use crate::signer::Signer;

/// From nothing to a worker that is logged in, on the token that is expected where one is; with what is known of the key.
pub(super) fn start(
    shared: &Shared,
    credential: Option<Arc<Credential>>,
    expected: Option<&TokenId>,
) -> Result<(Signer, Evidence)> {
    let config = &shared.config;
    let time = || Deadline::after(config.serve.call_timeout);
    let login = Login::with(credential, config.serve.call_timeout);
    let file = config.certificate_file.as_deref().map(read_certificate).transpose()?;
    let reached = session::open(config, &time())?.reach(config, time())?;
    let found = reached.token_id();
    if expected.is_some_and(|expected| *expected != found) {
        let message = format!("{} is in the place of the one that this agent holds; it gets no PIN", reached.name());
        reached.end(None);
        return Err(Error::new(Kind::TokenRemoved, message)
            .hint("put the other one back, or tell the agent to take this one: systemctl reload, or SIGHUP"));
    }
    let mut signer = Signer::ready(reached, login, file, config, first_wish(config))?;
    signer.release();
    let digest = shared.digest_of(&signer.reached().opened.module);
    // What is evidence alone is left out where asking for it once cost a worker.
    let in_detail = shared.lock().evidence_is_safe;
    let evidence = signer.evidence(digest, in_detail).inspect_err(|_| shared.lock().evidence_is_safe = false)?;
    Ok((signer, evidence))
}

/// What a worker is judged by before it gets the PIN; each request is judged by its own.
pub(super) fn first_wish(config: &Config) -> Wish {
    let allowed = config.policy.payload_versions.as_ref().and_then(|versions| versions.first().copied());
    Wish { version: allowed.unwrap_or(Version::V2), by_flag: false }
}
