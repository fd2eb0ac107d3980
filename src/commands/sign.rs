//! `sign`: one authentication request on standard output.

use clap::ArgMatches;

use super::{print, usage, word};
use crate::cba::{Format, Version};
use crate::cli;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::reach::{self, Login};
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
    let deadline = Deadline::after(config.sign.timeout);
    let mut reached = reach::open(config, &deadline)?.reach(config, deadline)?;
    login.login(&mut reached, config)?;
    let identity = reached.identity(config)?;
    let request = signer::sign(&mut reached, &mut login, &identity, config)?;
    if config.sign.version == Version::V1 {
        tracing::warn!(
            "a v1 payload can be replayed by whoever holds it until the certificate ends ({}); keep it like a password",
            crate::certificate::utc(identity.certificate.not_after)
        );
    }
    let text = request.render(format).map_err(|error| Error::new(Kind::Unexpected, error.to_string()))?;
    let printed = print(&text);
    // Logged out before the token's lock is given back.
    reached.opened.handle.close();
    drop(login);
    printed
}

fn check_job(job: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    if (1..=64).contains(&job.len()) && job.chars().all(plain) {
        Ok(())
    } else {
        Err(usage("job", "must be 1 to 64 letters, digits and . _ : / -"))
    }
}
