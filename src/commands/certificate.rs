//! `certificate`: prints the public certificate, for the administrator who registers it.
//!
//! Runs in the parent.

use clap::ArgMatches;
use serde::Serialize;

use super::arguments::{usage, word};
use crate::cba::login_request::SCHEME;
use crate::certificate::{Certificate, CertificateSummary, utc};
use crate::cli;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::identity::{IdentityError, choose_certificate};
use crate::os::clock::now;
use crate::output::{print, print_bytes, print_json, print_report};
use crate::policy::{Breach, CertificateSource, PolicyRefusal};
use crate::session::{Login, TokenSession, read_certificate, report_notices};
use crate::text::hex;
use crate::values::days;
use crate::values::ranges::NOTICE_PERIODS;

#[derive(Clone, Copy, Default)]
enum CertificateFormat {
    #[default]
    Pem,
    Der,
    Text,
    Header,
    Json,
}

const FORMATS: [(&str, CertificateFormat); 5] = [
    ("pem", CertificateFormat::Pem),
    ("der", CertificateFormat::Der),
    ("text", CertificateFormat::Text),
    ("header", CertificateFormat::Header),
    ("json", CertificateFormat::Json),
];

pub(super) fn run(matches: &ArgMatches, config: &Config) -> Result<()> {
    let format = word(matches, "format", &FORMATS)?.unwrap_or_default();
    let within = cli::given(matches, "expires-within").map(|text| NOTICE_PERIODS.parse(text));
    let within = within.transpose().map_err(|wanted| usage("expires-within", &wanted))?;
    let certificate = find(cli::is_given(matches, "login"), config)?;
    match format {
        CertificateFormat::Der => print_bytes(certificate.der())?,
        CertificateFormat::Pem => print(certificate.pem().trim_end())?,
        CertificateFormat::Text => print_report(&text(&certificate))?,
        CertificateFormat::Header => {
            print(&format!("Authorization: {SCHEME} {}", certificate.header_value(config.sign.header_encoding)))?;
        }
        CertificateFormat::Json => print_json(&json(&certificate)?)?,
    }
    within.map_or(Ok(()), |within| check_end(&certificate, within.as_secs()))
}

fn check_end(certificate: &Certificate, within: u64) -> Result<()> {
    let end = utc(certificate.not_after);
    let (message, until_then) = match certificate.not_after.checked_sub(now()) {
        None => (format!("the certificate ended on {end}"), "Anaplan refuses this one"),
        Some(left) if left < within => {
            (format!("the certificate ends in {} ({end})", days(left)), "until then the old one stays in use")
        }
        Some(_) => return Ok(()),
    };
    Err(Error::new(Kind::Invalid, message).hint(format!("order and register a new one; {until_then}")))
}

fn find(with_login: bool, config: &Config) -> Result<Certificate> {
    let login = Login::prepare(config);
    let file = config.certificate_file.as_deref().map(read_certificate).transpose()?;
    if file.is_some() && config.policy.certificate_source == CertificateSource::Token {
        return Err(PolicyRefusal(vec![Breach::FromFile]).into());
    }
    let mut session = TokenSession::open(config, login)?;
    let found = read(&mut session, with_login, file, config);
    session.end(found.as_ref().err());
    found
}

fn read(
    session: &mut TokenSession,
    with_login: bool,
    file: Option<Certificate>,
    config: &Config,
) -> Result<Certificate> {
    if with_login {
        session.log_in(config)?;
    }
    let identity = choose_certificate(&session.slot.objects()?, &config.identity, file, now()).map_err(|error| {
        let is_absent = with_login && matches!(error, IdentityError::NoCertificate);
        let error = Error::from(error);
        let absent = "order one for the token's key, and write it into the token (docs/enrolment.md)";
        if is_absent {
            Error::new(error.kind, error.message).hint(absent)
        } else {
            session.slot.with_whole_commands(error)
        }
    })?;
    report_notices(&identity);
    Ok(identity.certificate)
}

fn text(certificate: &Certificate) -> String {
    let list = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    let mut lines = vec![
        format!("subject     {}", certificate.subject),
        format!("issuer      {}", certificate.issuer),
        format!("serial      {}", certificate.serial),
        format!("e-mail      {}", list(certificate.emails.clone())),
        format!("usages      {}", certificate.extended_key_usage.clone().map_or("not limited".into(), list)),
        format!("key         RSA {}", certificate.bits()),
        format!("valid from  {}", certificate.valid_from),
        format!("valid until {}", certificate.valid_until),
        format!("SHA-256     {}", hex(&certificate.sha256())),
    ];
    lines.extend(certificate.deviations.iter().map(|what| format!("does not follow RFC 5280: {what}")));
    lines.join("\n")
}

fn json(certificate: &Certificate) -> Result<String> {
    #[derive(Serialize)]
    struct CertificateJson<'a> {
        #[serde(flatten)]
        summary: CertificateSummary,
        rsa_bits: usize,
        pem: String,
        deviations: &'a [String],
    }
    let json = CertificateJson {
        summary: certificate.summary(),
        rsa_bits: certificate.bits(),
        pem: certificate.pem(),
        deviations: &certificate.deviations,
    };
    serde_json::to_string(&json).map_err(|error| Error::new(Kind::Unexpected, error.to_string()))
}
