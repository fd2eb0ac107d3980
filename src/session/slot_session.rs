//! A session on one slot: its token, the state of its PIN, its objects.
//!
//! Runs in the parent.

use super::loaded_module::LoadedModule;
use super::{complete_hints, module_hints, report_notices, token_store};
use crate::certificate::Certificate;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Class, Error, Kind, Result};
use crate::facts::{Mechanisms, Slot, TokenId, TokenObjects};
use crate::identity::{self, Identity};
use crate::log::warn_once;
use crate::os::clock::now;
use crate::selector;
use crate::text::printable;
use crate::worker_handle::{WorkerError, WorkerHandle};
use crate::worker_protocol::step::Step;
use crate::worker_protocol::{WorkerReply, WorkerRequest};

/// A session on the selected slot.
#[derive(Debug)]
pub(crate) struct SlotSession {
    pub module: LoadedModule,
    pub slot: Slot,
    pub mechanisms: Mechanisms,
    /// The time limit.
    pub deadline: Deadline,
}

impl LoadedModule {
    /// Opens a session on the slot that the configuration selects.
    ///
    /// # Errors
    /// When none or several match, or the session cannot be opened.
    pub(crate) fn open_session(mut self, config: &Config, deadline: Deadline) -> Result<SlotSession> {
        let none_is_here = self.slots.is_empty();
        let slot = selector::select(&self.library, &self.slots, &config.token).map_err(|error| {
            let error = token_store::hint_at_it(error, &self.path);
            let error = module_hints::of_a_hidden_token(error, &self.library, &self.path);
            let error = complete_hints::completed(error, &self.path, self.slots.first().map(|slot| slot.id));
            let may_be_the_sandbox = none_is_here || module_hints::misses_some(&error, &self.path);
            if may_be_the_sandbox { module_hints::of_the_sandbox(error, config, &self.path) } else { error }
        })?;
        let slot = slot.clone();
        for other in self.slots.iter().filter(|other| other.id != slot.id) {
            if let Some(error) = &other.error {
                warn_once(&format!("slot ID {} cannot be read: {}", other.id, printable(error)));
            }
        }
        let only_index = config.token.iter().all(|selector| selector.is_index_alone());
        if only_index && !config.token.is_empty() && selector::indexed(&self.slots).count() > 1 {
            let uri = selector::token_uri(&slot, &self.slots);
            warn_once(&format!(
                "several tokens are present, and --slot counts them in an order that can change; the selected one is {uri}"
            ));
        }
        let mechanisms = self.open_slot(&slot, &deadline)?;
        tracing::debug!("{} in slot ID {}", name(&slot), slot.id);
        Ok(SlotSession { module: self, slot, mechanisms, deadline })
    }

    fn open_slot(&mut self, slot: &Slot, deadline: &Deadline) -> Result<Mechanisms> {
        let reply = self.handle.call(&WorkerRequest::Session { slot_id: slot.id }, None, deadline);
        let context = || format!("cannot open a session on {}", name(slot));
        match reply.map_err(|error| Error::from(error).context(context()))? {
            WorkerReply::Session(mechanisms) => Ok(mechanisms),
            _ => Err(self.handle.protocol_error(Step::OpenSession).into()),
        }
    }
}

impl SlotSession {
    /// Reads the slot again to get the current state of its PIN. With `may_appear`, a token may show an identity that
    /// it did not show before.
    ///
    /// # Errors
    /// When the worker does not answer, or another token is in the slot.
    pub(crate) fn read_slot_again(&mut self, may_appear: bool) -> Result<()> {
        let WorkerReply::Slot(slot) = self.ask(&WorkerRequest::Slot)? else {
            return Err(self.module.handle.protocol_error(Step::ReadToken).into());
        };
        self.take_slot(slot, may_appear)
    }

    fn take_slot(&mut self, slot: Slot, may_appear: bool) -> Result<()> {
        let is_same = match (&self.slot.token, &slot.token) {
            (Some(before), Some(now)) => TokenId::of_token(before) == TokenId::of_token(now),
            (None, None) => true,
            (None, Some(_)) => may_appear,
            (Some(_), None) => false,
        };
        if !is_same {
            return Err(Error::new(Kind::TokenRemoved, format!("{} is no longer in its slot", self.name()))
                .hint("run the command again; `cba-agent list` shows what is there"));
        }
        self.slot = slot;
        Ok(())
    }

