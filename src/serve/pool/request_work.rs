//! A request in a worker's hands: carried out, rendered, recorded.
//!
//! Runs in the parent.

use std::time::Instant;

use super::plan::action::Job;
use super::start_worker::first_wish;
use super::{Shared, Task};
use crate::audit::chain::{Caller, Entry};
use crate::cba::{Format, Request};
use crate::error::{Error, Kind, Result};
use crate::signer::Signer;

/// A request that a worker has.
pub(super) struct Asked {
    pub(super) job: Job,
    pub(super) task: Task,
    pub(super) since: Instant,
    /// Whether the worker was told; if not, it is once this is the first.
    pub(super) begun: bool,
}

/// The record of what came of a request, where records are kept and it was one for a payload.
pub(super) fn entry(
    shared: &Shared,
    signer: &Signer,
    asked: &Asked,
    made: Result<Option<&Request>, Kind>,
) -> Option<Entry> {
    match &asked.task {
        Task::Sign(wish, caller) if shared.desk.is_some() => {
            made.transpose().map(|made| signer.entry(caller.clone(), *wish, made))
        }
        _ => None,
    }
}

/// Who asks, for the log.
pub(super) fn asked_by(task: &Task) -> String {
    match task {
        Task::Probe => "a probe".into(),
        Task::Sign(wish, Caller { uid, gid, pid, job }) => {
            let job = job.as_deref().unwrap_or("-");
            format!("payload {} for user {uid} group {gid} (process {pid}, job {job})", wish.version)
        }
    }
}

/// A payload, or nothing for a token that answers.
pub(super) fn carry_out(task: &Task, worker: &mut Signer, shared: &Shared) -> Result<Option<Request>> {
    let config = &shared.config;
    match task {
        Task::Probe => worker.probe(config, first_wish(config)).map(|()| None),
        Task::Sign(wish, _) => {
            let request = worker.sign(config, *wish)?;
            if !shared.is_new(&request) {
                return Err(repeated());
            }
            tracing::info!("{}", asked_by(task));
            Ok(Some(request))
        }
    }
}

/// It passes every other check, and is an alarm all the same.
fn repeated() -> Error {
    let message = "cannot hand out a payload: the token's result was discarded: its message was handed out before";
    Error::new(Kind::SignatureInvalid, message)
        .hint("treat this as an alarm: module, token or memory is faulty or compromised; nothing was handed out")
}

pub(super) fn text_of(request: &Request) -> Result<String> {
    request.render(Format::Json).map_err(|error| Error::new(Kind::Unexpected, error.to_string()))
}
