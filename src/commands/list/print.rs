//! The content of modules as text, as JSON, and as a configuration to paste.
//!
//! Runs in the parent.

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::error::Result;
use crate::facts::{KeyClass, Slot, Token, TokenObjects, is_distinctive};
use crate::identity::certificates;
use crate::selector::{ObjectType, Uri};
use crate::text::{hex, printable, printable_bytes};

pub(super) struct ModuleContent {
    pub(super) module: String,
    pub(super) path: String,
    /// The reason why the module cannot be used.
    pub(super) error: Option<String>,
    /// What the user can do about the error.
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

/// One object of a token: a row of the table, and an element of the list in JSON.
struct ListedObject {
    kind: &'static str,
    label: String,
    id: String,
    details: Vec<String>,
    uri: Uri,
    json: Value,
}

fn objects(content: &SlotContent, objects: &TokenObjects) -> Vec<ListedObject> {
    let mut all = Vec::new();
    let uri = |object_type, label: &[u8], id: &[u8]| Uri {
        object: (!label.is_empty()).then(|| label.to_vec()),
        id: (!id.is_empty()).then(|| id.to_vec()),
        object_type: Some(object_type),
        ..content.uri.clone()
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

pub(super) fn module_text(content: &ModuleContent) -> String {
    let mut lines = vec![format!("module {} ({})", content.module, content.path)];
    lines.extend(content.error.iter().map(|error| format!("  cannot be used: {error}")));
    lines.extend(content.hint.iter().map(|hint| format!("  hint: {hint}")));
    if content.error.is_none() && content.slots.is_empty() {
        lines.push("  no token here matches the selection".into());
    }
    lines.extend(content.slots.iter().map(slot_text));
    lines.extend(
        content
            .slots
            .iter()
            .find(|slot| slot.index.is_some() && slot.slot.error.is_none())
            .map(|slot| snippet(content, slot)),
    );
    lines.join("\n")
}

fn slot_text(content: &SlotContent) -> String {
    let index = content.index.map_or("-".into(), |index| index.to_string());
    let mut lines = Vec::new();
    match &content.slot.token {
        Some(token) => {
            let label = printable(&token.label);
            let what = if token.initialized { format!("token '{label}'") } else { "uninitialised token".into() };
            lines.push(format!("  slot {index} (ID {}): {what}", content.slot.id));
            let (maker, model) = (printable(&token.manufacturer), printable(&token.model));
            lines.push(format!(
                "    {maker}, {model}, serial {}, firmware {}",
                printable(&token.serial),
                token.firmware
            ));
            let words = state(token);
            lines.extend((!words.is_empty()).then(|| format!("    state: {}", words.join(", "))));
        }
        None => lines.push(format!("  slot {index} (ID {})", content.slot.id)),
    }
    lines.extend(
        content
            .slot
            .error
            .iter()
            .map(|error| format!("    cannot be read completely, so --slot cannot select it: {error}")),
    );
    lines.push(format!("    {}", content.uri));
    match &content.objects {
        Ok(found) => {
            let mut table = Table::new();
            table.load_preset(presets::NOTHING);
            for object in objects(content, found) {
                let details = format!("{}\n{}", object.details.join(", "), object.uri);
                table.add_row([
                    object.kind.to_owned(),
                    format!("'{}'", object.label),
                    format!("ID {}", object.id),
                    details,
                ]);
            }
            lines.extend(table.lines().map(|line| format!("    {}", line.trim_end())));
            if !content.mechanisms.is_empty() {
                lines.push(format!("    signs with {}", content.mechanisms[0]));
            }
        }
        Err(error) if content.slot.error.as_ref() != Some(error) => {
            lines.push(format!("    objects cannot be read: {error}"))
        }
        Err(_) => {}
    }
    lines.join("\n")
}

/// Returns the lines of the configuration file that select this slot's token.
fn snippet(content: &ModuleContent, slot: &SlotContent) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let token = slot.slot.token.as_ref();
    let (key, value) = match token {
        Some(token) if is_distinctive(&token.serial) && slot.uri.token.slot_id.is_none() => ("serial", &token.serial),
        _ => ("uri", &slot.uri.to_string()),
    };
    let (module, value) = (quoted(&content.module), quoted(value));
    format!("\n  # for the configuration file:\n  module = {module}\n  [token]\n  {key} = {value}")
}

pub(super) fn module_json(content: &ModuleContent) -> Value {
    let slots: Vec<Value> = content.slots.iter().map(slot_json).collect();
    json!({ "module": content.module, "path": content.path, "error": content.error, "hint": content.hint, "slots": slots })
}

fn slot_json(content: &SlotContent) -> Value {
    let found = content.objects.as_ref().ok().map(|found| objects(content, found)).unwrap_or_default();
    let object = |object: &ListedObject| {
        let mut json = object.json.clone();
        json["kind"] = object.kind.into();
        json["label"] = object.label.clone().into();
        json["id"] = object.id.clone().into();
        json["uri"] = object.uri.to_string().into();
        json
    };
    let error = content.slot.error.clone().or_else(|| content.objects.as_ref().err().cloned());
    json!({
        "index": content.index, "slot_id": content.slot.id, "error": error, "uri": content.uri.to_string(),
        "token": content.slot.token, "mechanisms": content.mechanisms, "objects": found.iter().map(object).collect::<Vec<_>>(),
    })
}
