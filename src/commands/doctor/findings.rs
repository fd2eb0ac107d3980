//! The findings of `doctor`, their report, and the verdict.
//!
//! Runs in the parent.

use clap::ArgMatches;
use serde::Serialize;

use crate::cli;
use crate::commands::complete_hints;
use crate::error::{Error, Kind, Result};
use crate::output::{print_json, print_report};
use crate::text::printable;

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
pub(super) struct Findings(Vec<CheckResult>);

impl Findings {
    pub(super) fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, CheckVerdict::Ok, found.into(), None);
    }

    pub(super) fn warn(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, CheckVerdict::Warning, found.into(), Some(remedy.into()));
    }

    pub(super) fn fail(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, CheckVerdict::Failed, found.into(), Some(remedy.into()));
    }

    fn add(&mut self, check: &'static str, verdict: CheckVerdict, found: String, remedy: Option<String>) {
        self.0.push(CheckResult { check, verdict, found, remedy });
    }

    pub(super) fn error(&mut self, check: &'static str, error: &Error) {
        let remedy = error.hints.first().cloned().unwrap_or_else(|| error.kind.usual_hint().into());
        self.fail(check, error.message.clone(), remedy);
    }

    /// Adds an error after which no further check is possible.
    pub(super) fn end<T>(&mut self, check: &'static str, error: &Error) -> Option<T> {
        self.error(check, error);
        None
    }

    /// Prints the report. Returns an error if a check failed.
    pub(super) fn say(mut self, matches: &ArgMatches) -> Result<()> {
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
