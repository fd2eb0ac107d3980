//! Times in certificates: UTCTime and GeneralizedTime (X.680), in the forms that certificates use.
//!
//! PURE. RFC 5280 allows one form of each. Other unambiguous forms are accepted too: without seconds, with a fraction, with an offset from
//! UTC. A time without a zone is ambiguous, and is refused.

use std::time::Duration;

use der::DateTime;

use super::ber::{BerError, Element, GENERALIZED_TIME, UTC_TIME};

/// The library's calendar begins in 1970. An earlier time is computed from the time 2000 years later: the calendar
/// repeats after 400 years.
const SHIFT_YEARS: u16 = 2000;
const SHIFT_SECONDS: i64 = 5 * 146_097 * 86_400;

/// From this year on RFC 5280 requires GeneralizedTime.
const FIRST_GENERALIZED_YEAR: u16 = 2050;

/// A time in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    /// Seconds of Unix time; negative before 1970. A fraction is cut off.
    pub(super) seconds: i64,
    /// Whether it has the only form that RFC 5280 allows for its year (section 4.1.2.5).
    pub(super) is_plain: bool,
}

impl Time {
    pub(super) fn read(element: Element<'_>) -> Result<Self, BerError> {
        match element.tag {
            tag @ (UTC_TIME | GENERALIZED_TIME) => {
                parse(element.content, tag == GENERALIZED_TIME).ok_or(BerError::Value("it is not a time"))
            }
            found => Err(BerError::Type { found, wanted: UTC_TIME }),
        }
    }
}

/// A time in seconds of Unix time as RFC 3339 in UTC.
#[must_use]
pub fn utc(seconds: u64) -> String {
    i64::try_from(seconds).map_or_else(|_| format!("{seconds} s after 1970"), text)
}

/// The same for times before 1970.
pub(super) fn text(seconds: i64) -> String {
    let (years, shift) = if seconds < 0 { (SHIFT_YEARS, SHIFT_SECONDS) } else { (0, 0) };
    let shifted = u64::try_from(seconds + shift).ok();
    let time = shifted.and_then(|seconds| DateTime::from_unix_duration(Duration::from_secs(seconds)).ok());
    let year = time.and_then(|time| time.year().checked_sub(years));
    match (year, time) {
        (Some(year), Some(time)) => format!("{year:04}{}", &time.to_string()[4..]),
        _ => format!("{seconds} s after 1970"),
    }
}

fn seconds(time: DateTime) -> i64 {
    i64::try_from(time.unix_duration().as_secs()).unwrap_or(i64::MAX)
}

fn parse(text: &[u8], is_generalized: bool) -> Option<Time> {
    let mut rest = text;
    let mut next = || {
        let (number, after) = two_digits(rest)?;
        rest = after;
        Some(number)
    };
    let century = if is_generalized { Some(next()?) } else { None };
    let year = match (century, u16::from(next()?)) {
        (Some(century), year) => u16::from(century) * 100 + year,
        (None, year @ 0..50) => 2000 + year,
        (None, year) => 1900 + year,
    };
    let (month, day, hour, minute) = (next()?, next()?, next()?, next()?);
    let second = next();
    let has_fraction = is_generalized && second.is_some() && matches!(rest, [b'.' | b',', b'0'..=b'9', ..]);
    if has_fraction {
        let digits = rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest = &rest[1 + digits..];
    }
    let is_standard_year = !is_generalized || !(1950..FIRST_GENERALIZED_YEAR).contains(&year);
    let is_plain = second.is_some() && !has_fraction && rest == b"Z" && is_standard_year;
    let (years, shift) = if year < 1970 { (SHIFT_YEARS, SHIFT_SECONDS) } else { (0, 0) };
    let time = DateTime::new(year + years, month, day, hour, minute, second.unwrap_or(0)).ok()?;
    Some(Time { seconds: seconds(time) - shift - offset(rest)?, is_plain })
}

/// The zone at the end of a time, in seconds east of UTC.
fn offset(text: &[u8]) -> Option<i64> {
    let (sign, rest) = match text {
        b"Z" => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, rest) = two_digits(rest)?;
    let (minutes, rest) = two_digits(rest)?;
    let is_zone = rest.is_empty() && hours < 24 && minutes < 60;
    is_zone.then(|| sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60))
}

fn two_digits(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] => Some(((tens - b'0') * 10 + ones - b'0', rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use der::Decode as _;
    use proptest::prelude::*;
    use x509_cert::time::Time as StandardTime;

    use super::*;

    fn read(text: &str) -> Option<(String, bool)> {
        let is_generalized = text.find(['Z', '+', '-', '.']).unwrap_or(text.len()) >= 14;
        let tag = if is_generalized { GENERALIZED_TIME } else { UTC_TIME };
        let value = [&[tag, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let read = Time::read(Element::first(&value).unwrap()).ok();
        // The library x509-cert reads fewer forms, with the same result.
        if let Ok(time) = StandardTime::from_der(&value) {
            assert_eq!(read.map(|read| read.seconds), Some(seconds(time.to_date_time())), "{text}");
        }
        read.map(|time| (super::text(time.seconds), time.is_plain))
    }

    #[test]
    fn every_unambiguous_form_is_read_and_one_is_plain() {
        for (text, wanted, is_plain) in [
            ("250624034706Z", "2025-06-24T03:47:06Z", true),
            ("500101000000Z", "1950-01-01T00:00:00Z", true),
            ("20500101000000Z", "2050-01-01T00:00:00Z", true),
            ("99991231235959Z", "9999-12-31T23:59:59Z", true),
            ("19491231235959Z", "1949-12-31T23:59:59Z", true),
            ("00000101000000Z", "0000-01-01T00:00:00Z", true),
            ("20250624034706Z", "2025-06-24T03:47:06Z", false),
            ("20500101000000.75Z", "2050-01-01T00:00:00Z", false),
            ("20500101000000,7Z", "2050-01-01T00:00:00Z", false),
            ("2506240347Z", "2025-06-24T03:47:00Z", false),
            ("250624034706+0130", "2025-06-24T02:17:06Z", false),
            ("20501231230000-0130", "2051-01-01T00:30:00Z", false),
            ("240229000000Z", "2024-02-29T00:00:00Z", true),
        ] {
            assert_eq!(read(text), Some((wanted.to_owned(), is_plain)), "{text}");
        }
    }

    #[test]
    fn a_time_without_zone_or_an_invalid_time_is_refused() {
        for text in [
            "",
            "Z",
            "250624034706",
            "251324034706Z",
            "250230000000Z",
            "250600000000Z",
            "250624240000Z",
            "250624036006Z",
            "250624034760Z",
            "250624034706z",
            "250624034706+01",
            "250624034706+2400",
            "250624034706.5Z",
            "20500101000000.Z",
            "25O624034706Z",
            "250624034706ZZ",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_are_printed_as_humantime_prints_them_and_read_again(seconds in 0_u64..253_402_300_800) {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let shown = utc(seconds);
            prop_assert_eq!(&shown, &humantime::format_rfc3339_seconds(time).to_string());
            let generalized = shown.replace(['-', 'T', ':'], "");
            prop_assert_eq!(read(&generalized).unwrap().0, shown);
        }

        #[test]
        fn nothing_makes_it_panic(text: Vec<u8>, seconds: i64, is_generalized: bool) {
            let _ = (parse(&text, is_generalized), super::text(seconds));
        }
    }
}
