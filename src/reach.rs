//! The way to a token: a module found, a worker started, a slot chosen, a user logged in, an identity chosen.
//!
//! The order matters: whatever can fail without a PIN fails before one is asked for, and whatever can be known of the
//! PIN's state is known before one is sent.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::certificate::Certificate;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Explain as _, Kind, Result};
use crate::facts::{Confinement, Library, Objects, Session, Slot, Token};
use crate::identity::{self, Identity};
use crate::modules;
use crate::printable::printable;
use crate::sandbox::Mode;
use crate::selector::{self, SelectError};
use crate::worker::handle::LOADING;
use crate::worker::wire::{Reply, Request};
use crate::worker::{Handle, Launch, Load, Spare, handle};

pub mod evidence;
mod login;

pub use login::{Failure, Login};

/// A module in a worker.
#[derive(Debug)]
pub struct Opened {
    /// The worker.
    pub handle: Handle,
    /// The module's canonical path.
    pub module: PathBuf,
    /// What the module says of itself.
    pub library: Library,
    /// Its slots that hold tokens.
    pub slots: Vec<Slot>,
    /// The sandbox that it is in.
    pub confinement: Option<Confinement>,
}

/// A session on the chosen slot.
#[derive(Debug)]
pub struct Reached {
    /// The module.
    pub opened: Opened,
    /// The slot.
    pub slot: Slot,
    /// What the session offers.
    pub session: Session,
    /// What is left of the time.
    pub deadline: Deadline,
}

/// Seconds of Unix time by this host's clock.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Finds the module and loads it in a worker: the configured one, else the one installed module that holds an
/// initialised token.
///
/// # Errors
/// When no module, or more than one, will do.
pub fn open(config: &Config, deadline: &Deadline) -> Result<Opened> {
    open_with(None, config, deadline)
}

/// The same with a worker that was started before.
///
/// # Errors
/// As [`open`].
pub fn open_with(spare: Option<Spare>, config: &Config, deadline: &Deadline) -> Result<Opened> {
    if let Some(module) = &config.module {
        let path = modules::resolve(module)?;
        return open_module(spare, config, path, deadline);
    }
    // A module that hangs must not take the time of the one that holds the token.
    let found = open_all(spare, config, modules::search()?, &Deadline::after(deadline.whole() / 3));
    let (mut holding, mut unreadable, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (path, result) in found {
        match result {
            Ok(opened) if opened.slots.iter().any(holds_token) => holding.push(opened),
            Ok(opened) if opened.slots.iter().any(|slot| slot.error.is_some()) => unreadable.push(opened),
            Ok(opened) => {
                let none = format!("{} holds no initialised token", modules::selector(&path));
                failed.push(Error::new(Kind::NotFound, none));
                opened.handle.close();
            }
            Err(error) => {
                tracing::debug!("{}", error.message);
                failed.push(error);
            }
        }
    }
    if holding.is_empty() {
        holding = unreadable;
    } else {
        unreadable.into_iter().for_each(|opened| opened.handle.close());
    }
    match holding.len() {
        1 => Ok(holding.remove(0)),
        0 => Err(none_holds(failed)),
        _ => Err(several_hold(holding)),
    }
}

fn holds_token(slot: &Slot) -> bool {
    slot.token.as_ref().is_some_and(|token| token.initialized)
}

/// A module that failed may be the one with the token, so its failure says whether another try makes sense.
fn none_holds(failed: Vec<Error>) -> Error {
    let kind = failed.iter().map(|error| error.kind).find(|kind| kind.retryable()).unwrap_or(Kind::NotFound);
    let hints = failed.into_iter().map(|error| error.message).chain(SelectError::NoToken { uninitialised: 0 }.hints());
    Error { kind, message: "no installed module holds an initialised token".into(), hints: hints.collect() }
}

fn several_hold(holding: Vec<Opened>) -> Error {
    let choose = |opened: &Opened| {
        let tokens = opened.slots.iter().filter(|slot| holds_token(slot)).filter_map(|slot| slot.token.as_ref());
        let labels: Vec<String> = tokens.map(|token| format!("'{}'", token.label)).collect();
        format!("choose with --module {}   (token {})", modules::selector(&opened.module), labels.join(", "))
    };
    let message = format!("{} installed modules hold an initialised token", holding.len());
    let hints = holding.iter().map(choose).collect();
    holding.into_iter().for_each(|opened| opened.handle.close());
    Error { kind: Kind::Ambiguous, message, hints }
}

/// Loads each module in a worker of its own, all at once, each with its result; the first in one that was started before.
pub fn open_all(
    mut spare: Option<Spare>,
    config: &Config,
    paths: Vec<PathBuf>,
    deadline: &Deadline,
) -> Vec<(PathBuf, Result<Opened>)> {
    let mut started: Vec<(PathBuf, Result<Handle>)> = Vec::new();
    for path in paths {
        let handle = start(spare.take(), config, &path, deadline);
        started.push((path, handle));
    }
    let finish = |(path, handle): (PathBuf, Result<Handle>)| {
        let opened = handle.and_then(|mut handle| {
            let reply = handle.answer(LOADING, deadline)?;
            loaded(handle, path.clone(), reply)
        });
        let named = opened.map_err(|error: Error| hint_at_the_sandbox(error.context(path.display()), config, &path));
        (path, named)
    };
    started.into_iter().map(finish).collect()
}

/// Loads one module in a worker.
///
/// # Errors
/// When it cannot be loaded or initialised, or its slots cannot be listed.
fn open_module(spare: Option<Spare>, config: &Config, path: PathBuf, deadline: &Deadline) -> Result<Opened> {
    let mut handle = start(spare, config, &path, deadline)?;
    let reply = handle.answer(LOADING, deadline);
    let reply = reply.map_err(|error| {
        let error = hint_at_the_sandbox(Error::from(error).context(path.display()), config, &path);
        let withheld = handle::withheld();
        if withheld.is_empty() || config.module_debug {
            return error;
        }
        error.hint(format!("{} was kept from the module; --module-debug hands it on", withheld.join(", ")))
    })?;
    loaded(handle, path, reply)
}

/// Refuses a module that others can change, or warns of it, as the configuration says.
///
/// # Errors
/// When it is refused.
pub fn check_module(config: &Config, path: &Path) -> Result<()> {
    match modules::writable_by_others(path) {
        Some(how) if config.refuse_open_module => {
            let message = format!("the module {} is refused: {how}", path.display());
            Err(Error::new(Kind::Policy, message)
                .hint("a service loads a module only where root or its own user alone can change it"))
        }
        Some(how) => {
            tracing::warn!("the module {} is not safe: {how}", path.display());
            Ok(())
        }
        None => Ok(()),
    }
}

/// A module that needs more than its profile allows fails in its own words.
fn hint_at_the_sandbox(error: Error, config: &Config, path: &Path) -> Error {
    match profile(config, path) {
        Some(name) => {
            error.hint(format!("it runs in the sandbox profile {name}; --sandbox off tells whether that is why"))
        }
        None => error,
    }
}

/// The sandbox profile of a module, by the configuration and the table of modules.
#[must_use]
pub fn profile(config: &Config, path: &Path) -> Option<&'static str> {
    modules::known_by(path).filter(|_| config.sandbox == Mode::Module).map(|known| known.name)
}

