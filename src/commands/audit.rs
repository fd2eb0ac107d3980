//! `audit verify` and `audit head`: check the chain of the audit log.
//!
//! Runs in the parent.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::ArgMatches;

use super::arguments::usage;
use super::configure::{configure, warn_of_unknown_variables};
use super::input::{STDIN, empty_stdin, stdin};
use crate::audit;
use crate::audit::chain::{Head, LINE_LIMIT, head_of};
use crate::audit::check::ChainCheck;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::files::unreadable_hint;
use crate::log;
use crate::os::input_file;
use crate::output::{print, print_report};
use crate::text::printable;
use crate::text::shell::quoted;

mod packed;

/// The number of findings that are printed; the rest is counted.
const SHOWN: usize = 20;

pub(super) fn run(matches: &ArgMatches, format: &mut log::LogFormat) -> Result<()> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(Error::new(Kind::Usage, "a command is needed: audit verify or audit head"));
    };
    let config = configure(matches)?;
    *format = config.log.format;
    warn_of_unknown_variables(&config);
    let mut files: Vec<String> = matches.get_many::<String>("file").into_iter().flatten().cloned().collect();
    if files.is_empty() {
        files = configured(&config)?;
    }
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    match name {
        "verify" => verify(&files, matches),
        _ => head(files.first().copied().unwrap_or_default()),
    }
}

/// The configured log and the file that it was last renamed to, if they exist: between a rotation and the next record
/// only the latter exists. If neither exists, the log itself, so that the error names it.
fn configured(config: &Config) -> Result<Vec<String>> {
    let none = || {
        Error::new(Kind::Usage, "no audit log is named, and none is configured")
            .hint("name its files: `cba-agent help COMMAND`; or set audit.path in the configuration")
    };
    let log = config.audit.as_ref().ok_or_else(none)?.display().to_string();
    let rotated = format!("{log}.1");
    let found: Vec<String> = [log.clone(), rotated].into_iter().filter(|file| Path::new(file).exists()).collect();
    Ok(if found.is_empty() { vec![log] } else { found })
}

fn head(file: &str) -> Result<()> {
    match audit::head(Path::new(file)) {
        Ok(head) => print(&head.unwrap_or_else(Head::none).to_string()),
        Err(audit::AuditError::Damaged(_)) => {
            Err(Error::new(Kind::Invalid, format!("{file} does not end in a record of an audit log"))
                .hint(format!("`cba-agent audit verify {}` names the place", quoted(file))))
        }
        Err(audit::AuditError::Write(_, error)) => Err(cannot_read(file, &error)),
        Err(error) => Err(error.into()),
    }
}

/// The findings in all files.
#[derive(Default)]
struct AuditFindings {
    check: ChainCheck,
    /// The first problem.
    first: Option<String>,
    problems: usize,
    expected: Vec<(Head, bool)>,
}

impl AuditFindings {
    fn say(&mut self, problems: Vec<String>) {
        for problem in problems {
            self.problems += 1;
            match self.problems {
                1 => self.first = Some(problem),
                2..=SHOWN => tracing::warn!("{problem}"),
                _ => {}
            }
        }
    }
}

fn verify(files: &[&str], matches: &ArgMatches) -> Result<()> {
    let heads: Vec<&String> = matches.get_many("expect-head").into_iter().flatten().collect();
    let expected = heads.iter().map(|text| Head::parse(text).ok_or_else(|| usage("expect-head", "must be SEQ:HASH")));
    let expected = expected.map(|head| head.map(|head| (head, false))).collect::<Result<_>>()?;
    let mut findings = AuditFindings { expected, ..AuditFindings::default() };
    let mut progress = CheckProgress::new();
    if let Some(command) = packed::command(files, &heads) {
        return Err(Error::new(Kind::Config, "a file is compressed")
            .hint(format!("unpack all into one stream, the oldest first: `{command}`")));
    }
    for file in in_order(files)? {
        if file == "-" {
            read(STDIN, stdin()?, &mut findings, &mut progress)?;
        } else {
            let opened = open(file)?;
            read(file, BufReader::with_capacity(1 << 16, opened), &mut findings, &mut progress)?;
        }
    }
    progress.end();
    let problems = findings.check.end();
    findings.say(problems);
    let anchors = missing_heads(&findings);
    findings.say(anchors);
    report(&findings)
}

