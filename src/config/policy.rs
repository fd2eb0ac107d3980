//! `[policy]` and `[audit]`: the user's settings, tightened by root's policy file.
//!
//! Runs in the parent. If only one of the two sets a key, its value counts. If both set it, the stricter value counts.
//! Two lists without a common value are an error. So users can tighten root's policy, and never loosen it. All words of
//! `require` must be met: root's words are added to the user's, or to the defaults if the user has none.

use std::path::PathBuf;

use nix::unistd::User;

use super::error::ConfigError;
use super::reader::{SettingsReader, VERSIONS};
use super::settings::{SYSTEM_POLICY, Settings};
use crate::cba::Version;
use crate::certificate;
use crate::facts::Mechanism;
use crate::policy::{CertificateSource, MAX_RSA_BITS, MIN_RSA_BITS, Policy, Requirement};
use crate::values::paths::absolute;
use crate::values::ranges::number;
use crate::values::{by_name, fingerprint};

const MECHANISMS: [(&str, Mechanism); 2] =
    [("sha512-rsa-pkcs", Mechanism::Sha512RsaPkcs), ("rsa-pkcs", Mechanism::RsaPkcs)];
const SOURCES: [(&str, CertificateSource); 2] =
    [("token", CertificateSource::Token), ("token-or-file", CertificateSource::TokenOrFile)];

/// The policy keys of one source.
struct PolicyKeys {
    payload_versions: Option<Vec<Version>>,
    min_rsa_bits: Option<usize>,
    mechanism: Option<Mechanism>,
    require: Option<Vec<Requirement>>,
    extended_key_usage: Option<Vec<String>>,
    enforce_validity: Option<bool>,
    certificate_source: Option<CertificateSource>,
    token_serials: Option<Vec<String>>,
    certificate_sha256: Option<Vec<Vec<u8>>>,
}

/// The policy that root's file (`/etc/cba-agent/policy.toml`) sets on top of the defaults, for a program that checks the
/// payloads of agents and has no `[policy]` of its own.
///
/// # Errors
/// When the file is there and cannot be used.
pub fn system_policy() -> Result<Policy, ConfigError> {
    resolve(&Settings::default().under_system_policy()?)
}

/// The policy in force.
pub(super) fn resolve(settings: &Settings) -> Result<Policy, ConfigError> {
    let configured = PolicyKeys::read(settings)?;
    let system = settings.system_policy().map(PolicyKeys::read).transpose()?;
    let keys = match system {
        Some(system) => configured.narrowed(system, settings)?,
        None => configured,
    };
    let default = Policy::default();
    Ok(Policy {
        payload_versions: keys.payload_versions,
        min_rsa_bits: keys.min_rsa_bits.unwrap_or(default.min_rsa_bits),
        mechanism: keys.mechanism,
        require: keys.require.unwrap_or(default.require),
        extended_key_usage: keys.extended_key_usage.unwrap_or(default.extended_key_usage),
        enforce_validity: keys.enforce_validity.unwrap_or(default.enforce_validity),
        certificate_source: keys.certificate_source.unwrap_or_default(),
        token_serials: keys.token_serials,
        certificate_sha256: keys.certificate_sha256,
    })
}

/// The path of the audit log. A user can neither switch off nor move a log that root names.
pub(super) fn audit(settings: &Settings) -> Result<Option<PathBuf>, ConfigError> {
    const KEY: &str = "audit.path";
    let configured = SettingsReader(settings).optional(KEY, log_path)?;
    let system =
        settings.system_policy().map(|system| SettingsReader(system).optional(KEY, log_path)).transpose()?.flatten();
    match (configured, system) {
        (Some(configured), Some(system)) if configured != system => {
            Err(settings.refuse(KEY, format!("{SYSTEM_POLICY} names another")))
        }
        (configured, system) => Ok(system.or(configured)),
    }
}

