//! `cargo bench`: compares the agent with a minimal program that does the same work. Both run alternately, on the same token.
//!
//! Each comparison is a ratio: the median of several rounds, with minimum and maximum. `cargo bench -- NAME...` runs only the
//! named measurements. `cargo bench -- counts` counts instructions and system calls, which noise does not change.
//! docs/performance.md explains what is measured and why.

// `unwrap` ends the run at the line that needs a missing tool.
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
    // cargo adds flags, such as --bench.
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
