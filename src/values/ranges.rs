//! Numbers and durations with their minimum and maximum.
//!
//! PURE. Without a maximum, a value would overflow a clock or a buffer later and end the program.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::Parsed;

/// The range of a duration, as parsed and as shown in errors.
#[derive(Clone, Copy, Debug)]
pub struct Durations {
    least: Duration,
    greatest: Duration,
    wanted: &'static str,
    /// Whether a number without a unit means seconds, as in systemd and OpenSSH.
    takes_seconds: bool,
}

const DAY: u64 = 86_400;

/// Time limits of a call, a request or a command.
pub const TIMEOUTS: Durations = Durations {
    least: Duration::from_millis(1),
    greatest: Duration::from_secs(DAY),
    wanted: "must be a duration from 1ms to 1d, such as 30s or 5m",
    takes_seconds: true,
};

/// Maximum ages of a payload.
pub(crate) const AGES: Durations = Durations {
    least: Duration::ZERO,
    greatest: Duration::from_secs(36_500 * DAY),
    wanted: "must be a duration from 0s to 36500d, such as 300s",
    takes_seconds: true,
};

/// Notice periods before a certificate expires.
pub(crate) const NOTICE_PERIODS: Durations = Durations {
    least: Duration::ZERO,
    greatest: Duration::from_secs(36_500 * DAY),
    wanted: "must be a duration from 0s to 36500d, such as 30d",
    takes_seconds: false,
};

impl Durations {
    /// Parses a duration such as `30s`, `5m` or `30d`.
    ///
    /// # Errors
    /// The expected form.
    pub fn parse(self, text: &str) -> Parsed<Duration> {
        let seconds = text.parse().ok().map(Duration::from_secs).filter(|_| self.takes_seconds);
        let time = seconds.or_else(|| humantime::parse_duration(text).ok());
        time.filter(|time| (self.least..=self.greatest).contains(time)).ok_or_else(|| self.wanted.into())
    }
}

/// Parses a whole number within a range.
pub(crate) fn number<N: FromStr + PartialOrd + Display>(range: RangeInclusive<N>) -> impl Fn(&str) -> Parsed<N> {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{ConfigKey, KEYS, Shape};
    use crate::config::{Config, ConfigError, Settings};

    /// Every key with a number or a duration, with its minimum and maximum.
    const KEYS_AND_RANGES: [(&str, &str, &str); 11] = [
        ("token.slot", "0", "65535"),
        ("token.slot_id", "0", "18446744073709551615"),
        ("sign.timeout", "1ms", "1d"),
        ("sign.warn_before", "0s", "36500d"),
        ("serve.workers", "1", "64"),
        ("serve.queue", "1", "65536"),
        ("serve.call_timeout", "1ms", "1d"),
        ("serve.request_timeout", "1ms", "1d"),
        ("serve.rate_limit_per_second", "1", "1000000"),
        ("serve.total_rate_limit_per_second", "1", "20000000"),
        ("policy.min_rsa_bits", "2048", "8192"),
    ];

    const NEVER: [&str; 14] = [
        "-1",
        "-1s",
        "18446744073709551616",
        "18446744073709551615s",
        "18446744073709551616s",
        "584942417355y",
        "99999999999999999999999999999999",
        "1e400",
        "NaN",
        "inf",
        "",
        " ",
        "0x",
        "1d 18446744073709551615s",
    ];

    fn by_flag(key: &ConfigKey, value: &str) -> Result<Config, ConfigError> {
        let flag = |other: &ConfigKey| (other.path == key.path).then(|| vec![value.to_owned()]);
        Config::resolve(&Settings::gather(None, |_| None, flag)?, false)
    }

    fn by_variable(key: &ConfigKey, value: &str) -> Result<Config, ConfigError> {
        let variable = |name: &str| (name == key.variable()).then(|| value.into());
        Config::resolve(&Settings::gather(None, variable, |_| None)?, false)
    }

    fn by_file(key: &ConfigKey, value: &str) -> Result<Config, ConfigError> {
        let (table, name) = key.path.split_once('.').unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("[{table}]\n{name} = {value}\n")).unwrap();
        Config::resolve(&Settings::gather(Some(file.path().as_os_str()), |_| None, |_| None)?, false)
    }

    #[test]
    fn every_number_and_duration_has_a_range_which_its_error_names() {
        let is_bounded = |key: &&ConfigKey| key.shape == Shape::Number || key.value == "DURATION";
        let keys: Vec<&ConfigKey> = KEYS.iter().filter(is_bounded).collect();
        assert_eq!(keys.len(), KEYS_AND_RANGES.len());
        for key in keys {
            let (_, least, greatest) = KEYS_AND_RANGES.iter().find(|(path, ..)| *path == key.path).expect(key.path);
            for value in [least, greatest] {
                assert!(by_flag(key, value).is_ok() && by_variable(key, value).is_ok(), "{} = {value}", key.path);
            }
            let outside = [("1d", "86400001ms"), ("36500d", "36501d"), ("1ms", "1us"), ("1ms", "0s"), ("1", "0")];
            let outside = outside.iter().filter(|(end, _)| end == greatest || end == least).map(|(_, value)| *value);
            let beyond = greatest.parse::<u128>().map(|greatest| (greatest + 1).to_string()).unwrap_or_default();
            for value in NEVER.into_iter().chain(outside).chain([beyond.as_str()]) {
                // An empty variable counts as unset, and a space in a variable is a separate error.
                let tried = [Some(by_flag(key, value)), (!value.trim().is_empty()).then(|| by_variable(key, value))];
                let in_file = [Some(by_file(key, &format!("\"{value}\"")))];
                for error in tried.into_iter().chain(in_file).flatten().map(Result::err) {
                    let error = error.unwrap_or_else(|| panic!("{} = {value:?} is taken", key.path));
                    let error = crate::error::Error::from(error);
                    assert_eq!(error.kind.exit_code(), 2);
                    assert!(error.message.contains(&format!("from {least} to {greatest}")), "{value:?}: {error}");
                }
                // Without quotes it must be a TOML number.
                assert_eq!(
                    by_file(key, value).map_err(|error| crate::error::Error::from(error).kind.exit_code()).err(),
                    Some(2)
                );
            }
        }
    }

    #[test]
    fn a_bare_number_is_one_of_seconds_where_that_is_usual() {
        assert_eq!(TIMEOUTS.parse("30"), Ok(Duration::from_secs(30)));
        assert_eq!(AGES.parse("0"), Ok(Duration::ZERO));
        assert!(NOTICE_PERIODS.parse("30").is_err());
    }
}
