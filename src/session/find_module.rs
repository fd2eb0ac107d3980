//! Finds the configured module, or the installed one with a token.
//!
//! Runs in the parent.

use std::path::PathBuf;

use super::loaded_module::{LoadedModule, load_completely, open_module, start};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Explain as _, Kind, Result};
use crate::facts::Slot;
use crate::modules;
use crate::selector::SelectError;
use crate::worker_handle::{PrestartedWorker, WorkerHandle};

/// Finds the module and loads it in a worker: the configured one, else the only installed module with an initialised token.
///
/// # Errors
/// When no module, or more than one, matches.
pub(crate) fn open(config: &Config, deadline: &Deadline) -> Result<LoadedModule> {
    open_with(None, config, deadline)
}

/// Like [`open`], with a prestarted worker.
pub(crate) fn open_with(
    prestarted: Option<PrestartedWorker>,
    config: &Config,
    deadline: &Deadline,
) -> Result<LoadedModule> {
    if let Some(module) = &config.module {
        let path = modules::resolve(module)?;
        return open_module(prestarted, config, path, deadline);
    }
    // A hanging module must not use up the time of the one with the token.
    let found = open_all(prestarted, config, modules::search()?, &Deadline::after(deadline.timeout() / 3));
    let (mut holding, mut unreadable, mut failed, mut broken) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (path, result) in found {
        match result {
            Ok(loaded) if loaded.slots.iter().any(holds_token) => holding.push(loaded),
            Ok(loaded) if loaded.slots.iter().any(|slot| slot.error.is_some()) => unreadable.push(loaded),
            Ok(loaded) => {
                let none = format!("{} holds no initialised token", modules::selector(&path));
                failed.push(Error::new(Kind::NotFound, none));
                loaded.handle.close();
            }
            Err(error) => {
                tracing::debug!("{}", error.message);
                failed.push(error);
                broken += 1;
            }
        }
    }
    if holding.is_empty() {
        holding = unreadable;
    } else {
        unreadable.into_iter().for_each(|loaded| loaded.handle.close());
    }
    match holding.len() {
        1 => Ok(holding.remove(0)),
        0 => Err(none_holds(failed, broken)),
        _ => Err(several_hold(holding)),
    }
}

fn holds_token(slot: &Slot) -> bool {
    slot.token.as_ref().is_some_and(|token| token.initialized)
}

/// A failed module may be the one with the token, so its failure decides whether a retry makes sense, and its first hint
/// follows its message. `broken` of them could not be asked.
fn none_holds(failed: Vec<Error>, broken: usize) -> Error {
    let message = match broken {
        0 => "no installed module holds an initialised token".into(),
        _ => format!("no initialised token was found, and {broken} of {} installed modules failed", failed.len()),
    };
    let kind = failed.iter().map(|error| error.kind).find(|kind| kind.retryable()).unwrap_or(Kind::NotFound);
    let reason = |error: Error| match error.hints.first() {
        Some(hint) => format!("{}: {hint}", error.message),
        None => error.message,
    };
    let hints = failed.into_iter().map(reason).chain(SelectError::NoToken { uninitialised: 0 }.hints());
    Error { kind, message, hints: hints.collect() }
}

fn several_hold(holding: Vec<LoadedModule>) -> Error {
    let choose = |loaded: &LoadedModule| {
        let tokens = loaded.slots.iter().filter(|slot| holds_token(slot)).filter_map(|slot| slot.token.as_ref());
        let labels: Vec<String> = tokens.map(|token| format!("'{}'", token.label)).collect();
        format!("choose with --module {}   (token {})", modules::selector(&loaded.path), labels.join(", "))
    };
    let message = format!("{} installed modules hold an initialised token", holding.len());
    let hints = holding.iter().map(choose).collect();
    holding.into_iter().for_each(|loaded| loaded.handle.close());
    Error { kind: Kind::Ambiguous, message, hints }
}

/// Loads each module in a separate worker, all at once, each with its result. The first one uses the prestarted worker.
pub(crate) fn open_all(
    mut prestarted: Option<PrestartedWorker>,
    config: &Config,
    paths: Vec<PathBuf>,
    deadline: &Deadline,
) -> Vec<(PathBuf, Result<LoadedModule>)> {
    let mut started: Vec<(PathBuf, Result<WorkerHandle>)> = Vec::new();
    for path in paths {
        let handle = start(prestarted.take(), config, &path, deadline);
        started.push((path, handle));
    }
    let finish = |(path, handle): (PathBuf, Result<WorkerHandle>)| {
        let loaded = handle.and_then(|handle| load_completely(handle, config, &path, deadline));
        (path, loaded)
    };
    started.into_iter().map(finish).collect()
}
