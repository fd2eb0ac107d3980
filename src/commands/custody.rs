//! `custody`: a report about the key and its permitted uses, checked against the policy.
//!
//! Runs in the parent.

use std::io::{IsTerminal as _, stdout};

use clap::ArgMatches;

use super::arguments::word;
use super::input::read_roots;
use crate::certificate::Certificate;
use crate::certificate::chain::Roots;
use crate::cli;
use crate::config::Config;
use crate::custody::{Criteria, Evidence, Report, TrustedRoots, html, text};
use crate::error::{Error, Kind, Result};
use crate::modules;
use crate::os::clock::now;
use crate::output::{print, print_json, print_report};
use crate::policy;
use crate::session::{Login, TokenSession, evidence, read_certificate};
use crate::signer::first_mechanism;

#[derive(Clone, Copy, Default)]
enum ReportFormat {
    #[default]
    Text,
    Json,
    Html,
}

const FORMATS: [(&str, ReportFormat); 3] =
    [("text", ReportFormat::Text), ("json", ReportFormat::Json), ("html", ReportFormat::Html)];

pub(super) fn run(matches: &ArgMatches, config: &Config) -> Result<()> {
    let format = word(matches, "format", &FORMATS)?.unwrap_or_default();
    let roots = |flag| -> Result<Option<Roots>> { cli::given(matches, flag).map(read_roots).transpose() };
    let trusted_roots = TrustedRoots { roots: roots("roots")?, attestation_roots: roots("attestation-roots")? };
    let evidence = collect(config)?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let criteria = Criteria {
        policy: &config.policy,
        sources: config.policy_sources(),
        choice: config.sign.choice,
        trusted_roots: &trusted_roots,
        now: now(),
        host,
    };
    let report = Report::new(&evidence, &criteria);
    match format {
        ReportFormat::Text => print_report(&text::text(&report, width()))?,
        ReportFormat::Json => {
            let json = serde_json::to_string_pretty(&report);
            print_json(&json.map_err(|error| Error::new(Kind::Unexpected, error.to_string()))?)?;
        }
        ReportFormat::Html => print(html::html(&report).trim_end())?,
    }
    match report.refusals() {
        [] => Ok(()),
        refusals => {
            let error = Error::new(Kind::Invalid, format!("custody refused: {}", refusals.join("; ")));
            let error = report.hints().iter().fold(error, Error::hint);
            Err(error.hint("the report shows the requirement of each rule; the [policy] table sets them"))
        }
    }
}

/// The width of the terminal; unlimited if the output is not a terminal.
fn width() -> Option<u16> {
    let size = || rustix::termios::tcgetwinsize(stdout()).ok().map(|size| size.ws_col);
    stdout().is_terminal().then(size).flatten().filter(|columns| *columns > 0)
}

fn collect(config: &Config) -> Result<Evidence> {
    let login = Login::prepare(config);
    let file = config.certificate_file.as_deref().map(read_certificate).transpose()?;
    let mut session = TokenSession::open(config, login)?;
    let collected = read(&mut session, file, config);
    session.end(collected.as_ref().err());
    collected
}

fn read(session: &mut TokenSession, file: Option<Certificate>, config: &Config) -> Result<Evidence> {
    let known = session.slot.evidence(modules::sha256(&session.slot.module.path));
    if policy::decide_token(&config.policy, known.token.as_ref()).allowed().is_err() {
        // The policy does not allow this token, so it gets no PIN.
        return Ok(known);
    }
    let mechanism = first_mechanism(&session.slot)?;
    session.log_in(config)?;
    let slot_session = &mut session.slot;
    let identity = slot_session.identity(config, file)?;
    let description = slot_session.describe(&identity)?;
    let key_evidence = evidence::key_evidence(&identity, mechanism, description);
    // The PIN's flags after the login.
    slot_session.read_slot_again(false)?;
    Ok(Evidence { token: slot_session.slot.token.clone(), key: Some(key_evidence), ..known })
}
