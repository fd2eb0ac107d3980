//! `sign`: prints one login request, made by a token or by a running agent.
//!
//! Runs in the parent.

use std::path::Path;

use clap::ArgMatches;

use super::arguments::{usage, word};
use crate::audit::AuditLog;
use crate::audit::record::Caller;
use crate::cba::login_page::page;
use crate::cba::received::Received;
use crate::cba::verify::Freshness;
use crate::cba::{LoginRequest, RequestFormat, Version};
use crate::certificate::Certificate;
use crate::cli;
use crate::client;
use crate::config::{Config, Sign};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::http_api::is_job;
use crate::os::clock::now;
use crate::output::print;
use crate::payload_check::{self, CLOCK_TOLERANCE};
use crate::policy;
use crate::session::{self, Login, TokenSession, read_certificate, warn_before_end};
use crate::signer;
use crate::worker_handle::PrestartedWorker;

#[derive(Clone, Copy)]
enum OutputForm {
    /// The request, for programs.
    Plain(RequestFormat),
    /// An HTML page, for people.
    Page,
}

const FORMS: [(&str, OutputForm); 6] = [
    ("json", OutputForm::Plain(RequestFormat::Json)),
    ("body", OutputForm::Plain(RequestFormat::Body)),
    ("header", OutputForm::Plain(RequestFormat::Header)),
    ("curl", OutputForm::Plain(RequestFormat::Curl)),
    ("env", OutputForm::Plain(RequestFormat::Env)),
    ("html", OutputForm::Page),
];

pub(super) fn run(matches: &ArgMatches, config: &Config, prestarted: Option<PrestartedWorker>) -> Result<()> {
    let form = form(matches)?;
    let job = cli::given(matches, "job");
    if job.is_some_and(|job| !is_job(job)) {
        return Err(usage("job", "must be 1 to 64 letters, digits and . _ : / -"));
    }
    // A token on the command line overrides a configured agent.
    let own_token = cli::token_flag(matches);
    if let (Some(flag), true) = (own_token, cli::has_flag(matches, "sign.socket")) {
        return Err(two_tokens(flag));
    }
    if own_token.is_none() && !config.sign.sockets.is_empty() {
        let (request, certificate) = ask_agents(config, job)?;
        return print_request(&request, &certificate, form);
    }
    let mut log = config.audit.clone().map(AuditLog::new);
    // Before any login: an unusable log must not cost a try.
    log.as_mut().map_or(Ok(()), AuditLog::check)?;
    let login = Login::prepare(config);
    let file = config.certificate_file.as_deref().map(read_certificate).transpose()?;
    let deadline = Deadline::after(config.sign.timeout);
    let slot_session = session::open_with(prestarted, config, &deadline)?.open_session(config, deadline)?;
    let choice = config.sign.choice;
    let mut session = signer::ready(TokenSession::new(slot_session, login), file, config, choice)?;
    let signed = signer::sign_once(&mut session, config, choice);
    let recorded = log.as_mut().map_or(Ok(()), |log| {
        let result = signed.as_ref().map_err(|error| error.kind);
        log.append(&[signer::record(&session, caller(job), choice, result)])
    });
    let printed = signed.and_then(|request| {
        recorded?;
        let certificate = &session.identity().certificate;
        warn_of_replay(config, certificate);
        print_request(&request, certificate, form)
    });
    session.end(printed.as_ref().err());
    printed
}

/// The error for `--socket` with an option that selects a token.
pub(super) fn two_tokens(flag: &str) -> Error {
    let message = format!("--socket asks an agent, which has its own token: --{flag} cannot be combined with it");
    Error::new(Kind::Usage, message).hint("use only one of the two")
}

fn form(matches: &ArgMatches) -> Result<OutputForm> {
    let form = word(matches, "format", &FORMS).map_err(|error| {
        let is_version = cli::given(matches, "format").is_some_and(|text| matches!(text, "v1" | "v2" | "V1" | "V2"));
        if is_version { error.hint("v1 and v2 are versions of the payload: --payload-version") } else { error }
    });
    Ok(form?.unwrap_or(OutputForm::Plain(RequestFormat::Json)))
}

/// The user of this command, for the audit log.
fn caller(job: Option<&str>) -> Caller {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Caller { uid, gid, pid: rustix::process::getpid().as_raw_nonzero().get(), job: job.map(str::to_owned) }
}

fn print_request(request: &LoginRequest, certificate: &Certificate, form: OutputForm) -> Result<()> {
    let text = match form {
        OutputForm::Plain(format) => request.render(format),
        OutputForm::Page => page(request, certificate),
    };
    print(text.map_err(|error| Error::new(Kind::Unexpected, error.to_string()))?.trim_end())
}

/// Asks each agent in order. It asks the next one only if the last was unreachable, busy or without its token.
fn ask_agents(config: &Config, job: Option<&str>) -> Result<(LoginRequest, Certificate)> {
    let mut agents = config.sign.sockets.iter().peekable();
    loop {
        let Some(socket) = agents.next() else { return Err(Error::new(Kind::Usage, "no agent is named")) };
        match ask(config, socket, job) {
            Err(error) if error.kind.retryable() && agents.peek().is_some() => {
                tracing::warn!("{}; asking the next agent", error.message);
            }
            result => return result,
        }
    }
}

/// Returns one agent's payload in the wanted form, after the same checks as for a token's result.
pub(super) fn ask(config: &Config, socket: &Path, job: Option<&str>) -> Result<(LoginRequest, Certificate)> {
    let Sign { choice, auth_url, header_encoding, timeout, warn_before, .. } = &config.sign;
    // Do not request a version that would be discarded.
    policy::decide_version(&config.policy, *choice).allowed()?;
    let start = now();
    let answer = client::sign(socket, choice.version, job, &Deadline::after(*timeout))?;
    let received = Received::from_agent(&answer).map_err(|error| {
        Error::new(
            Kind::AgentUnreachable,
            format!("the process that answers at {} is not a cba-agent: {error}", socket.display()),
        )
    })?;
    let max_age = now().saturating_sub(start) + CLOCK_TOLERANCE;
    let freshness = Freshness { now: now(), max_age, max_ahead: CLOCK_TOLERANCE };
    let (payload, warnings) = payload_check::check_received(&received, *choice, &config.policy, freshness)
        .map_err(|error| Error::from(error).context(socket.display()))?;
    tracing::debug!("the agent at {} returned a payload, which verifies", socket.display());
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    warn_before_end(&received.certificate, *warn_before, now());
    warn_of_replay(config, &received.certificate);
    let certificate = (&received.certificate, *header_encoding);
    let request = LoginRequest::new(auth_url, certificate, &payload);
    Ok((request, received.certificate))
}

fn warn_of_replay(config: &Config, certificate: &Certificate) {
    if config.sign.choice.version == Version::V1 {
        let end = crate::certificate::utc(certificate.not_after);
        tracing::warn!(
            "anybody who has a v1 payload can replay it until the certificate expires ({end}); protect it like a password"
        );
    }
}
