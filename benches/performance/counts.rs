//! Counts that noise does not change: instructions of the parent for each payload, and system calls of one `sign`. A
//! change of more than a tenth from `benches/counts.json` fails, in either direction: record an improvement there, so
//! that it is kept.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Token;
use crate::agent::Agent;
use crate::load;
use crate::report::{Report, Target};
use crate::token::{compiled, program};

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/counts.json");

pub(crate) fn run(report: &mut Report) {
    let token = Token::new(2048);
    report.add("MiB of the program", vec![size()], Target::AtMost(4.5));
    let recorded: serde_json::Value = serde_json::from_str(&fs::read_to_string(RECORDED).unwrap()).unwrap();
    let recorded = |name: &str| recorded[name].as_f64().unwrap();
    let few = instructions(&token, 100);
    let many = instructions(&token, 1100);
    for (what, name, count) in [
        ("instructions of the parent for each payload", "instructions_per_payload", (many - few) / 1000.0),
        ("instructions of the parent of one `sign`", "instructions_of_sign", sign(&token)),
        ("system calls of one `sign`", "system_calls_of_sign", system_calls(&token)),
    ] {
        report.add(what, vec![count], Target::None);
        report.add(&format!("{what} / recorded"), vec![count / recorded(name)], Target::AtMost(1.1));
        report.add(&format!("recorded / {what}"), vec![recorded(name) / count], Target::AtMost(1.1));
    }
}

/// In MiB, as shipped.
#[allow(clippy::cast_precision_loss)]
fn size() -> f64 {
    fs::metadata(program()).unwrap().len() as f64 / 1_048_576.0
}

/// The parent under callgrind, without its workers.
fn valgrind(token: &Token, like: &Command, counts: &Path) -> Command {
    let mut command = token.command("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", counts.display()));
    command.arg(like.get_program()).args(like.get_args());
    command.env("LD_PRELOAD", compiled("spawn_real_file", &["-shared", "-fPIC", "-ldl"]));
    command.env("REAL_FILE", like.get_program());
    command
}

fn collected(counts: &Path) -> f64 {
    let text = fs::read_to_string(counts).expect("valgrind left no counts: apt-get install valgrind");
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    line.unwrap().trim().parse().unwrap()
}

/// Of an agent, from start to end, with this number of payloads.
fn instructions(token: &Token, payloads: usize) -> f64 {
    let counts = token.path().join("counts");
    let agent = Agent::start_as(token, valgrind(token, &token.agent("serve"), &counts), 1);
    load::one_by_one(&agent.socket, payloads);
    drop(agent);
    collected(&counts)
}

fn sign(token: &Token) -> f64 {
    let counts = token.path().join("counts");
    assert!(valgrind(token, &token.agent("sign"), &counts).status().unwrap().success(), "sign failed in valgrind");
    collected(&counts)
}

/// Of the parent, the worker and its module together.
fn system_calls(token: &Token) -> f64 {
    let (counts, like) = (token.file("calls"), token.agent("sign"));
    let mut command = token.command("strace");
    command.args(["-f", "-c", "-o", &counts]).arg(like.get_program()).args(like.get_args()).stderr(Stdio::inherit());
    assert!(command.status().expect("apt-get install strace").success(), "sign failed in strace");
    let text = fs::read_to_string(counts).unwrap();
    let total = text.lines().find(|line| line.ends_with(" total")).unwrap();
    total.split_whitespace().nth(3).unwrap().parse().unwrap()
}
