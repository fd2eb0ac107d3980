//! One payload from one process: `sign` against the reference program and against `pkcs11-tool`, alternately.

use std::fs;
use std::process::Command;
use std::time::Instant;

use crate::Token;
use crate::peers::pkcs11_tool;
use crate::report::{Report, Target, ratios};
use crate::token::program;

const ROUNDS: usize = 5;
const RUNS: usize = 40;

pub(crate) fn run(report: &mut Report) {
    let token = Token::new(2048);
    fs::write(token.path().join("message"), [7; 100]).unwrap();
    let agent = |more: &[&str]| {
        let mut command = token.agent("sign");
        command.args(more);
        command
    };
    let version = || {
        let mut command = token.command(program());
        command.arg("--version");
        command
    };
    let programs: [&dyn Fn() -> Command; 8] = [
        &|| token.bare("sign", &[]),
        &|| pkcs11_tool(&token),
        &|| agent(&[]),
        &|| agent(&["--sandbox", "off"]),
        &|| token.bare("two-processes", &[]),
        &|| token.bare("two-processes", &[&token.file("synced")]),
        &version,
        &|| token.command("true"),
    ];
    let mut rounds: Vec<Vec<f64>> = Vec::new();
    for round in 0..=ROUNDS {
        let mut times = vec![Vec::new(); programs.len()];
        for _ in 0..RUNS {
            for (program, times) in programs.iter().zip(&mut times) {
                let mut command = program();
                let start = Instant::now();
                let status = command.status().unwrap();
                times.push(start.elapsed().as_secs_f64());
                // Print only the program: the environment holds the PIN.
                assert!(status.success(), "{:?} failed", command.get_program());
            }
        }
        // The first round warms the caches.
        if round > 0 {
            rounds.push(times.into_iter().map(|mut times| crate::report::percentile(&mut times, 50.0)).collect());
        }
    }
    let of = |a: usize, b: usize| ratios(&rounds, a, b);
    report.add("one `sign` / bare signer", of(2, 0), Target::AtMost(1.25));
    report.add("one `sign` / `pkcs11-tool`", of(2, 1), Target::AtMost(1.00));
    report.add("the same without the sandbox / bare signer", of(3, 0), Target::None);
    report.add("`pkcs11-tool` / bare signer", of(1, 0), Target::None);
    report.add("two processes and their messages, in C / bare signer", of(4, 0), Target::None);
    report.add("the same and one byte synced to disk / bare signer", of(5, 0), Target::None);
    report.add("`cba-agent --version`, start and end / bare signer", of(6, 0), Target::None);
    report.add("`true`, start and end / bare signer", of(7, 0), Target::None);
}
