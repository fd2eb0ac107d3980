//! Converts settings into a valid [`Config`]. Every error names the source of the value and the expected form, never
//! the value.
//!
//! Runs in the parent.

use std::num::NonZeroU32;
use std::time::Duration;

use super::error::ConfigError;
use super::origin::Origin;
use super::reader::{SettingsReader, VERSIONS};
use super::settings::Settings;
use super::{Config, Serve, Sign, policy};
use crate::cba::AuthUrl;
use crate::certificate::HeaderEncoding;
use crate::identity::IdentitySelector;
use crate::log;
use crate::pin::PinSource;
use crate::policy::PayloadChoice;
use crate::sandbox_profile;
use crate::selector::{TokenSelector, Uri};
use crate::values::paths::{absolute, own_socket, path, socket};
use crate::values::ranges::{NOTICE_PERIODS, TIMEOUTS, number};
use crate::values::{Parsed, fingerprint, hexadecimal};

/// The error for a text that is not a PIN source. It shows nothing of the text.
fn not_a_source(text: &str) -> String {
    let kind = text.split(':').next().unwrap_or_default();
    let is_in_capitals = kind != text && kind.chars().any(|c| c.is_ascii_uppercase());
    if text.starts_with('/') && text.len() > 1 {
        "not a PIN source; write file: before a path".into()
    } else if is_in_capitals && PinSource::parse(&text.replacen(kind, &kind.to_ascii_lowercase(), 1)).is_some() {
        "not a PIN source; write its kind in lower case".into()
    } else {
        "not a PIN source".into()
    }
}

impl Config {
    /// Resolves the settings.
    ///
    /// # Errors
    /// The first value that its key does not accept.
    pub(crate) fn resolve(settings: &Settings, module_debug: bool) -> Result<Self, ConfigError> {
        let read = SettingsReader(settings);
        let uri = read.optional("token.uri", |text| Uri::parse(text).map_err(|error| error.to_string()))?;
        let mut pin = read.optional("pin.source", |text| PinSource::parse(text).ok_or_else(|| not_a_source(text)))?;
        let rank = |key| settings.get(key).map(|setting| setting.origin.rank());
        if let Some(file) = uri.as_ref().and_then(|uri| uri.pin_file.as_ref()) {
            if pin.is_none() || rank("token.uri") > rank("pin.source") {
                pin = Some(PinSource::File(file.into()));
            }
        }
        Ok(Self {
            pin_variables: settings.pin_variables(),
            module: read.optional("module", |text| not_empty(text).map(str::to_owned))?,
            module_debug,
            token: read.token(uri.as_ref())?,
            identity: IdentitySelector {
                key_label: read.optional("identity.key_label", |text| Ok(text.to_owned()))?,
                key_id: read.optional("identity.key_id", |text| hexadecimal(text, None))?,
                certificate_sha256: read.list("identity.certificate_sha256", fingerprint)?.unwrap_or_default(),
                uri,
            },
            certificate_file: read.optional("identity.certificate_file", path)?,
            pin,
            state_dir: read.optional("state_dir", absolute)?,
            sign: read.sign()?,
            serve: read.serve()?,
            sandbox: read.one_of("sandbox.mode", &sandbox_profile::MODES)?.unwrap_or_default(),
            refuse_open_module: false,
            policy: policy::resolve(settings)?,
            audit: policy::audit(settings)?,
            files: settings.files(),
            effective: settings.effective(),
            log: read.log()?,
        })
    }
}

