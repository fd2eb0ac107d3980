//! `verify`: checks a request offline, as the service would.
//!
//! Runs in the parent.

use clap::ArgMatches;

use super::arguments::usage;
use super::input::{STDIN, empty_stdin, plain_text, read, read_file, read_roots, stdin};
use crate::cba::received::Received;
use crate::cba::verify::Freshness;
use crate::cba::{self, Version, message};
use crate::certificate::chain::Roots;
use crate::certificate::{HeaderEncoding, utc};
use crate::cli;
use crate::config::Config;
use crate::error::{Error, Explain as _, Kind, Result};
use crate::os::clock::now;
use crate::output::print_report;
use crate::policy::{self, Breach, PayloadChoice, PolicyRefusal};
use crate::text::hex;
use crate::values::ranges::AGES;

/// The number of seconds that a host's clock may be ahead of this one.
const MAX_AHEAD: u64 = 60;

pub(super) fn run(matches: &ArgMatches, config: &Config) -> Result<()> {
    let max_age = cli::given(matches, "max-age").map(|text| AGES.parse(text));
    let max_age = max_age.transpose().map_err(|wanted| usage("max-age", &wanted))?;
    let roots = cli::given(matches, "roots").map(read_roots).transpose()?;
    let received = receive(cli::given(matches, "header"), cli::given(matches, "body"))?;
    let freshness = Freshness { now: now(), max_age: max_age.map_or(300, |age| age.as_secs()), max_ahead: MAX_AHEAD };
    check(&received, freshness, roots.as_ref(), config)
}

fn check(received: &Received, freshness: Freshness, roots: Option<&Roots>, config: &Config) -> Result<()> {
    let Received { version, certificate, .. } = received;
    // An existing request needs no option of `sign` for v1.
    let choice = PayloadChoice { version: *version, by_flag: true };
    policy::decide_version(&config.policy, choice).allowed().map_err(refused)?;
    cba::verify(*version, received.payload(), certificate, freshness)
        .map_err(|violation| invalid(violation.to_string()))?;
    let decision = policy::decide_certificate(&config.policy, certificate, freshness.now);
    let warnings = decision.allowed().map_err(refused)?;
    if let Some(roots) = roots {
        roots.check(certificate, &[], freshness.now).map_err(|error| invalid(error.to_string()))?;
    }
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let made = message::time_of(&received.message).filter(|_| *version == Version::V2);
    let made = made.map_or("no time: it can be replayed".into(), |time| format!("made {}", utc(time)));
    let form = match received.encoding {
        HeaderEncoding::Der => "in the header as DER",
        HeaderEncoding::Pem => "in the header as PEM",
    };
    print_report(
        &[
            format!("valid: {version}, {made}"),
            format!("certificate: {}, until {}, {form}", certificate.subject, utc(certificate.not_after)),
            format!("SHA-256: {}", hex(&certificate.sha256())),
            format!("sent to: {}", received.url.as_deref().unwrap_or("not checked (no URL)")),
            format!("chain: {}", if roots.is_some() { "chains to the roots" } else { "not checked (no --roots)" }),
            "not checked here: whether the certificate is registered and enabled, whether its e-mail address belongs to a user of the tenant, revocation, network rules, and whether the message was used"
                .into(),
        ]
        .join("\n"),
    )
}

fn refused(refused: PolicyRefusal) -> Error {
    let reasons: Vec<String> = refused.0.iter().map(Breach::reason).collect();
    refused.hints().into_iter().fold(invalid(reasons.join("; ")), Error::hint)
}

fn invalid(what: String) -> Error {
    Error::new(Kind::Invalid, format!("invalid: {what}"))
}

fn receive(header: Option<&str>, body: Option<&str>) -> Result<Received> {
    let received = match (header, body) {
        (None, None) => {
            let bytes = read(STDIN, stdin()?)?;
            if bytes.trim_ascii().is_empty() {
                return Err(empty_stdin(Kind::Invalid).context("invalid"));
            }
            let text = plain_text(bytes)?;
            if let Some(format) = other_format(&text) {
                return Err(invalid(format!("this is the {format} format of sign, and verify reads the json format"))
                    .hint(ANOTHER_FORMAT));
            }
            Received::from_json(&text)
        }
        (Some(header), Some(body)) => {
            let header = read_not_empty(header)?;
            Received::from_parts(&String::from_utf8_lossy(&header), &read_not_empty(body)?)
        }
        _ => return Err(usage("header", "goes together with --body")),
    };
    received.map_err(|error| Error::from(error).context("invalid"))
}

const ANOTHER_FORMAT: &str = "make the request with `cba-agent sign --format json`, or give the formats header and body as files: --header FILE --body FILE";

/// The format of `sign` in which a request is, if it is another one than `json`.
fn other_format(text: &[u8]) -> Option<&'static str> {
    let begins = |start: &str| text.trim_ascii_start().starts_with(start.as_bytes());
    let starts: [(&str, &str); 5] = [
        ("Authorization:", "header"),
        ("{\"encodedData", "body"),
        ("url = ", "curl"),
        ("CBA_URL=", "env"),
        ("<!DOCTYPE html>", "html"),
    ];
    starts.into_iter().find(|(start, _)| begins(start)).map(|(_, format)| format)
}

fn read_not_empty(path: &str) -> Result<Vec<u8>> {
    let bytes = read_file(path)?;
    if bytes.trim_ascii().is_empty() { Err(invalid(format!("{path} is empty"))) } else { Ok(bytes) }
}
