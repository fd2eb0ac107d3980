//! The content of modules as text, as JSON, and as a configuration to paste.
//!
//! Runs in the parent.

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::error::Result;
use crate::facts::{KeyClass, Slot, Token, TokenObjects, tells_apart};
use crate::identity::certificates;
use crate::selector::{ObjectType, Uri};
use crate::text::{hex, printable, printable_bytes};

pub(super) struct ModuleContent {
    pub(super) module: String,
    pub(super) path: String,
    /// Why the module cannot be used, and what helps.
    pub(super) error: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) slots: Vec<SlotContent>,
}

pub(super) struct SlotContent {
    /// The index that `--slot` takes.
    pub(super) index: Option<usize>,
    pub(super) slot: Slot,
    pub(super) uri: Uri,
    pub(super) mechanisms: Vec<&'static str>,
    pub(super) objects: Result<TokenObjects, String>,
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

pub(super) fn module_text(shown: &ModuleContent) -> String {
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

pub(super) fn module_json(shown: &ModuleContent) -> Value {
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
