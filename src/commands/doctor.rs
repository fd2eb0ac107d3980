//! `doctor`: checks a host in the order in which a newcomer meets problems. Each failed check names a command that helps.
//!
//! Runs in the parent. It sends no PIN unless the user asks for a trial payload.

use clap::ArgMatches;
use serde::Serialize;

use super::complete_hints;
use super::sign::two_tokens;
use crate::cli;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::output::{print_json, print_report};
use crate::session::Login;
use crate::text::printable;

mod agent;
mod certificate;
mod host;
mod key;
mod p11_kit;
mod pcscd;
mod token;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum CheckVerdict {
    Ok,
    Warning,
    Failed,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct CheckResult {
    check: &'static str,
    verdict: CheckVerdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// All lines of the report.
#[derive(Debug, Default)]
struct Findings(Vec<CheckResult>);

impl Findings {
    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.0.push(CheckResult { check, verdict: CheckVerdict::Ok, found: found.into(), remedy: None });
    }

    fn warn(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(CheckResult {
            check,
            verdict: CheckVerdict::Warning,
            found: found.into(),
            remedy: Some(remedy.into()),
        });
    }

    fn fail(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(CheckResult {
            check,
            verdict: CheckVerdict::Failed,
            found: found.into(),
            remedy: Some(remedy.into()),
        });
    }

    fn error(&mut self, check: &'static str, error: &Error) {
        let remedy = error.hints.first().cloned().unwrap_or_else(|| error.kind.usual_hint().into());
        self.fail(check, error.message.clone(), remedy);
    }

    /// Adds an error after which no further check is possible.
    fn end<T>(&mut self, check: &'static str, error: &Error) -> Option<T> {
        self.error(check, error);
        None
    }

    /// Prints the report. Returns an error if a check failed.
    fn say(mut self, matches: &ArgMatches) -> Result<()> {
        for check in &mut self.0 {
            check.remedy = check.remedy.as_ref().map(|remedy| complete_hints::in_hint(remedy, "doctor", Some(matches)));
        }
        let failed = self.0.iter().filter(|check| check.verdict == CheckVerdict::Failed).count();
        if cli::is_given(matches, "json") {
            print_json(&serde_json::json!({ "ready": failed == 0, "checks": self.0 }).to_string())?;
        } else {
            print_report(&self.0.iter().flat_map(lines).collect::<Vec<_>>().join("\n"))?;
        }
        if failed > 0 {
            return Err(Error::new(Kind::Invalid, format!("{failed} of {} checks failed", self.0.len()))
                .hint("each failed line names its remedy"));
        }
        Ok(())
    }
}

pub(super) fn run(matches: &ArgMatches, config: &Config) -> Result<()> {
    let mut findings = Findings::default();
    if let Some(path) = cli::given(matches, "certificate") {
        certificate::check(path, config, &mut findings)?;
        return findings.say(matches);
    }
    if asks_an_agent(matches, config)? {
        host::configuration(config, &mut findings);
        host::unknown_variables(&config.pin_variables, &mut findings);
        agent::check(config, cli::is_given(matches, "sign"), &mut findings);
        return findings.say(matches);
    }
    // Before any file is opened: a PIN may come from a descriptor.
    let login = cli::is_given(matches, "sign").then(|| Login::prepare(config));
    host::configuration(config, &mut findings);
    host::unknown_variables(&config.pin_variables, &mut findings);
    host::environment(&mut findings);
    token::check(config, login, &mut findings);
    host::clock(&mut findings);
    host::state(config, &mut findings);
    host::audit_log(config, &mut findings);
    host::agents(config, &mut findings);
    findings.say(matches)
}

/// Whether to check an agent instead of a token: with `--socket`, or if the configuration names an agent to ask and
/// neither a token nor a service of this host.
fn asks_an_agent(matches: &ArgMatches, config: &Config) -> Result<bool> {
    let own_token = cli::token_flag(matches);
    if cli::has_flag(matches, "sign.socket") {
        return own_token.map_or(Ok(true), |flag| Err(two_tokens(flag)));
    }
    let has_token = own_token.is_some() || config.module.is_some() || !config.token.is_empty();
    Ok(!config.sign.sockets.is_empty() && !has_token && config.serve.socket.is_none())
}

/// The report for a configuration that cannot be used.
pub(super) fn without_configuration(matches: &ArgMatches, error: &Error) -> Result<()> {
    let mut findings = Findings::default();
    findings.error("configuration", error);
    host::unknown_variables(&[], &mut findings);
    host::environment(&mut findings);
    host::clock(&mut findings);
    findings.say(matches)
}

fn lines(check: &CheckResult) -> Vec<String> {
    let word = match check.verdict {
        CheckVerdict::Ok => "ok",
        CheckVerdict::Warning => "warning",
        CheckVerdict::Failed => "failed",
    };
    let line = printable(&format!("{word:<8} {:<16} {}", check.check, check.found));
    let remedy = check.remedy.as_ref().map(|remedy| printable(&format!("{:<25} fix: {remedy}", "")));
    std::iter::once(line).chain(remedy).collect()
}
