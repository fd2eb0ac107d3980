//! Counts that noise does not change: instructions of the parent for each payload, and instructions and system calls of one
//! `sign`. A count fails if it differs from `benches/counts.json` by more than a tenth, up or down. After an improvement,
//! record the lower count there.

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
    report.add("MiB of the program", vec![program_size()], Target::AtMost(4.5));
    let recorded: serde_json::Value = serde_json::from_str(&fs::read_to_string(RECORDED).unwrap()).unwrap();
    let recorded = |name: &str| recorded[name].as_f64().unwrap();
    let few = instructions_of_serve(&token, 100);
    let many = instructions_of_serve(&token, 1100);
    for (what, name, count) in [
        ("instructions of the parent for each payload", "instructions_per_payload", (many - few) / 1000.0),
        ("instructions of the parent of one `sign`", "instructions_of_sign", instructions_of_sign(&token)),
        ("system calls of one `sign`", "system_calls_of_sign", system_calls(&token)),
    ] {
        report.add(what, vec![count], Target::None);
        report.add(&format!("{what} / recorded"), vec![count / recorded(name)], Target::AtMost(1.1));
        report.add(&format!("recorded / {what}"), vec![recorded(name) / count], Target::AtMost(1.1));
    }
}

/// The size of the program in MiB.
#[allow(clippy::cast_precision_loss)]
fn program_size() -> f64 {
    fs::metadata(program()).unwrap().len() as f64 / 1_048_576.0
}

/// Runs the parent of this command under callgrind, without its workers. The parent starts a worker from its own program
/// file, which would be valgrind here: the preloaded library gives it the real file.
fn callgrind(token: &Token, agent: &Command, counts: &Path) -> Command {
    let mut command = token.command("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", counts.display()));
    command.arg(agent.get_program()).args(agent.get_args());
    command.env("LD_PRELOAD", compiled("spawn_real_file", &["-shared", "-fPIC", "-ldl"]));
    command.env("REAL_FILE", agent.get_program());
    command
}

/// Reads the number of instructions from the file that callgrind wrote.
fn instructions_in(counts: &Path) -> f64 {
    let text = fs::read_to_string(counts).expect("valgrind left no counts: apt-get install valgrind");
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    line.unwrap().trim().parse().unwrap()
}

/// The instructions of an agent, from its start to its end, with this number of payloads.
fn instructions_of_serve(token: &Token, payloads: usize) -> f64 {
    let counts = token.path().join("counts");
    let agent = Agent::start_as(token, callgrind(token, &token.agent("serve"), &counts), 1);
    load::one_by_one(&agent.socket, payloads);
    drop(agent);
    instructions_in(&counts)
}

fn instructions_of_sign(token: &Token) -> f64 {
    let counts = token.path().join("counts");
    assert!(callgrind(token, &token.agent("sign"), &counts).status().unwrap().success(), "sign failed in valgrind");
    instructions_in(&counts)
}

/// The system calls of the parent, the worker and its module together.
fn system_calls(token: &Token) -> f64 {
    let (counts, sign) = (token.file("calls"), token.agent("sign"));
    let mut command = token.command("strace");
    command.args(["-f", "-c", "-o", &counts]).arg(sign.get_program()).args(sign.get_args()).stderr(Stdio::inherit());
    assert!(command.status().expect("apt-get install strace").success(), "sign failed in strace");
    let text = fs::read_to_string(counts).unwrap();
    let total = text.lines().find(|line| line.ends_with(" total")).unwrap();
    total.split_whitespace().nth(3).unwrap().parse().unwrap()
}
