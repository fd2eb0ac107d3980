//! Raw settings: for each key its values as text, and their source. Later sources replace earlier ones.
//!
//! Runs in the parent.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::keys::{ConfigKey, KEYS, Shape};
use super::origin::{Origin, Setting};
use super::{toml_file, variables};
use crate::os::input_file;

/// A key with the value in force.
#[derive(Clone, Debug)]
pub(crate) struct EffectiveSetting {
    /// Its dotted path.
    pub key: &'static str,
    /// Its values as written.
    pub value: String,
    /// The flag, the variable, or file and line.
    pub origin: String,
}

/// All keys that are set.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    all: BTreeMap<&'static str, Setting>,
    /// The file that was read, if any.
    file: Option<PathBuf>,
    /// Every given `pin.source`, including replaced ones.
    pin_sources: Vec<String>,
    /// Root's policy file, which these settings may only tighten.
    system: Option<Box<Settings>>,
}

/// Root's rules for every user of the host: `[policy]` and `[audit]`.
pub(super) const SYSTEM_POLICY: &str = "/etc/cba-agent/policy.toml";

impl Settings {
    /// Reads file and environment, and applies the flags.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML or has unknown keys, or a variable is not UTF-8.
    pub(crate) fn gather(
        config: Option<&OsStr>,
        environment: impl Fn(&str) -> Option<OsString>,
        flags: impl Fn(&ConfigKey) -> Option<Vec<String>>,
    ) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        if let Some(what) = environment(variables::CONFIG).as_deref().and_then(variables::leftover) {
            let (origin, wanted) = (variables::CONFIG.to_owned(), format!("the value {what}"));
            return Err(ConfigError::Value { by_flag: false, origin, wanted });
        }
        if let Some((path, text)) = open(config, &environment)? {
            settings.all = toml_file::parse(&path.display().to_string(), &text)?;
            settings.file = Some(path);
        }
        for key in &KEYS {
            // Services and containers leave variables empty: they count as unset.
            if let Some(value) = environment(&key.variable()).filter(|value| !value.is_empty()) {
                let refuse =
                    |wanted: &str| ConfigError::Value { by_flag: false, origin: key.variable(), wanted: wanted.into() };
                if let Some(what) = variables::leftover(&value) {
                    return Err(refuse(&format!("the value {what}")));
                }
                let value = value.into_string().map_err(|_| refuse("must be UTF-8"))?;
                let values = if key.shape == Shape::List { split(&value) } else { vec![value] };
                settings.insert(key, Setting { values, origin: Origin::Environment });
            }
            if let Some(values) = flags(key) {
                // In a script with Windows line ends, the last argument ends in a carriage return. No value does.
                if values.iter().any(|value| value.ends_with('\r')) {
                    let wanted = format!("the value {}", variables::leftover(OsStr::new("\r")).unwrap_or_default());
                    return Err(ConfigError::Value { by_flag: true, origin: format!("--{}", key.flag), wanted });
                }
                let values = if key.shape == Shape::List {
                    values.iter().flat_map(|value| parts(value)).collect()
                } else {
                    values
                };
                settings.insert(key, Setting { values, origin: Origin::Flag });
            }
        }
        Ok(settings)
    }

    /// Adds the system's policy file, if it exists.
    ///
    /// # Errors
    /// When it cannot be read, another user could write it, or it has keys outside `[policy]` and `[audit]`.
    pub(crate) fn under_system_policy(mut self) -> Result<Self, ConfigError> {
        let failed = |error| ConfigError::Policy(SYSTEM_POLICY.into(), error);
        let file = match input_file::open_regular(Path::new(SYSTEM_POLICY)) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(self),
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
            return Err(ConfigError::NotRoots(SYSTEM_POLICY.into()));
        }
        let text = input_file::read_opened(&file, LIMIT).and_then(text).map_err(failed)?;
        let all = toml_file::parse(SYSTEM_POLICY, &text)?;
        let foreign = all.iter().find(|(key, _)| !key.starts_with("policy.") && !key.starts_with("audit."));
        if let Some((key, Setting { origin: Origin::File { path, line }, .. })) = foreign {
            return Err(ConfigError::UnknownKey { path: path.clone(), line: *line, key: (*key).into() });
        }
        self.system = Some(Box::new(Self { all, ..Self::default() }));
        Ok(self)
    }

    /// The files that were read, with the system policy last.
    #[must_use]
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.file.iter().cloned().chain(self.system.is_some().then(|| SYSTEM_POLICY.into())).collect()
    }

    /// Every key that is set, with values and source, and the system policy last.
    #[must_use]
    pub(crate) fn effective(&self) -> Vec<EffectiveSetting> {
        let own = self.all.iter().chain(self.system.iter().flat_map(|system| &system.all));
        let effective = |(key, setting): (&&'static str, &Setting)| EffectiveSetting {
            key,
            value: shown(key, &setting.values),
            origin: name(&setting.origin, key),
        };
        own.map(effective).collect()
    }

    pub(super) fn system_policy(&self) -> Option<&Self> {
        self.system.as_deref()
    }

    fn insert(&mut self, key: &ConfigKey, setting: Setting) {
        let replaced = self.all.insert(key.path, setting);
        if key.path == PIN_SOURCE {
            self.pin_sources.extend(replaced.into_iter().flat_map(|setting| setting.values));
        }
    }

    /// The variables that any `pin.source` names, in force or not: no module gets them.
    #[must_use]
    pub(crate) fn pin_variables(&self) -> Vec<OsString> {
        let in_force = self.get(PIN_SOURCE).into_iter().flat_map(|setting| &setting.values);
        let variable = |source: &String| source.strip_prefix("env:").map(OsString::from);
        self.pin_sources.iter().chain(in_force).filter_map(variable).collect()
    }

    /// The setting of a key, by its dotted path.
    #[must_use]
    pub(crate) fn get(&self, path: &str) -> Option<&Setting> {
        self.all.get(path)
    }

    /// The error for a key's value, with its source.
    #[must_use]
    pub(crate) fn refuse(&self, path: &str, mut wanted: String) -> ConfigError {
        let setting = self.get(path);
        let by_flag = setting.is_some_and(|setting| setting.origin == Origin::Flag);
        let mut values = setting.into_iter().flat_map(|setting| &setting.values);
        if let Some(what) = values.find_map(|value| variables::leftover(OsStr::new(value))) {
            wanted = format!("{wanted}; the value {what}");
        }
        let origin = match self.get(path).map(|setting| &setting.origin) {
            Some(file @ Origin::File { .. }) => format!("{}: {path}", name(file, path)),
            Some(origin) => name(origin, path),
            None => path.to_owned(),
        };
        ConfigError::Value { by_flag, origin, wanted }
    }
}

