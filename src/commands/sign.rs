//! `sign`: one authentication request on standard output.

use clap::ArgMatches;

use super::{print, usage, word};
use crate::cba::{Format, Request, Version};
use crate::certificate::Certificate;
use crate::cli;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::reach::{self, Login, Reached, read_certificate};
use crate::signer;

const FORMATS: [(&str, Format); 5] = [
    ("json", Format::Json),
    ("body", Format::Body),
    ("header", Format::Header),
    ("curl", Format::Curl),
    ("env", Format::Env),
];

pub(super) fn run(matches: &ArgMatches, config: &Config) -> Result<()> {
    let format = word(matches, "format", &FORMATS)?.unwrap_or_default();
    if let Some(job) = cli::given(matches, "job") {
        check_job(job)?;
        tracing::debug!("job {job}");
    }
    let mut login = Login::prepare(config);
    let file = config.certificate_file.as_deref().map(read_certificate).transpose()?;
    let deadline = Deadline::after(config.sign.timeout);
    let mut reached = reach::open(config, &deadline)?.reach(config, deadline)?;
    let printed = request(&mut reached, &mut login, file, config).and_then(|request| {
        let text = request.render(format).map_err(|error| Error::new(Kind::Unexpected, error.to_string()))?;
        print(&text)
    });
    // Logged out before the token's lock is given back.
    reached.end(printed.as_ref().err());
    drop(login);
    printed
}

fn request(reached: &mut Reached, login: &mut Login, file: Option<Certificate>, config: &Config) -> Result<Request> {
    signer::judge_early(reached, config)?;
    login.login(reached, config)?;
    let identity = reached.identity(config, file)?;
    let request = signer::sign(reached, login, &identity, config)?;
    if config.sign.version == Version::V1 {
        let end = crate::certificate::utc(identity.certificate.not_after);
        tracing::warn!(
            "a v1 payload can be replayed by whoever holds it until the certificate ends ({end}); keep it like a password"
        );
    }
    Ok(request)
}

fn check_job(job: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    if (1..=64).contains(&job.len()) && job.chars().all(plain) {
        Ok(())
    } else {
        Err(usage("job", "must be 1 to 64 letters, digits and . _ : / -"))
    }
}
