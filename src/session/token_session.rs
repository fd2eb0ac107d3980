//! A session on a token, and the logins in this session.
//!
//! Runs in the parent. The worker ends before the token's lock is released: the next login waits for this lock, and
//! must find the previous user logged out.

use super::{Login, SignError, SlotSession, find_module};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::worker_protocol::{LoginMethod, WorkerRequest};

/// A session that can log in.
#[derive(Debug)]
pub(crate) struct TokenSession {
    /// The session on the selected slot.
    pub slot: SlotSession,
    pub(super) login: Login,
}

impl TokenSession {
    /// Finds the module, and opens a session on the token that the configuration selects.
    ///
    /// # Errors
    /// When no module or token, or more than one, matches, or the session cannot be opened.
    pub(crate) fn open(config: &Config, login: Login) -> Result<Self> {
        let deadline = Deadline::after(config.sign.timeout);
        Ok(Self::new(find_module::open(config, &deadline)?.open_session(config, deadline)?, login))
    }

    /// Combines a session with the source of its PIN.
    #[must_use]
    pub(crate) fn new(slot: SlotSession, login: Login) -> Self {
        Self { slot, login }
    }

    /// Logs the user in, if the token requires it.
    ///
    /// # Errors
    /// When the flags, the fuse or the PIN's source forbid an attempt, or the token refuses the PIN.
    pub(crate) fn log_in(&mut self, config: &Config) -> Result<()> {
        self.login.login(&mut self.slot, config)
    }

    /// Opens another session and logs in with the PIN that the token accepted.
    pub(super) fn start_over(&mut self, config: &Config) -> Result<()> {
        self.slot.open_session_again()?;
        self.login.again(&mut self.slot, config)
    }

    /// Sends a request that needs a separate login, and waits until this login has ended.
    pub(super) fn log_in_for(
        &mut self,
        request: impl FnOnce(LoginMethod) -> WorkerRequest,
        config: &Config,
    ) -> Result<(), SignError> {
        self.login.for_context(&mut self.slot, config).map_err(SignError::Other)?;
        self.login.authenticate(&mut self.slot, request, "login for the signature refused")
    }

    /// Ends the worker, with a logout if the error allows it, and then releases the token's lock.
    pub(crate) fn end(self, error: Option<&Error>) {
        self.slot.end(error);
        drop(self.login);
    }
}