    /// Waits for the reply to [`WorkerRequest::Probe`]: the token is present, unchanged and logged in.
    pub(crate) fn probed(&mut self) -> Result<()> {
        let WorkerReply::Slot(slot) = self.understood(|handle, deadline| handle.wait_reply(deadline))? else {
            return Err(self.module.handle.protocol_error(Step::ReadToken).into());
        };
        self.take_slot(slot, false)
    }

    /// Closes the session and opens another on the same slot.
    pub(crate) fn open_session_again(&mut self) -> Result<()> {
        self.module.open_slot(&self.slot, &self.deadline).map(drop)
    }

    /// The keys and certificates that the session sees.
    pub(crate) fn objects(&mut self) -> Result<TokenObjects> {
        // The login may have sent this request already.
        let reply = match self.module.handle.pending_step() {
            Some(Step::ReadObjects) => self.understood(|handle, deadline| handle.wait_reply(deadline)),
            _ => self.ask(&WorkerRequest::Objects),
        };
        match reply? {
            WorkerReply::Objects(objects) => Ok(objects),
            _ => Err(self.module.handle.protocol_error(Step::ReadObjects).into()),
        }
    }

    /// Adds this module and slot to the commands of other programs in an error.
    #[must_use]
    pub(crate) fn with_whole_commands(&self, error: Error) -> Error {
        complete_hints::completed(error, &self.module.path, Some(self.slot.id))
    }

    /// Adds this module and slot to the commands of other programs in a hint.
    #[must_use]
    pub(crate) fn whole_commands(&self, hint: &str) -> String {
        complete_hints::in_hint(hint, &self.module.path, Some(self.slot.id))
    }

    /// The identity that the configuration selects among the objects after the login.
    ///
    /// # Errors
    /// When none or several match.
    pub(crate) fn identity(&mut self, config: &Config, file: Option<Certificate>) -> Result<Identity> {
        let objects = self.objects()?;
        let identity = identity::choose(&objects, &config.identity, file, now()).map_err(|error| {
            let (certificates, _) = identity::certificates(&objects);
            let bits = certificates.iter().map(|stored| stored.certificate.bits()).max().unwrap_or_default();
            self.hint_at_the_key(self.with_whole_commands(error.into()), bits)
        })?;
        report_notices(&identity);
        Ok(identity)
    }

    /// Adds the reason why the module may not use a key of this size.
    pub(crate) fn hint_at_the_key(&self, error: Error, bits: usize) -> Error {
        module_hints::of_a_large_key(error, bits, &self.module.library, &self.module.path)
    }

    /// Ends the worker. Normally it logs out, so that a card is logged out too. If the PIN was refused (some modules
    /// would send a cached PIN again) or the module hangs, the worker is killed.
    pub(crate) fn end(self, error: Option<&Error>) {
        match error.map(|error| error.kind) {
            Some(kind) if kind.class() == Class::Pin || kind == Kind::TokenTimeout => drop(self.module.handle),
            _ => self.module.handle.close(),
        }
    }

    pub(super) fn ask(&mut self, request: &WorkerRequest) -> Result<WorkerReply> {
        self.understood(|handle, deadline| handle.call(request, None, deadline))
    }

    fn understood(
        &mut self,
        ask: impl FnOnce(&mut WorkerHandle, &Deadline) -> Result<WorkerReply, WorkerError>,
    ) -> Result<WorkerReply> {
        let reply = ask(&mut self.module.handle, &self.deadline);
        reply.map_err(|error| Error::from(error).context(format_args!("cannot read {}", self.name())))
    }

    #[must_use]
    pub(crate) fn token_id(&self) -> TokenId {
        TokenId::of(&self.slot, &self.module.path)
    }

    /// The name of the token in errors and prompts.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        name(&self.slot)
    }
}

fn name(slot: &Slot) -> String {
    match &slot.token {
        Some(token) => format!("token '{}' (serial {})", printable(&token.label), printable(&token.serial)),
        None => format!("the token in slot ID {}", slot.id),
    }
}