/// Has a worker load a module, in its sandbox.
fn start(spare: Option<Spare>, config: &Config, path: &Path, deadline: &Deadline) -> Result<Handle> {
    check_module(config, path)?;
    let launch = Launch { pin_variables: config.pin_variables.clone(), module_debug: config.module_debug };
    let load = Load { module: path.to_owned(), profile: profile(config, path).map(str::to_owned) };
    Ok(Handle::spawn(&launch, spare, load, deadline)?)
}

fn loaded(mut handle: Handle, module: PathBuf, reply: Reply) -> Result<Opened> {
    let Reply::Opened { library, slots, confinement } = reply else {
        return Err(handle.out_of_turn(LOADING).into());
    };
    let digest = || modules::sha256(&module).unwrap_or_else(|| "not readable".into());
    if tracing::enabled!(tracing::Level::DEBUG) {
        tracing::debug!("module {} (SHA-256 {})", module.display(), digest());
        let (maker, version) = (printable(&library.manufacturer), printable(&library.version));
        let (what, standard) = (printable(&library.description), printable(&library.cryptoki));
        tracing::debug!("library {what} by {maker}, version {version}, PKCS#11 {standard}");
        match &confinement {
            Some(confinement) => tracing::debug!("sandbox: {confinement}"),
            None => tracing::debug!("sandbox: none"),
        }
    }
    if std::io::stderr().is_terminal() {
        handle.when_waiting(|| tracing::info!("the token waits, perhaps for a touch"));
    }
    Ok(Opened { handle, module, library, slots, confinement })
}

impl Opened {
    /// Opens a session on the slot that the configuration chooses.
    ///
    /// # Errors
    /// When none or several match, or the session cannot be opened.
    pub fn reach(mut self, config: &Config, deadline: Deadline) -> Result<Reached> {
        let none_is_here = self.slots.is_empty();
        let slot = selector::select(&self.slots, &config.token).map_err(|error| match Error::from(error) {
            error if none_is_here => hint_at_the_sandbox(error, config, &self.module),
            error => error,
        })?;
        let slot = slot.clone();
        for other in self.slots.iter().filter(|other| other.id != slot.id) {
            if let Some(error) = &other.error {
                tracing::warn!("slot ID {} cannot be read: {}", other.id, printable(error));
            }
        }
        let only_index = config.token.iter().all(|selector| selector.is_index_alone());
        if only_index && !config.token.is_empty() && selector::indexed(&self.slots).count() > 1 {
            let uri = selector::token_uri(&slot, &self.slots);
            tracing::warn!(
                "several tokens are here, and --slot counts them in an order that can change; this is {uri}"
            );
        }
        let reply = self.handle.call(&Request::Session { slot_id: slot.id }, None, &deadline);
        let reply = reply
            .map_err(|error| Error::from(error).context(format_args!("cannot open a session on {}", name(&slot))))?;
        let Reply::Session(session) = reply else {
            return Err(self.handle.out_of_turn("opening a session").into());
        };
        tracing::debug!("{} in slot ID {}", name(&slot), slot.id);
        Ok(Reached { opened: self, slot, session, deadline })
    }
}

