//! `list`: prints slots, tokens, keys and certificates, each with a URI for `--uri`.
//!
//! Runs in the parent.

use std::path::Path;

use clap::ArgMatches;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::cli;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::{KeyClass, Slot, Token, TokenObjects, tells_apart};
use crate::identity::certificates;
use crate::modules;
use crate::output::{print_json, print_report};
use crate::selector::{self, ObjectType, Uri};
use crate::session::{self, LoadedModule, Login, TokenSession};
use crate::text::{hex, printable, printable_bytes};
use crate::worker_protocol::{WorkerReply, WorkerRequest};

struct ModuleContent {
    module: String,
    path: String,
    /// Why the module cannot be used, and what helps.
    error: Option<String>,
    hint: Option<String>,
    slots: Vec<SlotContent>,
}

struct SlotContent {
    /// The index that `--slot` takes.
    index: Option<usize>,
    slot: Slot,
    uri: Uri,
    mechanisms: Vec<&'static str>,
    objects: Result<TokenObjects, String>,
}

pub(super) fn run(matches: &ArgMatches, config: &Config) -> Result<()> {
    let deadline = Deadline::after(config.sign.timeout);
    // A selection of the file or of a variable hides no slot: a wrong one is corrected with the list of all slots.
    let selectors = ["token.slot", "token.slot_id", "token.label", "token.serial", "token.uri"];
    let is_filtered = selectors.iter().any(|path| cli::has_flag(matches, path));
    let shown = if cli::is_given(matches, "login") {
        vec![logged_in(config, deadline)?]
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

fn logged_in(config: &Config, deadline: Deadline) -> Result<ModuleContent> {
    let login = Login::prepare(config);
    let mut session = TokenSession::new(session::open(config, &deadline)?.open_session(config, deadline)?, login);
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

/// A line of the table of objects, and a member of the JSON.
struct ListedObject {
    kind: &'static str,
    label: String,
    id: String,
    details: Vec<String>,
    uri: Uri,
    json: Value,
}

fn objects(shown: &SlotContent, objects: &TokenObjects) -> Vec<ListedObject> {
    let mut all = Vec::new();
    let uri = |object_type, label: &[u8], id: &[u8]| Uri {
        object: (!label.is_empty()).then(|| label.to_vec()),
        id: (!id.is_empty()).then(|| id.to_vec()),
        object_type: Some(object_type),
        ..shown.uri.clone()
    };
    for key in &objects.keys {
        let (kind, object_type) = match key.class {
            KeyClass::Private => ("private key", ObjectType::Private),
            KeyClass::Public => ("public key", ObjectType::Public),
        };
        let bits = key.modulus.len() * 8;
        let mut details = vec![if bits == 0 { "RSA, modulus not reported".into() } else { format!("RSA {bits}") }];
        if key.class == KeyClass::Private {
            let flag = |value: Option<bool>, yes: &str, no: &str| match value {
                Some(true) => yes.to_owned(),
                Some(false) => no.to_owned(),
                None => format!("{yes}: not reported"),
            };
            details.push(flag(key.sensitive, "sensitive", "not sensitive"));
            details.push(flag(key.extractable, "extractable", "not extractable"));
            if key.always_authenticate == Some(true) {
                details.push("PIN for each signature".into());
            }
            if key.sign == Some(false) {
                details.push("may not sign".into());
            }
        }
        let json = json!({
            "sign": key.sign, "always_authenticate": key.always_authenticate, "sensitive": key.sensitive,
            "extractable": key.extractable, "always_sensitive": key.always_sensitive,
            "never_extractable": key.never_extractable, "local": key.local, "rsa_bits": bits,
        });
        let uri = uri(object_type, &key.label, &key.id);
        all.push(ListedObject { kind, label: printable_bytes(&key.label), id: hex(&key.id), details, uri, json });
    }
    let (stored, broken) = certificates(objects);
    for object in &stored {
        let certificate = &object.certificate;
        let until = format!("until {}", certificate.valid_until);
        let details = vec![certificate.subject.clone(), until, format!("sha256 {}", hex(&certificate.sha256()))];
        let mut json = json!(certificate.summary());
        json["attestation"] = certificate.is_attestation.into();
        json["ca"] = certificate.is_ca.into();
        let uri = uri(ObjectType::Cert, &object.label, &object.id);
        all.push(ListedObject {
            kind: "certificate",
            label: printable_bytes(&object.label),
            id: hex(&object.id),
            details,
            uri,
            json,
        });
    }
    for object in broken {
        let reason = object.reason();
        all.push(ListedObject {
            kind: "other certificate",
            label: printable_bytes(&object.label),
            id: hex(&object.id),
            json: json!({ "error": reason }),
            details: vec![reason],
            uri: uri(ObjectType::Cert, &object.label, &object.id),
        });
    }
    all
}

fn state(token: &Token) -> Vec<&'static str> {
    let login = (!token.login_required).then_some("no login needed");
    let keypad = token.pinpad.then_some("PIN is entered at the token");
    // Before a token is initialised, it has no PIN.
    let pin = token.initialized.then(|| token.pin.notes());
    login.into_iter().chain(pin.into_iter().flatten()).chain(keypad).collect()
}

fn module_text(shown: &ModuleContent) -> String {
    let mut lines = vec![format!("module {} ({})", shown.module, shown.path)];
    lines.extend(shown.error.iter().map(|error| format!("  cannot be used: {error}")));
    lines.extend(shown.hint.iter().map(|hint| format!("  hint: {hint}")));
    if shown.error.is_none() && shown.slots.is_empty() {
        lines.push("  no slot has a selected token".into());
    }
    lines.extend(shown.slots.iter().map(slot_text));
    lines.extend(
        shown
            .slots
            .iter()
            .find(|slot| slot.index.is_some() && slot.slot.error.is_none())
            .map(|slot| snippet(shown, slot)),
    );
    lines.join("\n")
}

fn slot_text(shown: &SlotContent) -> String {
    let index = shown.index.map_or("-".into(), |index| index.to_string());
    let mut lines = Vec::new();
    match &shown.slot.token {
        Some(token) => {
            let label = printable(&token.label);
            let what = if token.initialized { format!("token '{label}'") } else { "uninitialised token".into() };
            lines.push(format!("  slot {index} (ID {}): {what}", shown.slot.id));
            let (maker, model) = (printable(&token.manufacturer), printable(&token.model));
            lines.push(format!(
                "    {maker}, {model}, serial {}, firmware {}",
                printable(&token.serial),
                token.firmware
            ));
            let words = state(token);
            lines.extend((!words.is_empty()).then(|| format!("    state: {}", words.join(", "))));
        }
        None => lines.push(format!("  slot {index} (ID {})", shown.slot.id)),
    }
    lines.extend(
        shown
            .slot
            .error
            .iter()
            .map(|error| format!("    cannot be read completely, so --slot cannot select it: {error}")),
    );
    lines.push(format!("    {}", shown.uri));
    match &shown.objects {
        Ok(found) => {
            let mut table = Table::new();
            table.load_preset(presets::NOTHING);
            for object in objects(shown, found) {
                let details = format!("{}\n{}", object.details.join(", "), object.uri);
                table.add_row([
                    object.kind.to_owned(),
                    format!("'{}'", object.label),
                    format!("ID {}", object.id),
                    details,
                ]);
            }
            lines.extend(table.lines().map(|line| format!("    {}", line.trim_end())));
            if !shown.mechanisms.is_empty() {
                lines.push(format!("    signs by {}", shown.mechanisms[0]));
            }
        }
        Err(error) if shown.slot.error.as_ref() != Some(error) => {
            lines.push(format!("    objects cannot be read: {error}"))
        }
        Err(_) => {}
    }
    lines.join("\n")
}

/// The configuration for the first usable token.
fn snippet(shown: &ModuleContent, slot: &SlotContent) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let token = slot.slot.token.as_ref();
    let (key, value) = match token {
        Some(token) if tells_apart(&token.serial) && slot.uri.token.slot_id.is_none() => ("serial", &token.serial),
        _ => ("uri", &slot.uri.to_string()),
    };
    let (module, value) = (quoted(&shown.module), quoted(value));
    format!("\n  # for the configuration file:\n  module = {module}\n  [token]\n  {key} = {value}")
}

fn module_json(shown: &ModuleContent) -> Value {
    let slots: Vec<Value> = shown.slots.iter().map(slot_json).collect();
    json!({ "module": shown.module, "path": shown.path, "error": shown.error, "hint": shown.hint, "slots": slots })
}

fn slot_json(shown: &SlotContent) -> Value {
    let found = shown.objects.as_ref().ok().map(|found| objects(shown, found)).unwrap_or_default();
    let object = |object: &ListedObject| {
        let mut json = object.json.clone();
        json["kind"] = object.kind.into();
        json["label"] = object.label.clone().into();
        json["id"] = object.id.clone().into();
        json["uri"] = object.uri.to_string().into();
        json
    };
    let error = shown.slot.error.clone().or_else(|| shown.objects.as_ref().err().cloned());
    json!({
        "index": shown.index, "slot_id": shown.slot.id, "error": error, "uri": shown.uri.to_string(),
        "token": shown.slot.token, "mechanisms": shown.mechanisms, "objects": found.iter().map(object).collect::<Vec<_>>(),
    })
}
