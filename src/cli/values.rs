//! The values that a shell offers for an option: words, files or directories. Options accept any text; checks are elsewhere.
//!
//! Runs in the parent. This file does neither input nor output.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, ValueHint};

use crate::config::keys::ConfigKey;
use crate::policy::Requirement;
use crate::{certificate, log, modules};

/// Accepts any text, and tells shells the usual words.
#[derive(Clone)]
struct UsualWords(Vec<&'static str>);

impl TypedValueParser for UsualWords {
    type Value = String;

    fn parse_ref(&self, command: &Command, _: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        value.to_str().map(str::to_owned).ok_or_else(|| clap::Error::new(ErrorKind::InvalidUtf8).with_cmd(command))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().copied().map(PossibleValue::new)))
    }
}

/// An argument for which shells offer words.
pub(super) fn words(argument: Arg, words: Vec<&'static str>) -> Arg {
    argument.value_parser(UsualWords(words)).hide_possible_values(true)
}

/// The option of a key, with the words for shells.
pub(super) fn of_key(argument: Arg, key: &ConfigKey) -> Arg {
    let names = match key.path {
        "log.level" => log::LEVELS.map(|(name, _)| name).to_vec(),
        "policy.payload_versions" => vec!["v2", "v1"],
        "policy.mechanism" => vec!["sha512-rsa-pkcs", "rsa-pkcs"],
        "policy.require" => Requirement::NAMES.map(|(name, _)| name).to_vec(),
        "policy.extended_key_usage" => certificate::USAGES.map(|(name, _)| name).to_vec(),
        "pin.source" => vec!["file:", "env:", "fd:", "stdin", "credential:", "prompt", "pinpad"],
        "module" => modules::names(),
        _ if is_choice(key.value) => key.value.split('|').collect(),
        _ => return argument.value_hint(hint(key.value)),
    };
    // A source continues after its colon, so the shell must not add a space.
    words(argument, names).value_hint(if key.path == "pin.source" { ValueHint::Other } else { ValueHint::Unknown })
}

/// The words in the name of a value, if it lists all of them: `v2|v1`.
pub(super) fn is_choice(value_name: &str) -> bool {
    value_name.contains('|')
        && value_name.bytes().all(|byte| byte.is_ascii_lowercase() || b"0123456789-|".contains(&byte))
}

/// The kind of completion, derived from the name of a value.
pub(super) fn hint(value_name: &str) -> ValueHint {
    match value_name {
        "FILE" | "PATH" => ValueHint::FilePath,
        "DIR" => ValueHint::DirPath,
        "USER" => ValueHint::Username,
        _ => ValueHint::Other,
    }
}
