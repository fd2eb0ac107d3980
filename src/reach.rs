//! The way to a token: a module found, a worker started, a slot chosen, a user logged in, an identity chosen.
//!
//! The order matters: whatever can fail without a PIN fails before one is asked for, and whatever can be known of the
//! PIN's state is known before one is sent.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::certificate::Certificate;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Explain as _, Kind, Result};
use crate::facts::{Library, Objects, Session, Slot};
use crate::identity::{self, Identity};
use crate::modules;
use crate::pin::Source;
use crate::printable::printable;
use crate::selector::{self, SelectError};
use crate::worker::wire::{Reply, Request};
use crate::worker::{Handle, Launch};

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
    if let Some(module) = &config.module {
        let path = modules::resolve(module)?;
        return open_module(config, path, deadline);
    }
    let found = open_all(config, modules::search()?, deadline);
    let mut failed = Vec::new();
    let mut holding = Vec::new();
    for (path, result) in found {
        match result {
            Ok(opened) if selector::indexed(&opened.slots).next().is_some() => holding.push(opened),
            Ok(opened) => {
                failed.push(format!("{} holds no initialised token", modules::selector(&opened.module)));
                opened.handle.close();
            }
            Err(error) => failed.push(format!("{}: {}", modules::selector(&path), error.message)),
        }
    }
    match holding.len() {
        1 => Ok(holding.remove(0)),
        0 => Err(Error {
            kind: Kind::NotFound,
            message: "no installed module holds an initialised token".into(),
            hints: failed.into_iter().chain(SelectError::NoToken { uninitialised: 0 }.hints()).collect(),
        }),
        count => {
            let message = format!("{count} installed modules hold an initialised token");
            let choose = |opened: &Opened| {
                let labels: Vec<String> = opened
                    .slots
                    .iter()
                    .filter_map(|slot| slot.token.as_ref())
                    .map(|token| format!("'{}'", printable(&token.label)))
                    .collect();
                format!("choose with --module {}   (token {})", modules::selector(&opened.module), labels.join(", "))
            };
            let hints = holding.iter().map(choose).collect();
            holding.into_iter().for_each(|opened| opened.handle.close());
            Err(Error { kind: Kind::Ambiguous, message, hints })
        }
    }
}

/// Loads each module in a worker of its own, all at once, each with its result.
pub fn open_all(config: &Config, paths: Vec<PathBuf>, deadline: &Deadline) -> Vec<(PathBuf, Result<Opened>)> {
    let mut started: Vec<(PathBuf, Result<Handle>)> = Vec::new();
    for path in paths {
        let handle = start(config, &path, deadline).and_then(|mut handle| {
            handle.post(&Request::Open { module: path.clone() })?;
            Ok(handle)
        });
        started.push((path, handle));
    }
    let finish = |(path, handle): (PathBuf, Result<Handle>)| {
        let opened = handle.and_then(|mut handle| {
            let reply = handle.answer("loading the module", deadline)?;
            loaded(handle, path.clone(), reply)
        });
        (path, opened)
    };
    started.into_iter().map(finish).collect()
}

/// Loads one module in a worker.
///
/// # Errors
/// When it cannot be loaded or initialised, or its slots cannot be listed.
pub fn open_module(config: &Config, path: PathBuf, deadline: &Deadline) -> Result<Opened> {
    let mut handle = start(config, &path, deadline)?;
    let reply = handle.call(&Request::Open { module: path.clone() }, None, deadline);
    let reply = reply.map_err(|error| Error::from(error).context(path.display()))?;
    loaded(handle, path, reply)
}

fn start(config: &Config, path: &Path, deadline: &Deadline) -> Result<Handle> {
    if let Some(how) = modules::writable_by_others(path) {
        tracing::warn!("the module {} is not safe: {how}", path.display());
    }
    let pin_variable = match &config.pin {
        Some(Source::Env(name)) => Some(name.into()),
        _ => None,
    };
    let launch = Launch { pin_variable, module_debug: config.module_debug };
    Ok(Handle::spawn(&launch, deadline)?)
}

fn loaded(mut handle: Handle, module: PathBuf, reply: Reply) -> Result<Opened> {
    let Reply::Opened { library, slots } = reply else {
        return Err(handle.out_of_turn("loading the module").into());
    };
    let digest = || modules::sha256(&module).unwrap_or_else(|| "not readable".into());
    if tracing::enabled!(tracing::Level::DEBUG) {
        tracing::debug!("module {} (SHA-256 {})", module.display(), digest());
        let (maker, version) = (printable(&library.manufacturer), printable(&library.version));
        tracing::debug!("library {} by {maker}, version {version}", printable(&library.description));
    }
    if std::io::stderr().is_terminal() {
        handle.when_waiting(|| tracing::info!("the token waits, perhaps for a touch"));
    }
    Ok(Opened { handle, module, library, slots })
}

impl Opened {
    /// Opens a session on the slot that the configuration chooses.
    ///
    /// # Errors
    /// When none or several match, or the session cannot be opened.
    pub fn reach(mut self, config: &Config, deadline: Deadline) -> Result<Reached> {
        let slot = selector::select(&self.slots, &config.token)?.clone();
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
    /// The keys and certificates that the session sees.
    ///
    /// # Errors
    /// What the token answered.
    pub fn objects(&mut self) -> Result<Objects> {
        match self.opened.handle.call(&Request::Objects, None, &self.deadline)? {
            Reply::Objects(objects) => Ok(objects),
            _ => Err(self.opened.handle.out_of_turn("reading keys and certificates").into()),
        }
    }

    /// The identity that the configuration chooses, of what the session sees after the login.
    ///
    /// # Errors
    /// When none or several match.
    pub fn identity(&mut self, config: &Config) -> Result<Identity> {
        let file = config.certificate_file.as_deref().map(read_certificate).transpose()?;
        let objects = self.objects()?;
        identity::certificates(&objects).1.iter().for_each(|broken| tracing::warn!("{broken}"));
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
    let shown = path.display();
    let bytes =
        std::fs::read(path).map_err(|error| Error::new(Kind::Config, format!("cannot read {shown}: {error}")))?;
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
