//! `list`: prints slots, tokens, keys and certificates, each with a URI for `--uri`.
//!
//! Runs in the parent.

use std::path::Path;

use clap::ArgMatches;
use serde_json::json;

use crate::cli;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::{Slot, TokenObjects};
use crate::modules;
use crate::output::{print_json, print_report};
use crate::selector;
use crate::session::{self, LoadedModule, Login, TokenSession};
use crate::worker_protocol::{WorkerReply, WorkerRequest};

mod print;

use print::{ModuleContent, SlotContent, module_json, module_text};

pub(super) fn run(matches: &ArgMatches, config: &Config) -> Result<()> {
    let deadline = Deadline::after(config.sign.timeout);
    // A selection of the file or of a variable hides no slot: a wrong one is corrected with the list of all slots.
    let selectors = ["token.slot", "token.slot_id", "token.label", "token.serial", "token.uri"];
    let is_filtered = selectors.iter().any(|path| cli::has_flag(matches, path));
    let shown = if cli::is_given(matches, "login") {
        vec![logged_in(config)?]
    } else {
        let paths = match &config.module {
            Some(module) => vec![modules::resolve(module)?],
            None => modules::search()?,
        };
        let chosen = config.module.is_some();
        let mut all = Vec::new();
        for (path, result) in session::open_all(None, config, paths, &deadline) {
            match result {
                // A separate time limit for each module.
                Ok(loaded) => {
                    all.push(read(loaded, config, is_filtered, &Deadline::after(config.sign.timeout)));
                }
                Err(error) if chosen => return Err(error),
                Err(error) => all.push(failed(&path, &error)),
            }
        }
        all
    };
    if is_filtered && shown.iter().all(|module| module.slots.is_empty() && module.error.is_none()) {
        return Err(Error::new(Kind::NotFound, "no slot matches the selection").hint("`cba-agent list` shows all"));
    }
    if cli::is_given(matches, "json") {
        return print_json(&json!({ "modules": shown.iter().map(module_json).collect::<Vec<_>>() }).to_string());
    }
    // Text of a module or token must not break its line.
    let text = shown.iter().map(module_text).collect::<Vec<_>>().join("\n\n");
    print_report(&text)
}

fn failed(path: &Path, error: &Error) -> ModuleContent {
    let (module, path) = (modules::selector(path), path.display().to_string());
    ModuleContent {
        module,
        path,
        error: Some(error.message.clone()),
        hint: error.hints.first().cloned(),
        slots: Vec::new(),
    }
}

/// Reads all slots, or the selected ones, each in a separate session.
fn read(mut loaded: LoadedModule, config: &Config, is_filtered: bool, deadline: &Deadline) -> ModuleContent {
    let slots = loaded.slots.clone();
    let indexed: Vec<u64> = selector::indexed(&slots).map(|slot| slot.id).collect();
    let mut shown = Vec::new();
    let selected: Vec<&Slot> = slots.iter().filter(|slot| !is_filtered || is_selected(slot, &loaded, config)).collect();
    for slot in selected {
        let initialised = slot.token.as_ref().is_some_and(|token| token.initialized);
        let (mechanisms, objects) = match &slot.error {
            Some(error) if !initialised => (Vec::new(), Err(error.clone())),
            _ if !initialised => (Vec::new(), Ok(TokenObjects::default())),
            _ => read_slot(&mut loaded, slot.id, deadline),
        };
        let index = indexed.iter().position(|id| *id == slot.id);
        shown.push(SlotContent {
            index,
            slot: slot.clone(),
            uri: selector::token_uri(slot, &slots),
            mechanisms,
            objects,
        });
    }
    let (module, path) = (modules::selector(&loaded.path), loaded.path.display().to_string());
    loaded.handle.close();
    ModuleContent { module, path, error: None, hint: None, slots: shown }
}

fn is_selected(slot: &Slot, loaded: &LoadedModule, config: &Config) -> bool {
    let by_id = config.token.iter().any(|selector| selector.slot_id == Some(slot.id));
    slot.error.is_some()
        || by_id && !slot.token.as_ref().is_some_and(|token| token.initialized)
        || selector::select(&loaded.library, std::slice::from_ref(slot), &without_index(config)).is_ok()
            && index_fits(slot, &loaded.slots, config)
}

fn without_index(config: &Config) -> Vec<selector::TokenSelector> {
    config.token.iter().map(|selector| selector::TokenSelector { slot: None, ..selector.clone() }).collect()
}

fn index_fits(slot: &Slot, slots: &[Slot], config: &Config) -> bool {
    let at = selector::indexed(slots).position(|other| other.id == slot.id);
    config.token.iter().all(|selector| selector.slot.is_none() || selector.slot == at)
}

fn read_slot(
    loaded: &mut LoadedModule,
    slot_id: u64,
    deadline: &Deadline,
) -> (Vec<&'static str>, Result<TokenObjects, String>) {
    let mut ask =
        |request: &WorkerRequest| loaded.handle.call(request, None, deadline).map_err(|error| error.to_string());
    let mechanisms = match ask(&WorkerRequest::Session { slot_id }) {
        Ok(WorkerReply::Session(mechanisms)) => mechanisms.usable.iter().map(|mechanism| mechanism.name()).collect(),
        Ok(_) => return (Vec::new(), Err("the worker sent an unexpected reply".into())),
        Err(error) => return (Vec::new(), Err(error)),
    };
    let objects = ask(&WorkerRequest::Objects).and_then(|reply| match reply {
        WorkerReply::Objects(objects) => Ok(objects),
        _ => Err("the worker sent an unexpected reply".into()),
    });
    (mechanisms, objects)
}

fn logged_in(config: &Config) -> Result<ModuleContent> {
    let mut session = TokenSession::open(config, Login::prepare(config))?;
    let objects = session.log_in(config).and_then(|()| session.slot.objects());
    let slot_session = &session.slot;
    let loaded = &slot_session.module;
    let (module, path) = (modules::selector(&loaded.path), loaded.path.display().to_string());
    let index = selector::indexed(&loaded.slots).position(|slot| slot.id == slot_session.slot.id);
    let uri = selector::token_uri(&slot_session.slot, &loaded.slots);
    let mechanisms = slot_session.mechanisms.usable.iter().map(|mechanism| mechanism.name()).collect();
    let slot = slot_session.slot.clone();
    session.end(objects.as_ref().err());
    let slots = vec![SlotContent { index, slot, uri, mechanisms, objects: Ok(objects?) }];
    Ok(ModuleContent { module, path, error: None, hint: None, slots })
}
