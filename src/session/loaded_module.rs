//! One module in a worker: its check, its start in a sandbox, and the reasons why it cannot be loaded.
//!
//! Runs in the parent.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use super::{complete_hints, module_hints, token_store};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::{Confinement, Library, NoLandlock, Slot};
use crate::fault::Fault;
use crate::log::warn_once;
use crate::modules::{self, LoadFailure};
use crate::os::landlock_support;
use crate::sandbox_profile::gaps::judge;
use crate::sandbox_profile::paths::socket_families;
use crate::sandbox_profile::{EnforcedSandbox, Profile};
use crate::text::printable;
use crate::worker_handle::{PrestartedWorker, WorkerEnvironment, WorkerError, WorkerHandle, withheld};
use crate::worker_protocol::step::Step;
use crate::worker_protocol::{SandboxReport, WorkerReply};

/// A module in a worker.
#[derive(Debug)]
pub(crate) struct LoadedModule {
    pub handle: WorkerHandle,
    /// The module's canonical path.
    pub path: PathBuf,
    /// The module's information about itself.
    pub library: Library,
    /// Its slots with tokens.
    pub slots: Vec<Slot>,
    /// The sandbox of the worker.
    pub confinement: Option<Confinement>,
}

/// Loads one module in a worker.
///
/// # Errors
/// When it cannot be loaded or initialised, or its slots cannot be listed.
pub(super) fn open_module(
    prestarted: Option<PrestartedWorker>,
    config: &Config,
    path: PathBuf,
    deadline: &Deadline,
) -> Result<LoadedModule> {
    let handle = start(prestarted, config, &path, deadline)?;
    load_completely(handle, config, &path, deadline)
}

/// Starts loading a module in a worker, in its sandbox.
pub(super) fn start(
    prestarted: Option<PrestartedWorker>,
    config: &Config,
    path: &Path,
    deadline: &Deadline,
) -> Result<WorkerHandle> {
    check_module(config, path)?;
    let environment =
        WorkerEnvironment { pin_variables: config.pin_variables.clone(), module_debug: config.module_debug };
    Ok(WorkerHandle::spawn(&environment, prestarted, (path, config.sandbox_profile(path)), deadline)?)
}

/// Loads the module again, each time in a new worker, while it misses existing tokens. With a missing token, an index
/// would select another token, and a single token would look like the only one.
pub(super) fn load_completely(
    handle: WorkerHandle,
    config: &Config,
    path: &Path,
    deadline: &Deadline,
) -> Result<LoadedModule> {
    const READINGS: usize = 6;
    let mut loaded = load(handle, config, path.to_owned(), deadline)?;
    for _ in 1..READINGS {
        let hidden = token_store::passed_over(path, &loaded.slots);
        if hidden == 0 {
            return Ok(loaded);
        }
        tracing::debug!("the module does not show {hidden} of its tokens; loading it again");
        loaded.handle.close();
        loaded = load(start(None, config, path, deadline)?, config, path.to_owned(), deadline)?;
    }
    let hidden = token_store::passed_over(path, &loaded.slots);
    if hidden > 0 {
        warn_once(&format!(
            "the module does not show {hidden} of the tokens in its directory; their files may be damaged"
        ));
    }
    Ok(loaded)
}

/// Adds the variables that the module does not get.
fn name_withheld(error: Error, config: &Config) -> Error {
    let withheld = withheld();
    if withheld.is_empty() || config.module_debug {
        return error;
    }
    error.hint(format!("the module does not get {}; --module-debug passes it on", withheld.join(", ")))
}

/// Waits until a worker has confined itself and loaded its module.
fn load(mut handle: WorkerHandle, config: &Config, module: PathBuf, deadline: &Deadline) -> Result<LoadedModule> {
    let answered = answers(&mut handle, config, &module, deadline);
    let (report, library, slots) =
        answered.map_err(|error| name_withheld(not_loaded(error, handle.last_lines(), config, &module), config))?;
    let profile = report.as_ref().and_then(|report| Profile::named(&report.profile));
    let confinement = report.zip(profile).map(|(report, profile)| {
        let SandboxReport { landlock_abi, system_calls, .. } = report;
        // The worker inherited the filters of this process, so the kernel answers both alike.
        let why_not = || NoLandlock::from_error(landlock_support::refusal(), landlock_support::calls_are_filtered());
        judge(profile, &socket_families(profile), EnforcedSandbox { landlock_abi, system_calls }, why_not)
    });
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
        handle.on_long_wait(|| tracing::info!("the token has not answered yet; it may wait for a touch"));
    }
    Ok(LoadedModule { handle, path: module, library, slots, confinement })
}

fn answers(
    handle: &mut WorkerHandle,
    config: &Config,
    module: &Path,
    deadline: &Deadline,
) -> Result<(Option<SandboxReport>, Library, Vec<Slot>), WorkerError> {
    let report = handle.sandbox(config.sandbox_profile(module), deadline)?;
    match handle.wait_reply(deadline)? {
        WorkerReply::Opened { library, slots } => Ok((report, library, slots)),
        _ => Err(handle.protocol_error(Step::LoadModule)),
    }
}

/// Refuses a module that others can change, or warns about it, as configured.
pub(crate) fn check_module(config: &Config, path: &Path) -> Result<()> {
    match modules::writable_by_others(path) {
        Some(how) if config.refuse_open_module => {
            let message = format!("the module {} is refused: {how}", path.display());
            Err(Error::new(Kind::Policy, message)
                .hint("a service loads a module only if nobody except root and its own user can change it"))
        }
        Some(how) => {
            warn_once(&format!("the module {} is not safe: {how}", path.display()));
            Ok(())
        }
        None => Ok(()),
    }
}

/// Names the module, and the reason why its file could not be loaded.
fn not_loaded(error: WorkerError, last_words: Vec<String>, config: &Config, path: &Path) -> Error {
    let failure = match &error {
        WorkerError::Fault(Fault::Load(message)) => LoadFailure::of(path, Some(message)),
        // The loader crashes on a truncated file.
        WorkerError::Died { .. } => LoadFailure::of(path, lookup_error(&last_words)),
        _ => None,
    };
    let Some(failure) = failure else {
        let error = Error::from(error).context(format_args!("cannot use the module {}", path.display()));
        let error = module_hints::of_a_start(error, last_words, config, path);
        return module_hints::of_the_sandbox(error, config, path);
    };
    let may_be_the_sandbox = failure.may_be_the_sandbox();
    let error = Error::from(failure).context(format_args!("cannot load the module {}", path.display()));
    let error = complete_hints::completed(error, path, None);
    if may_be_the_sandbox { module_hints::of_the_sandbox(error, config, path) } else { error }
}

/// The loader's message before it ends a process because of a missing function.
fn lookup_error(last_words: &[String]) -> Option<&str> {
    last_words.iter().find_map(|line| line.split_once("symbol lookup error: ").map(|(_, message)| message))
}
