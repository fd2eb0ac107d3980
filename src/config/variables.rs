//! Environment variables with our prefix: unknown names, and values with leftovers of a file format.
//!
//! PURE. No message repeats a value.

use std::ffi::{OsStr, OsString};

use super::keys::{ConfigKey, KEYS};

/// The variable for the configuration file. It has no key.
pub(crate) const CONFIG: &str = "CBA_AGENT_CONFIG";

const PREFIX: &str = "CBA_AGENT_";

/// An unknown variable with our prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnknownVariable {
    pub name: String,
    /// The variable that the user probably meant.
    pub nearest: Option<String>,
}

impl UnknownVariable {
    /// The warning about it.
    #[must_use]
    pub(crate) fn reason(&self) -> String {
        format!("the variable {} is unknown, and ignored", crate::text::printable(&self.name))
    }

    /// The hint about it.
    #[must_use]
    pub(crate) fn remedy(&self) -> String {
        match &self.nearest {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "`cba-agent help sign` and docs/configuration.md list the variables".into(),
        }
    }
}

/// The unknown names in an environment. Variables that a PIN source names belong to the user.
#[must_use]
pub(crate) fn unknown(names: impl Iterator<Item = OsString>, pin_variables: &[OsString]) -> Vec<UnknownVariable> {
    let ours = names.filter(|name| !pin_variables.contains(name)).filter_map(|name| {
        let name = name.into_string().ok()?;
        let is_ours = name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
        (is_ours && !is_known(&name) && !is_of_a_service_link(&name)).then_some(name)
    });
    let mut unknown: Vec<UnknownVariable> =
        ours.map(|name| UnknownVariable { nearest: nearest(&name), name }).collect();
    unknown.sort_by(|one, other| one.name.cmp(&other.name));
    unknown
}

fn is_known(name: &str) -> bool {
    name == CONFIG || KEYS.iter().any(|key| key.variable() == name)
}

/// Kubernetes sets such variables in every pod next to a service named `cba-agent`.
fn is_of_a_service_link(name: &str) -> bool {
    let rest = &name[PREFIX.len()..];
    rest == "SERVICE_HOST" || rest.starts_with("SERVICE_PORT") || rest == "PORT" || rest.starts_with("PORT_")
}

fn nearest(name: &str) -> Option<String> {
    let name = name.to_ascii_uppercase();
    let rest = &name[PREFIX.len()..];
    let all = || KEYS.iter().map(ConfigKey::variable).chain([CONFIG.to_owned()]);
    let in_capitals = || all().find(|known| *known == name);
    // By a part of the name, as in CBA_AGENT_WORKERS and CBA_AGENT_SIGN_AUTH_URL.
    let by_part = || {
        all().find(|known| {
            known.ends_with(&format!("_{rest}"))
                || known.starts_with(&format!("{name}_"))
                || name.ends_with(&known[PREFIX.len() - 1..])
                || name == format!("{known}_FILE")
        })
    };
    // By its beginning, as in CBA_AGENT_STATE_DIRECTORY and CBA_AGENT_MODULE_PATH.
    let by_beginning = || all().find(|known| name.starts_with(known.as_str()));
    let pin_source = || rest.starts_with("PIN").then(|| format!("{PREFIX}PIN_SOURCE"));
    let by_distance = || {
        let distance = |known: &String| strsim::damerau_levenshtein(&known[PREFIX.len()..], rest);
        all().filter(|known| distance(known) <= 1 + rest.len() / 4).min_by_key(distance)
    };
    in_capitals().or_else(by_part).or_else(by_beginning).or_else(pin_source).or_else(by_distance)
}

