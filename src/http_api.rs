//! The body of `POST /sign`.
//!
//! PURE. It has two members with fixed forms. It has no field for bytes to be signed.

use serde::{Deserialize, Deserializer};

use crate::cba::Version;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignRequestBody {
    #[serde(default, deserialize_with = "present")]
    payload_version: Option<String>,
    #[serde(default, deserialize_with = "present")]
    job: Option<String>,
}

/// `null` does not count as absent.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    String::deserialize(value).map(Some)
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SignRequest {
    /// The payload version, if the client names one.
    pub version: Option<Version>,
    /// The caller's name for its job.
    pub job: Option<String>,
}

impl SignRequest {
    /// Parses a body.
    ///
    /// # Errors
    /// The expected form.
    pub(crate) fn from_json(body: &[u8]) -> Result<Self, &'static str> {
        const WANTED: &str =
            "the body must be a JSON object with no members except payload_version (\"v2\" or \"v1\") and job, as {}";
        // The parser would also accept an array.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(WANTED);
        }
        let SignRequestBody { payload_version, job } = serde_json::from_slice(body).map_err(|_| WANTED)?;
        let version = match payload_version.as_deref() {
            None => None,
            Some("v2") => Some(Version::V2),
            Some("v1") => Some(Version::V1),
            Some(_) => return Err("payload_version must be \"v2\" or \"v1\""),
        };
        if job.as_deref().is_some_and(|job| !is_job(job)) {
            return Err("job must be 1 to 64 letters, digits and . _ : / -");
        }
        Ok(Self { version, job })
    }
}

/// Whether a job name is valid: 1 to 64 letters, digits and `. _ : / -`.
#[must_use]
pub(crate) fn is_job(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_a_version_and_a_job_or_neither() {
        let asked = |version, job: Option<&str>| Ok(SignRequest { version, job: job.map(str::to_owned) });
        for (body, wanted) in [
            ("{}", asked(None, None)),
            (" \n{ }", asked(None, None)),
            (r#"{"payload_version":"v2"}"#, asked(Some(Version::V2), None)),
            (r#"{"payload_version":"v1","job":"a.b/C_1:-"}"#, asked(Some(Version::V1), Some("a.b/C_1:-"))),
        ] {
            assert_eq!(SignRequest::from_json(body.as_bytes()), wanted, "{body}");
        }
    }

    #[test]
    fn every_other_body_is_refused_with_the_expected_form() {
        for (body, words) in [
            ("", "a JSON object"),
            ("[]", "a JSON object"),
            ("[null,null]", "a JSON object"),
            ("null", "a JSON object"),
            ("{", "a JSON object"),
            (r#"{"message":"AAAA"}"#, "a JSON object"),
            (r#"{"payload_version":null}"#, "a JSON object"),
            (r#"{"job":null}"#, "a JSON object"),
            (r#"{"job":1}"#, "a JSON object"),
            (r#"{"payload_version":"v3"}"#, "payload_version"),
            (r#"{"payload_version":""}"#, "payload_version"),
            (r#"{"job":""}"#, "job must be"),
            (r#"{"job":"a b"}"#, "job must be"),
        ] {
            let error = SignRequest::from_json(body.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{body}: {error}");
        }
    }

    #[test]
    fn a_job_name_has_1_to_64_plain_characters() {
        for (name, wanted) in [("", false), ("a", true), ("._:/-", true), ("a;b", false), ("ä", false), ("a\n", false)]
        {
            assert_eq!(is_job(name), wanted, "{name:?}");
        }
        assert!(is_job(&"x".repeat(64)) && !is_job(&"x".repeat(65)));
    }
}