/// The flag, the variable, or file and line.
fn name(origin: &Origin, path: &str) -> String {
    let key = KEYS.iter().find(|key| key.path == path);
    match origin {
        Origin::File { path, line } => format!("{path} line {line}"),
        Origin::Environment => key.map(ConfigKey::variable).unwrap_or_default(),
        Origin::Flag => key.map(|key| format!("--{}", key.flag)).unwrap_or_default(),
    }
}

/// The longest file, in bytes.
const LIMIT: usize = 1 << 20;

const PIN_SOURCE: &str = "pin.source";

/// Splits the value of a list flag at commas, as in a variable. A path is not split, since it may contain a comma.
fn parts(value: &str) -> Vec<String> {
    if value.contains('/') || value.is_empty() {
        return vec![value.to_owned()];
    }
    split(value)
}

/// The values between commas.
fn split(list: &str) -> Vec<String> {
    list.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// A key's values for a report. The part of a URI after `?` is left out: it may contain a PIN or its source.
fn shown(key: &str, values: &[String]) -> String {
    let values = values.join(", ");
    match values.split_once('?') {
        Some((selects, _)) if key == "token.uri" => format!("{selects}?(not shown)"),
        _ => values,
    }
}

/// Whether a configuration file may contain this word: the named file, else the user's, else the system's. Only regular files
/// are read: reading another one, such as a pipe, would take its content from the real reader.
pub(crate) fn may_mention(config: Option<&OsStr>, environment: impl Fn(&str) -> Option<OsString>, word: &str) -> bool {
    let named = named(config, &environment).map(PathBuf::from);
    let files = named.map_or_else(|| usual(&environment), |named| vec![named]);
    files.iter().any(|path| match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => read(path).is_ok_and(|text| text.contains(word)),
        Ok(_) => true,
        Err(_) => false,
    })
}

fn open(
    config: Option<&OsStr>,
    environment: &impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(PathBuf, String)>, ConfigError> {
    if let Some(named) = named(config, environment) {
        if named.is_empty() {
            return Err(ConfigError::NoFile);
        }
        let path = PathBuf::from(named);
        return read(&path).map(|text| Some((path, text)));
    }
    for path in usual(environment) {
        match read(&path) {
            Ok(text) => return Ok(Some((path, text))),
            Err(ConfigError::File(_, error))
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(ConfigError::File(path, error)) => return Err(ConfigError::UsualFile(path, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The file that the user selected.
fn named(config: Option<&OsStr>, environment: &impl Fn(&str) -> Option<OsString>) -> Option<OsString> {
    config.map(OsStr::to_owned).or_else(|| environment(variables::CONFIG).filter(|value| !value.is_empty()))
}

/// The default paths of the file; the first existing one counts.
fn usual(environment: &impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let home = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = home.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")));
    let user = home.map(|home| home.join("cba-agent/config.toml"));
    user.into_iter().chain([PathBuf::from("/etc/cba-agent/config.toml")]).collect()
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let read = input_file::read(path, LIMIT).and_then(text);
    read.map_err(|error| ConfigError::File(path.display().to_string(), error))
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    let refuse = |what: &str| io::Error::new(ErrorKind::InvalidData, what);
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) || bytes.contains(&0) {
        return Err(refuse("it is UTF-16 text, or not text at all"));
    }
    String::from_utf8(bytes).map_err(|_| refuse("it is not UTF-8; it may be Latin-1 (ISO 8859-1) or Windows-1252"))
}