fn report(findings: &AuditFindings) -> Result<()> {
    for place in &findings.check.torn {
        tracing::warn!(
            "{place}: an incomplete record after a crash; the next record marks it, and no payload was handed out"
        );
    }
    if let Some(first) = &findings.first {
        let more = match findings.problems {
            1 => String::new(),
            2 => " (and 1 more finding)".into(),
            problems => format!(" (and {} more findings)", problems - 1),
        };
        return Err(Error::new(Kind::Invalid, format!("the audit log is not intact: {first}{more}"))
            .hint("keep the files as they are, and compare them with copies and heads that were kept elsewhere"));
    }
    let (Some(first), Some(head)) = (findings.check.first(), findings.check.head()) else {
        return print("valid: no records");
    };
    let older = if first > 1 { ", older records are not in these files" } else { "" };
    let anchored = match findings.expected.len() {
        0 => "not compared with a head kept elsewhere (--expect-head); the chain alone does not show a missing end"
            .into(),
        count => format!("{count} kept elsewhere found in the chain"),
    };
    print_report(&format!(
        "valid: {} records, {first} to {}{older}\nhead: {head}\nheads: {anchored}",
        findings.check.records(),
        head.seq
    ))
}

/// Heads that were kept elsewhere and are not in the log.
fn missing_heads(findings: &AuditFindings) -> Vec<String> {
    let missing = findings.expected.iter().filter(|(_, found)| !found);
    missing
        .map(|(expected, _)| match findings.check.head() {
            Some(head) if head.seq >= expected.seq => {
                format!(
                    "record {} differs from the head that was kept elsewhere, or is not in these files",
                    expected.seq
                )
            }
            _ => format!("the log ends before record {}, whose head was kept elsewhere", expected.seq),
        })
        .collect()
}

/// Sorts files by their first records, since their names sort in any order. Standard input keeps its place.
fn in_order<'a>(files: &[&'a str]) -> Result<Vec<&'a str>> {
    if files.contains(&"-") {
        return Ok(files.to_vec());
    }
    let mut keyed = Vec::new();
    for file in files {
        let opened = open(file)?;
        let mut lines = BufReader::new(opened);
        let mut first = None;
        // A crash may have left an incomplete record at the beginning.
        for _ in 0..2 {
            if let Some((line, _)) = line(&mut lines).map_err(|error| cannot_read(file, &error))? {
                first = first.or_else(|| head_of(&line).map(|head| head.seq));
            }
        }
        keyed.push((first.unwrap_or(u64::MAX), *file));
    }
    keyed.sort_by_key(|(first, _)| *first);
    Ok(keyed.into_iter().map(|(_, file)| file).collect())
}

fn read(
    name: &str,
    mut source: impl BufRead,
    findings: &mut AuditFindings,
    progress: &mut CheckProgress,
) -> Result<()> {
    let start = source.fill_buf().map_err(|error| cannot_read(name, &error))?;
    if let Some(program) = packed::program(start) {
        return Err(Error::new(Kind::Config, format!("{name} is compressed"))
            .hint(format!("unpack it before the pipe, for example with {program}")));
    }
    let mut number = 0_u64;
    if name == STDIN && start.is_empty() {
        return Err(empty_stdin(Kind::Invalid));
    }
    while let Some((line, whole)) = line(&mut source).map_err(|error| cannot_read(name, &error))? {
        number += 1;
        let problems = findings.check.line(&line, whole, &format!("{} line {number}", printable(name)));
        findings.say(problems);
        for (expected, found) in &mut findings.expected {
            *found |= findings.check.head() == Some(expected);
        }
        progress.line();
    }
    Ok(())
}

/// Reads the next line, up to a limit, without its newline. The flag is false for a line that is too long or has no
/// newline.
fn line(source: &mut impl BufRead) -> io::Result<Option<(Vec<u8>, bool)>> {
    let mut line = Vec::new();
    let limit = u64::try_from(LINE_LIMIT).unwrap_or(u64::MAX);
    if source.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let mut whole = line.last() == Some(&b'\n');
    if whole {
        line.pop();
    }
    if !whole && line.len() == LINE_LIMIT {
        // No record is this long: skip to its end.
        source.skip_until(b'\n')?;
        whole = true;
    }
    Ok(Some((line, whole)))
}

/// Opens a log. It is read more than once, so it must be a regular file.
fn open(file: &str) -> Result<File> {
    input_file::open_regular(Path::new(file)).map_err(|error| cannot_read(file, &error))
}

fn cannot_read(name: &str, error: &io::Error) -> Error {
    let error = Error::new(Kind::Config, format!("cannot read {name}: {error}"));
    let error = if name == STDIN { error } else { error.hint(unreadable_hint(Path::new(name))) };
    error.hint("name the log's files, or - for standard input")
}

/// A progress display for a person.
struct CheckProgress {
    lines: u64,
    shown_at: Instant,
    is_seen: bool,
}

impl CheckProgress {
    fn new() -> Self {
        Self { lines: 0, shown_at: Instant::now(), is_seen: io::stderr().is_terminal() }
    }

    fn line(&mut self) {
        self.lines += 1;
        if self.is_seen && self.lines % 4096 == 0 && self.shown_at.elapsed() > Duration::from_millis(500) {
            log::show(&format!("\r{} records", self.lines));
            self.shown_at = Instant::now();
        }
    }

    fn end(&self) {
        if self.is_seen && self.lines > 4096 {
            log::show(&format!("\r{:30}\r", ""));
        }
    }
}