/// An absolute path. `{user}` is replaced by the current user: one log file belongs to one user, and root's policy
/// names a log for all of them.
fn log_path(text: &str) -> Result<PathBuf, String> {
    const USER: &str = "{user}";
    if !text.contains(USER) {
        return absolute(text);
    }
    let uid = rustix::process::geteuid().as_raw();
    let user = User::from_uid(uid.into()).map_err(|error| format!("cannot look up the user {uid} ({error})"))?;
    absolute(&text.replace(USER, &user.map_or_else(|| uid.to_string(), |user| user.name)))
}

impl PolicyKeys {
    fn read(settings: &Settings) -> Result<Self, ConfigError> {
        let read = SettingsReader(settings);
        let known_usage = |text: &str| {
            let name = certificate::usage_name(text);
            name.ok_or_else(|| {
                format!("must be one of {} or an OID", certificate::USAGES.map(|(name, _)| name).join(", "))
            })
        };
        Ok(Self {
            payload_versions: read.list("policy.payload_versions", |text| by_name(text, &VERSIONS))?,
            min_rsa_bits: read.optional("policy.min_rsa_bits", number(MIN_RSA_BITS..=MAX_RSA_BITS))?,
            mechanism: read.one_of("policy.mechanism", &MECHANISMS)?,
            require: read.list("policy.require", |text| by_name(text, &Requirement::NAMES))?,
            extended_key_usage: read.list("policy.extended_key_usage", known_usage)?,
            enforce_validity: read.one_of("policy.certificate_validity", &[("enforce", true), ("warn", false)])?,
            certificate_source: read.one_of("policy.certificate_source", &SOURCES)?,
            token_serials: read.list("policy.token_serials", |text| Ok(text.to_owned()))?,
            certificate_sha256: read.list("policy.certificate_sha256", fingerprint)?,
        })
    }

    fn narrowed(self, system: Self, settings: &Settings) -> Result<Self, ConfigError> {
        let nothing_left = |key| settings.refuse(key, format!("has no value that {SYSTEM_POLICY} allows"));
        if self.mechanism.is_some() && system.mechanism.is_some() && self.mechanism != system.mechanism {
            return Err(nothing_left("policy.mechanism"));
        }
        let is_token = |source: &CertificateSource| *source == CertificateSource::Token;
        let sources = [self.certificate_source, system.certificate_source];
        let mut require = self.require.unwrap_or_else(|| Policy::DEFAULT_REQUIRE.to_vec());
        for requirement in system.require.into_iter().flatten() {
            if !require.contains(&requirement) {
                require.push(requirement);
            }
        }
        Ok(Self {
            payload_versions: common(self.payload_versions, system.payload_versions)
                .ok_or_else(|| nothing_left("policy.payload_versions"))?,
            min_rsa_bits: self.min_rsa_bits.max(system.min_rsa_bits),
            mechanism: self.mechanism.or(system.mechanism),
            require: Some(require),
            extended_key_usage: common(self.extended_key_usage, system.extended_key_usage)
                .ok_or_else(|| nothing_left("policy.extended_key_usage"))?,
            // `true` is the stricter value.
            enforce_validity: self.enforce_validity.max(system.enforce_validity),
            certificate_source: sources
                .iter()
                .flatten()
                .find(|source| is_token(source))
                .or(sources.iter().flatten().next())
                .copied(),
            token_serials: common(self.token_serials, system.token_serials)
                .ok_or_else(|| nothing_left("policy.token_serials"))?,
            certificate_sha256: common(self.certificate_sha256, system.certificate_sha256)
                .ok_or_else(|| nothing_left("policy.certificate_sha256"))?,
        })
    }
}

/// The values in both lists, or the only list. `None` if both lists exist and have no common value.
fn common<T: PartialEq>(configured: Option<Vec<T>>, system: Option<Vec<T>>) -> Option<Option<Vec<T>>> {
    match (configured, system) {
        (Some(configured), Some(system)) => {
            let both: Vec<T> = configured.into_iter().filter(|item| system.contains(item)).collect();
            (!both.is_empty()).then_some(Some(both))
        }
        (configured, system) => Some(configured.or(system)),
    }
}
