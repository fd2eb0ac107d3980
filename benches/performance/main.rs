//! `cargo bench`: the agent against the least that any program must do, in turn on the same token in the same run.
//!
//! Each comparison is a ratio, and each ratio the median of several rounds, with the smallest and the largest beside it.
//! `cargo bench -- NAME...` makes the named measurements alone; `cargo bench -- counts` makes those that noise does not
//! move, and fails where one is more than a tenth from `benches/counts.json`. What is measured and why: docs/performance.md.

// What is missing on this host ends the run, and says where.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::process::ExitCode;

mod agent;
mod counts;
mod load;
mod once;
mod report;
mod service;
mod token;

use report::Report;
use token::Token;

/// Measures something and adds it to the report.
type Measurement = fn(&mut Report);

/// The measurements, in the order of docs/performance.md.
const ALL: [(&str, Measurement); 6] = [
    ("once", once::run),
    ("throughput", service::throughput),
    ("latency", service::latency),
    ("memory", service::memory),
    ("clients", service::clients),
    ("counts", counts::run),
];

fn main() -> ExitCode {
    // cargo adds flags of its own.
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
    if wanted.is_empty() {
        report.draw();
    }
    if report.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
