//! `cargo bench`: compares the agent with the minimal program for the same work, alternately on the same token in the same run.
//!
//! Each comparison is a ratio, and each ratio is the median of several rounds, with minimum and maximum. `cargo bench -- NAME...` runs only
//! the named measurements. `cargo bench -- counts` runs those that noise does not change, and fails where one differs by more than a tenth
//! from `benches/counts.json`. docs/performance.md explains what is measured and why.

// A missing tool ends the run with the line that needs it.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::process::ExitCode;

mod agent;
mod counts;
mod load;
mod once;
mod peers;
mod report;
mod service;
mod token;

use report::Report;
use token::Token;

/// Runs one measurement and adds it to the report.
type Measurement = fn(&mut Report);

/// The measurements, in the order of docs/performance.md.
const ALL: [(&str, Measurement); 7] = [
    ("once", once::run),
    ("peers", peers::run),
    ("throughput", service::throughput),
    ("latency", service::latency),
    ("memory", service::memory),
    ("clients", service::clients),
    ("counts", counts::run),
];

fn main() -> ExitCode {
    // cargo adds flags.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|name| ALL.iter().all(|(known, _)| known != name)) {
        eprintln!("no measurement '{unknown}'; there are: {}", ALL.map(|(name, _)| name).join(", "));
        return ExitCode::FAILURE;
    }
    let mut report = Report::default();
    for (name, run) in ALL {
        if wanted.is_empty() || wanted.iter().any(|other| other == name) {
            eprintln!("measuring: {name}");
            run(&mut report);
        }
    }
    report.print();
    if report.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
