//! The agent as a service: throughput, latency, memory, and many clients.

use std::time::Duration;

use crate::Token;
use crate::agent::Agent;
use crate::load;
use crate::report::{Report, Target, percentile, ratios};

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(2);

/// Payloads a second, load generator on the same cores included, against bare `C_Sign` on as many threads.
pub(crate) fn throughput(report: &mut Report) {
    for bits in [2048, 4096] {
        let token = Token::new(bits);
        for workers in [1_usize, 2, 4] {
            let target = match (bits, workers) {
                (2048, 2) => Target::AtLeast(0.85),
                (4096, 2) => Target::AtLeast(0.96),
                _ => Target::None,
            };
            report.add(
                &format!("payloads / bare C_Sign, RSA {bits}, {workers} at once"),
                against_bare(&token, workers, &[]),
                target,
            );
        }
        if bits == 2048 {
            let log = token.file("audit.log");
            let with_log = against_bare(&token, 2, &["--audit-path", &log]);
            report.add("the same with the audit log, RSA 2048, 2 at once", with_log, Target::None);
        }
    }
}

fn against_bare(token: &Token, workers: usize, more: &[&str]) -> Vec<f64> {
    let agent = Agent::start(token, workers, more);
    // Enough that no worker waits for a client.
    let clients = workers * 4;
    load::closed(&agent.socket, clients, TIME / 4);
    let rounds: Vec<Vec<f64>> = (0..ROUNDS)
        .map(|_| {
            let time = TIME.as_millis().to_string();
            let bare = token.measured("rate", &[&workers.to_string(), &time]).trim().parse().unwrap();
            vec![load::closed(&agent.socket, clients, TIME).0, bare]
        })
        .collect();
    ratios(&rounds, 0, 1)
}

/// Of one connection, and of requests that come at half of what two workers can do.
pub(crate) fn latency(report: &mut Report) {
    const COUNT: usize = 2000;
    let token = Token::new(2048);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let measured = |what| {
            let text = token.measured(what, &[&COUNT.to_string()]);
            text.lines().map(|line| line.parse::<f64>().unwrap() / 1e9).collect::<Vec<f64>>()
        };
        let (mut bare, mut turns) = (measured("latency"), measured("turns"));
        let (mut alone, mut half) = {
            let agent = Agent::start(&token, 2, &[]);
            let most = load::closed(&agent.socket, 8, TIME).0;
            (load::one_by_one(&agent.socket, COUNT), load::open(&agent.socket, most / 2.0, 4000))
        };
        rounds.push(vec![
            percentile(&mut bare, 50.0),
            percentile(&mut alone, 50.0),
            percentile(&mut alone, 99.0),
            percentile(&mut half, 50.0),
            percentile(&mut half, 99.0),
            percentile(&mut bare, 99.0),
            percentile(&mut turns, 50.0),
            percentile(&mut turns, 99.0),
        ]);
    }
    let of = |which| ratios(&rounds, which, 0);
    report.add("p50 at one connection / bare C_Sign p50", of(1), Target::AtMost(1.3));
    report.add("p99 at one connection / bare C_Sign p50", of(2), Target::None);
    report.add("p50 at half load / bare C_Sign p50", of(3), Target::None);
    report.add("p99 at half load / bare C_Sign p50", of(4), Target::AtMost(3.0));
    report.add("bare C_Sign p99 / bare C_Sign p50", of(5), Target::None);
    report.add("p50 of as many turns alone, in C / bare C_Sign p50", of(6), Target::None);
    report.add("p99 of as many turns alone, in C / bare C_Sign p50", of(7), Target::None);
}

/// Of all processes together.
pub(crate) fn memory(report: &mut Report) {
    const PAYLOADS: f64 = 100_000.0;
    let token = Token::new(2048);
    let agent = Agent::start(&token, 1, &[]);
    let idle = agent.resident();
    let mut made = load::closed(&agent.socket, 16, TIME).1.iter().sum::<f64>();
    let warm = agent.resident();
    while made < PAYLOADS {
        made += load::closed(&agent.socket, 16, TIME).1.iter().sum::<f64>();
    }
    report.add("resident MiB of front and one worker, idle", vec![idle / 1024.0], Target::AtMost(25.0));
    report.add(
        "after 100,000 payloads / after the first few thousand",
        vec![agent.resident() / warm],
        Target::AtMost(1.02),
    );
}

/// From 1 to 256 clients of two workers.
pub(crate) fn clients(report: &mut Report) {
    const CLIENTS: [usize; 6] = [1, 2, 8, 32, 128, 256];
    let token = Token::new(2048);
    let agent = Agent::start(&token, 2, &[]);
    load::closed(&agent.socket, 8, TIME);
    let rates = |clients: usize| load::closed(&agent.socket, clients, TIME).0;
    let rounds: Vec<Vec<f64>> = (0..ROUNDS).map(|_| CLIENTS.into_iter().map(rates).collect()).collect();
    for (at, clients) in CLIENTS.into_iter().enumerate() {
        // One client keeps one worker busy.
        let target = if clients > 1 { Target::AtLeast(0.9) } else { Target::None };
        report.add(&format!("throughput of {clients} clients / of 8 clients"), ratios(&rounds, at, 2), target);
    }
    let mut each = load::closed(&agent.socket, 256, TIME * 5).1;
    let spread = percentile(&mut each, 0.0) / percentile(&mut each, 100.0);
    report.add("the least served of 256 clients / the most served", vec![spread], Target::AtLeast(0.8));
}