/// The reason why a value is not what its user meant; `None` for a clean value.
pub(crate) fn leftover(value: &OsStr) -> Option<&'static str> {
    let bytes = value.as_encoded_bytes();
    let is_quoted = |quote: u8| bytes.len() > 1 && bytes.starts_with(&[quote]) && bytes.ends_with(&[quote]);
    if bytes.ends_with(b"\r") {
        Some("ends in a carriage return, as in a file with Windows line ends: convert it, with dos2unix for example")
    } else if bytes.iter().any(u8::is_ascii_control) {
        Some("holds a line break or another control character")
    } else if bytes.starts_with(b" ") || bytes.ends_with(b" ") {
        Some("begins or ends with a space: remove it")
    } else if is_quoted(b'"') || is_quoted(b'\'') {
        Some(
            "begins and ends with a quotation mark; only a shell removes them (docker --env-file does not): write the value without quotation marks",
        )
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest_of(name: &str) -> Option<String> {
        let unknown = unknown([OsString::from(name)].into_iter(), &[]);
        assert_eq!(unknown.len(), 1, "{name}");
        unknown.into_iter().next().unwrap().nearest
    }

    #[test]
    fn an_unknown_variable_brings_the_nearest_known_one() {
        for (name, nearest) in [
            ("CBA_AGENT_PIN_SOURSE", "CBA_AGENT_PIN_SOURCE"),
            ("CBA_AGENT_SLOTS", "CBA_AGENT_SLOT"),
            ("CBA_AGENT_TOKEN_SERAIL", "CBA_AGENT_TOKEN_SERIAL"),
            ("CBA_AGENT_WORKERS", "CBA_AGENT_SERVE_WORKERS"),
            ("CBA_AGENT_SIGN_AUTH_URL", "CBA_AGENT_AUTH_URL"),
            ("CBA_AGENT_CONFIG_FILE", "CBA_AGENT_CONFIG"),
            ("cba_agent_slot", "CBA_AGENT_SLOT"),
            ("CBA_AGENT_PIN", "CBA_AGENT_PIN_SOURCE"),
            ("CBA_AGENT_MODUL", "CBA_AGENT_MODULE"),
            ("CBA_AGENT_SERVE_PIN_SOURCE", "CBA_AGENT_PIN_SOURCE"),
            ("CBA_AGENT_STATE_DIRECTORY", "CBA_AGENT_STATE_DIR"),
            ("CBA_AGENT_MODULE_PATH", "CBA_AGENT_MODULE"),
            ("CBA_AGENT_PIN_FILE", "CBA_AGENT_PIN_SOURCE"),
            ("CBA_AGENT_PINCODE", "CBA_AGENT_PIN_SOURCE"),
        ] {
            assert_eq!(nearest_of(name).as_deref(), Some(nearest), "{name}");
        }
        assert_eq!(nearest_of("CBA_AGENT_XYZZY_PLUGH"), None);
    }

    #[test]
    fn the_path_of_a_key_or_its_name_in_small_letters_brings_its_variable() {
        for key in KEYS {
            let by_path = format!("{PREFIX}{}", key.path.replace('.', "_").to_ascii_uppercase());
            for name in [by_path, key.variable().to_ascii_lowercase()] {
                if !is_known(&name) {
                    assert_eq!(nearest_of(&name), Some(key.variable()), "{name}");
                }
            }
        }
    }

    #[test]
    fn known_variables_pins_and_links_of_services_are_not_unknown() {
        let known = KEYS.iter().map(|key| key.variable()).chain([
            CONFIG.into(),
            "CBA_AGENT".into(),
            "CBA_AGENT_SERVICE_HOST".into(),
            "CBA_AGENT_PORT_443_TCP".into(),
            "PATH".into(),
            "CBA_AGENT_MY_PIN".into(),
        ]);
        assert_eq!(unknown(known.map(OsString::from), &["CBA_AGENT_MY_PIN".into()]), []);
    }

    #[test]
    fn a_value_with_quotation_marks_or_a_line_end_is_refused_with_its_cause() {
        for (value, cause) in [
            ("\"v2\"", "quotation mark"),
            ("'file:/etc/pin'", "quotation mark"),
            ("v2\r", "Windows"),
            ("\"v2\"\r", "Windows"),
            ("v2\n", "line break"),
            ("v2 ", "a space"),
            (" v2", "a space"),
        ] {
            assert!(leftover(OsStr::new(value)).is_some_and(|why| why.contains(cause)), "{value:?}");
        }
        for value in ["v2", "Jo's \"own\"", "\"", "it's"] {
            assert_eq!(leftover(OsStr::new(value)), None, "{value}");
        }
    }

    #[test]
    fn an_unknown_variable_is_named_with_the_nearest_or_the_page() {
        let unknown = |nearest: Option<&str>| UnknownVariable {
            name: "CBA_AGENT_X\n".into(),
            nearest: nearest.map(str::to_owned),
        };
        assert_eq!(unknown(None).reason(), "the variable CBA_AGENT_X\\u{a} is unknown, and ignored");
        assert_eq!(unknown(Some("CBA_AGENT_Y")).remedy(), "did you mean CBA_AGENT_Y?");
        assert!(unknown(None).remedy().contains("docs/configuration.md"));
    }
}
