//! Times in certificates: UTCTime and GeneralizedTime (X.680), in the forms that certificates use.
//!
//! PURE. RFC 5280 allows one form of each. Other unambiguous forms are accepted too: without seconds, with a fraction, with an offset from
//! UTC. A time without a zone is ambiguous, and is refused.

use super::ber::{BerError, Element, GENERALIZED_TIME, UTC_TIME};

const DAY: i64 = 86_400;

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
        let year_digits = match element.tag {
            UTC_TIME => 2,
            GENERALIZED_TIME => 4,
            found => return Err(BerError::Type { found, wanted: UTC_TIME }),
        };
        parse(element.content, year_digits).ok_or(BerError::Value("it is not a time"))
    }
}

/// A time in seconds of Unix time as RFC 3339 in UTC.
#[must_use]
pub fn utc(seconds: u64) -> String {
    i64::try_from(seconds).map_or_else(|_| format!("{seconds} s after 1970"), text)
}

/// The same for times before 1970.
pub(super) fn text(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let Some((year, month, day)) = civil(days) else { return format!("{seconds} s after 1970") };
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

fn parse(text: &[u8], year_digits: usize) -> Option<Time> {
    let (year, rest) = digits(text, year_digits)?;
    let year = if year_digits == 2 { if year < 50 { 2000 + year } else { 1900 + year } } else { year };
    let (month, rest) = digits(rest, 2)?;
    let (day, rest) = digits(rest, 2)?;
    let (hour, rest) = digits(rest, 2)?;
    let (minute, rest) = digits(rest, 2)?;
    let (second, rest) = digits(rest, 2).unwrap_or((0, rest));
    let has_seconds = rest.len() + year_digits + 10 == text.len();
    let (has_fraction, rest) = match rest {
        [b'.' | b',', rest @ ..] if has_seconds && year_digits == 4 => {
            let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            (true, rest.get(count..).filter(|_| count > 0)?)
        }
        rest => (false, rest),
    };
    let offset = match rest {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let (hours, rest) = digits(rest, 2)?;
            let (minutes, rest) = digits(rest, 2)?;
            if !rest.is_empty() || hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'+' { 1 } else { -1 }
        }
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_from_civil(year, month, day)?;
    let is_plain = has_seconds && !has_fraction && rest == b"Z" && (year_digits == 2 || !(1950..2050).contains(&year));
    Some(Time { seconds: days * DAY + hour * 3600 + minute * 60 + second - offset, is_plain })
}

fn digits(text: &[u8], count: usize) -> Option<(i64, &[u8])> {
    let (number, rest) = text.split_at_checked(count)?;
    let value =
        number.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')));
    Some((value?, rest))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> Option<i64> {
    match month {
        2 => Some(if is_leap(year) { 29 } else { 28 }),
        4 | 6 | 9 | 11 => Some(30),
        1..=12 => Some(31),
        _ => None,
    }
}

/// Days from the beginning of the year 0 to the beginning of a year.
fn days_before(year: i64) -> i64 {
    let past = year - 1;
    year * 365 + past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400) + 1
}

/// Days of Unix time in the Gregorian calendar; `None` for an invalid date.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=days_in(year, month)?).contains(&day) {
        return None;
    }
    let months: i64 = (1..month).filter_map(|month| days_in(year, month)).sum();
    Some(days_before(year) - days_before(1970) + months + day - 1)
}

/// Year, month and day; `None` after the year 9999.
fn civil(days: i64) -> Option<(i64, i64, i64)> {
    let days = days.checked_add(days_before(1970))?;
    let guess = days.div_euclid(366);
    let year = (guess..=guess.checked_add(30)?).find(|year| days < days_before(year + 1))?;
    if !(0..=9999).contains(&year) {
        return None;
    }
    let mut day = days - days_before(year);
    let month = (1..=12).find(|month| {
        let length = days_in(year, *month).unwrap_or_default();
        let is_here = day < length;
        day -= if is_here { 0 } else { length };
        is_here
    })?;
    Some((year, month, day + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<(String, bool)> {
        let year_digits = if text.find(['Z', '+', '-', '.']).unwrap_or(text.len()) >= 14 { 4 } else { 2 };
        parse(text.as_bytes(), year_digits).map(|time| (super::text(time.seconds), time.is_plain))
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
        fn times_are_printed_as_humantime_prints_them(seconds in 0_u64..253_402_300_800) {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            prop_assert_eq!(utc(seconds), humantime::format_rfc3339_seconds(time).to_string());
        }

        #[test]
        fn days_are_those_of_the_calendar(days in -719_528_i64..2_932_896) {
            let (year, month, day) = civil(days).unwrap();
            prop_assert_eq!(days_from_civil(year, month, day), Some(days));
        }

        #[test]
        fn nothing_makes_it_panic(text: Vec<u8>, seconds: i64, digits in 0_usize..5) {
            let _ = (parse(&text, digits), super::text(seconds));
        }
    }
}