impl SettingsReader<'_> {
    fn token(&self, uri: Option<&Uri>) -> Result<Vec<TokenSelector>, ConfigError> {
        let own = TokenSelector {
            slot: self.optional("token.slot", slot)?,
            slot_id: self.optional("token.slot_id", slot_id)?,
            label: self.optional("token.label", |text| Ok(text.to_owned()))?,
            serial: self.optional("token.serial", |text| Ok(text.to_owned()))?,
            ..TokenSelector::default()
        };
        let uri = uri.map(|uri| uri.token.clone());
        Ok([Some(own), uri].into_iter().flatten().filter(|selector| !selector.is_empty()).collect())
    }

    fn sign(&self) -> Result<Sign, ConfigError> {
        let version = self.0.get("sign.payload_version");
        Ok(Sign {
            choice: PayloadChoice {
                version: self.one_of("sign.payload_version", &VERSIONS)?.unwrap_or_default(),
                by_flag: version.is_some_and(|setting| setting.origin == Origin::Flag),
            },
            auth_url: self
                .optional("sign.auth_url", |text| AuthUrl::parse(text).map_err(|error| error.to_string()))?
                .unwrap_or_default(),
            header_encoding: self.one_of("sign.header_encoding", &ENCODINGS)?.unwrap_or_default(),
            timeout: self.optional("sign.timeout", timeout)?.unwrap_or(Duration::from_secs(30)),
            warn_before: self
                .optional("sign.warn_before", |text| NOTICE_PERIODS.parse(text))?
                .unwrap_or(Duration::from_secs(30 * 86_400)),
            sockets: self.list("sign.socket", socket)?.unwrap_or_default(),
        })
    }

    fn serve(&self) -> Result<Serve, ConfigError> {
        let names = |key| self.list_or_none(key, |text| not_empty(text).map(str::to_owned));
        let (allow_users, allow_groups) = (names("serve.allow_users")?, names("serve.allow_groups")?);
        for (key, named, other) in
            [("serve.allow_users", &allow_users, &allow_groups), ("serve.allow_groups", &allow_groups, &allow_users)]
        {
            // An empty list in the configuration does not mean every user.
            if named.as_ref().is_some_and(Vec::is_empty) && other.as_ref().is_none_or(Vec::is_empty) {
                return Err(self.0.refuse(key, "must name at least one".into()));
            }
        }
        let each = self.optional("serve.rate_limit_per_second", rate(RATES))?.unwrap_or(RATE);
        let total = self.optional("serve.total_rate_limit_per_second", rate(TOTAL_RATES))?;
        Ok(Serve {
            socket: self.optional("serve.socket", own_socket)?,
            socket_group: self.optional("serve.socket_group", |text| not_empty(text).map(str::to_owned))?,
            workers: self.optional("serve.workers", number(1..=64))?.unwrap_or(1),
            queue: self.optional("serve.queue", number(1..=65_536))?.unwrap_or(64),
            call_timeout: self.optional("serve.call_timeout", timeout)?.unwrap_or(Duration::from_secs(25)),
            request_timeout: self.optional("serve.request_timeout", timeout)?.unwrap_or(Duration::from_secs(60)),
            rate_limit_per_second: each,
            total_rate_limit_per_second: total.unwrap_or(each.saturating_mul(BUSY_USERS)),
            allow_users: allow_users.unwrap_or_default(),
            allow_groups: allow_groups.unwrap_or_default(),
            monitor_groups: names("serve.monitor_groups")?.unwrap_or_default(),
            metrics_file: self.optional("serve.metrics_file", absolute)?,
        })
    }

    fn log(&self) -> Result<log::LogSettings, ConfigError> {
        Ok(log::LogSettings {
            format: self.one_of("log.format", &log::FORMATS)?.unwrap_or_default(),
            level: self.one_of("log.level", &log::LEVELS)?.unwrap_or(log::DEFAULT_LEVEL),
        })
    }
}

const ENCODINGS: [(&str, HeaderEncoding); 2] = [("der", HeaderEncoding::Der), ("pem", HeaderEncoding::Pem)];

/// What a user may ask for in a second where nothing is configured.
const RATE: NonZeroU32 = NonZeroU32::MIN.saturating_add(49);

/// The number of users that may use their full rate at the same time, by default.
const BUSY_USERS: NonZeroU32 = NonZeroU32::MIN.saturating_add(19);

/// The maximum rate of a user, and of all users. Above it, the time between two requests rounds to zero.
const RATES: u32 = 1_000_000;
const TOTAL_RATES: u32 = 20_000_000;