impl Reached {
    /// Reads the slot once more, for the state of its PIN as it is now; `may_appear` where a token that said nothing of
    /// itself may say it now.
    ///
    /// # Errors
    /// When the worker gives no answer, or another token is in the slot.
    pub fn read_slot_again(&mut self, may_appear: bool) -> Result<()> {
        let Reply::Slot(slot) = self.ask(&Request::Slot)? else {
            return Err(self.opened.handle.out_of_turn("reading the token's state").into());
        };
        self.take_slot(slot, may_appear)
    }

    fn take_slot(&mut self, slot: Slot, may_appear: bool) -> Result<()> {
        let same = |a: &Token, b: &Token| (&a.serial, &a.label, &a.model) == (&b.serial, &b.label, &b.model);
        let is_same = match (&self.slot.token, &slot.token) {
            (Some(before), Some(now)) => same(before, now),
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

    /// Asks the token whether it is still there and still the same, with session and login.
    ///
    /// # Errors
    /// What is no longer so.
    pub fn probe(&mut self) -> Result<()> {
        let Reply::Slot(slot) = self.ask(&Request::Probe)? else {
            return Err(self.opened.handle.out_of_turn("reading the token's state").into());
        };
        self.take_slot(slot, false)
    }

    /// Closes the session and opens another on the same slot.
    ///
    /// # Errors
    /// What the module answered.
    pub fn open_session_again(&mut self) -> Result<()> {
        let reply = self.opened.handle.call(&Request::Session { slot_id: self.slot.id }, None, &self.deadline);
        let context = || format!("cannot open a session on {}", self.name());
        match reply.map_err(|error| Error::from(error).context(context()))? {
            Reply::Session(_) => Ok(()),
            _ => Err(self.opened.handle.out_of_turn("opening a session").into()),
        }
    }

    /// The keys and certificates that the session sees.
    ///
    /// # Errors
    /// What the token answered.
    pub fn objects(&mut self) -> Result<Objects> {
        match self.ask(&Request::Objects)? {
            Reply::Objects(objects) => Ok(objects),
            _ => Err(self.opened.handle.out_of_turn("reading keys and certificates").into()),
        }
    }

    /// The identity that the configuration chooses, of what the session sees after the login.
    ///
    /// # Errors
    /// When none or several match.
    pub fn identity(&mut self, config: &Config, file: Option<Certificate>) -> Result<Identity> {
        let objects = self.objects()?;
        if tracing::enabled!(tracing::Level::DEBUG) {
            identity::certificates(&objects).1.iter().for_each(|other| tracing::debug!("{other}"));
        }
        let identity = identity::choose(&objects, &config.identity, file, now())?;
        if let Some(notice) = &identity.notice {
            tracing::info!("{notice}");
        }
        Ok(identity)
    }

    /// Ends the worker: in good order, so that a card is logged out, unless the PIN was refused (some modules would send
    /// a cached one again) or the module hangs; then it is killed.
    pub fn end(self, error: Option<&Error>) {
        match error.map(|error| error.kind) {
            Some(kind) if kind.exit_code() == 4 || kind == Kind::TokenTimeout => drop(self.opened.handle),
            _ => self.opened.handle.close(),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply> {
        let reply = self.opened.handle.call(request, None, &self.deadline);
        reply.map_err(|error| Error::from(error).context(format_args!("cannot read {}", self.name())))
    }

    /// How errors and prompts name the token.
    #[must_use]
    pub fn name(&self) -> String {
        name(&self.slot)
    }
}

fn name(slot: &Slot) -> String {
    match &slot.token {
        Some(token) => format!("token '{}' (serial {})", printable(&token.label), printable(&token.serial)),
        None => format!("the token in slot ID {}", slot.id),
    }
}

/// Reads a certificate file, PEM or DER.
///
/// # Errors
/// When it cannot be read or holds no certificate.
pub fn read_certificate(path: &Path) -> Result<Certificate> {
    const LIMIT: u64 = 1 << 20;
    let shown = path.display();
    let failed = |error: std::io::Error| Error::new(Kind::Config, format!("cannot read {shown}: {error}"));
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("not a regular file")));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(LIMIT).read_to_end(&mut bytes)).map_err(failed)?;
    let parsed = if bytes.starts_with(&[0x30]) { Certificate::from_der(&bytes) } else { Certificate::from_pem(&bytes) };
    parsed.map_err(|error| Error::new(Kind::Config, format!("{shown}: {error}")))
}

/// Notices about a certificate that ends soon.
pub fn warn_before_end(certificate: &Certificate, warn_before: Duration, now: u64) {
    let left = certificate.not_after.saturating_sub(now);
    if certificate.is_valid_at(now) && left < warn_before.as_secs() {
        let end = crate::certificate::utc(certificate.not_after);
        tracing::warn!("the certificate ends in {} ({end}); register its successor in time", crate::config::days(left));
    }
}
