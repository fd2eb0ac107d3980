//! Reads the settings of keys as values: one, a list, or one of several words.
//!
//! Runs in the parent.

use super::error::ConfigError;
use super::settings::Settings;
use crate::cba::Version;
use crate::values::{Parsed, by_name};

pub(super) struct SettingsReader<'a>(pub(super) &'a Settings);

impl SettingsReader<'_> {
    pub(super) fn optional<T>(&self, key: &str, parse: impl Fn(&str) -> Parsed<T>) -> Result<Option<T>, ConfigError> {
        let Some(setting) = self.0.get(key) else { return Ok(None) };
        let value = setting.values.last().map(String::as_str).unwrap_or_default();
        parse(value).map(Some).map_err(|wanted| self.0.refuse(key, wanted))
    }

    pub(super) fn list<T>(&self, key: &str, parse: impl Fn(&str) -> Parsed<T>) -> Result<Option<Vec<T>>, ConfigError> {
        match self.list_or_none(key, parse)? {
            Some(empty) if empty.is_empty() => Err(self.0.refuse(key, "must name at least one".into())),
            list => Ok(list),
        }
    }

    /// A list that may be empty, which means the same as unset.
    pub(super) fn list_or_none<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        let Some(setting) = self.0.get(key) else { return Ok(None) };
        let parsed = setting.values.iter().map(|value| parse(value)).collect::<Parsed<_>>();
        parsed.map(Some).map_err(|wanted| self.0.refuse(key, wanted))
    }

    pub(super) fn one_of<T: Copy>(&self, key: &str, names: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
        self.optional(key, |text| by_name(text, names))
    }
}

/// Payload versions by their names.
pub(super) const VERSIONS: [(&str, Version); 2] = [("v2", Version::V2), ("v1", Version::V1)];
