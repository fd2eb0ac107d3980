//! The body of `POST /sign`.
//!
//! PURE. It has two members with fixed forms. It has no field for bytes to be signed.

use serde::{Deserialize, Deserializer};

use crate::cba::Version;

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default, deserialize_with = "present")]
    payload_version: Option<String>,
    #[serde(default, deserialize_with = "present")]
    job: Option<String>,
}

/// `null` does not count as absent.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    String::deserialize(value).map(Some)
}

/// The request of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The payload version, if the client names one.
    pub version: Option<Version>,
    /// The caller's name for its job.
    pub job: Option<String>,
}

impl Asked {
    /// Parses a body.
    ///
    /// # Errors
    /// The expected form.
    pub fn from_json(body: &[u8]) -> Result<Self, &'static str> {
        const WANTED: &str =
            "the body must be a JSON object with no members except payload_version (\"v2\" or \"v1\") and job, as {}";
        // The parser would also accept an array.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(WANTED);
        }
        let Body { payload_version, job } = serde_json::from_slice(body).map_err(|_| WANTED)?;
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
pub fn is_job(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}
