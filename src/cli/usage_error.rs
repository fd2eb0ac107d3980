//! Usage errors without any text that could be a PIN.
//!
//! Runs in the parent. This file does neither input nor output.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::config::keys::KEYS;
use crate::error::{Error, Kind};

/// Converts a usage error of the parser, and leaves out every text that could be a PIN.
#[must_use]
pub(crate) fn usage_error(error: &clap::Error) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg);
    let flag = argument.as_deref().and_then(flag_name);
    let is_version = argument.as_deref() == Some("--version");
    let flag_of_a_command = argument.as_deref().and_then(flag_of_a_command);
    let named = flag.clone().unwrap_or_else(|| "an argument".into());
    let message = match error.kind() {
        ErrorKind::UnknownArgument => match flag {
            Some(flag) => format!("there is no option {flag}"),
            None => "an argument is not understood (it is not shown, since it may be a PIN)".into(),
        },
        ErrorKind::InvalidSubcommand => "there is no such command".into(),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "a command is needed".into()
        }
        ErrorKind::MissingRequiredArgument => format!("{} is needed", argument.unwrap_or(named)),
        ErrorKind::ArgumentConflict => format!("{named} is given twice, or with an option that excludes it"),
        ErrorKind::InvalidValue | ErrorKind::NoEquals => format!("{named} needs a value"),
        ErrorKind::TooManyValues => format!("{named} takes no value"),
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".into(),
        _ => "the command line is not understood".into(),
    };
    let mut out = Error::new(Kind::Usage, message);
    let suggestion = text(ContextKind::SuggestedArg).or_else(|| text(ContextKind::SuggestedSubcommand));
    let before_the_command = matches!(error.get(ContextKind::Usage), Some(ContextValue::StyledStr(usage)) if usage.to_string().contains("<COMMAND>"));
    match (suggestion, flag_of_a_command) {
        (_, Some(flag)) if before_the_command => {
            out = out.hint(format!("put the command first, as in `cba-agent sign --{flag}`"));
        }
        _ if is_version => out = out.hint("use `cba-agent --version` without other arguments"),
        (Some(suggestion), _) => out = out.hint(format!("did you mean {suggestion}?")),
        _ => {}
    }
    out.hint("`cba-agent help` lists the commands, `cba-agent help COMMAND` their options")
}

/// The name of the option, if it belongs to a configuration key.
fn flag_of_a_command(argument: &str) -> Option<&'static str> {
    let name = argument.split(['=', ' ']).next()?.strip_prefix("--")?;
    let of_keys = KEYS.iter().map(|key| key.flag).find(|flag| *flag == name);
    of_keys.or_else(|| ["format", "job", "module-debug"].into_iter().find(|flag| *flag == name))
}

/// The name of an option, if the text can be one: an unknown option could be a misplaced PIN.
fn flag_name(argument: &str) -> Option<String> {
    let name = argument.split(['=', ' ']).next().unwrap_or_default();
    let word = name.strip_prefix("--")?;
    let plain = word.len() <= 32 && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    if word.starts_with("pin") && KEYS.iter().all(|key| key.flag != word) {
        return Some("that begins with --pin".into());
    }
    plain.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::command;
    use super::*;

    #[test]
    fn no_usage_error_repeats_what_could_be_a_pin() {
        for arguments in [
            &["sign", "SECRET1"][..],
            &["sign", "--pinn", "SECRET1"],
            &["sign", "--pinSECRET1"],
            &["sign", "--pin-sourse=SECRET1"],
            &["sign", "--SECRET1"],
            &["sign", "-pSECRET1"],
            &["sign", "--slot", "1", "--slot", "SECRET1"],
            &["sign", "--module-debug=SECRET1"],
            &["SECRET1"],
            &["list", "--json", "SECRET1"],
        ] {
            let all = std::iter::once("cba-agent").chain(arguments.iter().copied());
            let error = usage_error(&command().try_get_matches_from(all).unwrap_err()).to_string();
            assert!(!error.contains("SECRET1"), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn a_near_miss_gets_a_suggestion() {
        let error = command().try_get_matches_from(["cba-agent", "sign", "--token-lable", "x"]).unwrap_err();
        assert!(usage_error(&error).to_string().contains("--token-label"), "{}", usage_error(&error));
    }
}