fn rate(greatest: u32) -> impl Fn(&str) -> Parsed<NonZeroU32> {
    move |text| {
        let number = number(1..=greatest)(text)?;
        NonZeroU32::new(number).ok_or_else(|| "must be more than 0".into())
    }
}

fn timeout(text: &str) -> Parsed<Duration> {
    TIMEOUTS.parse(text)
}

fn not_empty(text: &str) -> Parsed<&str> {
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(text) }
}

fn slot(text: &str) -> Parsed<usize> {
    number(0..=65_535)(text).map_err(|wanted| {
        // SoftHSM2's slot IDs are large numbers.
        let is_raw = text.starts_with("0x") || text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
        let raw = if is_raw { "; for a raw slot ID use --slot-id" } else { "" };
        format!("{wanted}, counting initialised tokens{raw}")
    })
}

fn slot_id(text: &str) -> Parsed<u64> {
    let id = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    id.ok_or_else(|| format!("must be a whole number from 0 to {}, decimal or 0x", u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::keys::{ConfigKey, KEYS};
    use super::*;

    fn resolve(flags: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let flag = |key: &ConfigKey| {
            let values: Vec<String> =
                flags.iter().filter(|(name, _)| *name == key.flag).map(|(_, value)| (*value).to_owned()).collect();
            (!values.is_empty()).then_some(values)
        };
        let variable = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into());
        Config::resolve(&Settings::gather(None, variable, flag)?, false)
    }

    #[test]
    fn a_flag_beats_a_variable() {
        let config = resolve(&[("slot", "1")], &[("CBA_AGENT_SLOT", "2"), ("CBA_AGENT_MODULE", "opensc")]).unwrap();
        assert_eq!(config.token[0].slot, Some(1));
        assert_eq!(config.module.as_deref(), Some("opensc"));
    }

    #[test]
    fn only_the_flag_makes_v1_explicit() {
        assert!(resolve(&[("payload-version", "v1")], &[]).unwrap().sign.choice.by_flag);
        assert!(!resolve(&[], &[("CBA_AGENT_PAYLOAD_VERSION", "v1")]).unwrap().sign.choice.by_flag);
    }

    #[test]
    fn fingerprints_are_taken_in_every_form_people_paste() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        for text in [
            plain.clone(),
            colons.clone(),
            format!("sha256 Fingerprint={colons}"),
            format!("SHA256 Fingerprint={colons}\n"),
            format!("SHA256:{plain}"),
        ] {
            assert_eq!(fingerprint(&text).unwrap(), [0xab; 32], "{text}");
        }
        assert!(fingerprint(&plain[2..]).is_err());
    }

    #[test]
    fn an_empty_list_where_one_is_needed_is_refused() {
        let file = crate::config::toml_file::parse("c", "[policy]\nrequire = []\n").unwrap();
        assert_eq!(file["policy.require"].values.len(), 0);
        assert!(resolve(&[], &[("CBA_AGENT_POLICY_REQUIRE", " , ")]).is_err());
    }

    #[test]
    fn no_refused_value_is_repeated() {
        for key in &KEYS {
            if let Err(error) = resolve(&[(key.flag, "SE\u{7}CRET1")], &[]) {
                let text = crate::error::Error::from(error).to_string();
                assert!(!text.contains("CRET1"), "{text}");
                assert!(text.contains(key.flag), "{text}");
            }
        }
    }

    #[test]
    fn the_uris_pin_file_is_used_where_it_takes_precedence() {
        let uri = "pkcs11:token=a?pin-source=file:/etc/pin";
        let config = resolve(&[("uri", uri)], &[("CBA_AGENT_PIN_SOURCE", "prompt")]).unwrap();
        assert_eq!(config.pin, Some(PinSource::File("/etc/pin".into())));
        let config = resolve(&[("uri", uri), ("pin-source", "prompt")], &[]).unwrap();
        assert_eq!(config.pin, Some(PinSource::Prompt));
    }
}
