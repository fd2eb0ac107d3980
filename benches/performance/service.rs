//! The agent as a service: throughput, latency, memory, and many clients.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cba_agent::Certificate;
use ring::signature::{RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents};

use crate::Token;
use crate::agent::{Agent, Relay};
use crate::load;
use crate::report::{Report, Target, percentile, ratios};

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(2);

/// Payloads a second, with the load generator on the same cores, against bare `C_Sign` on the same number of threads.
pub(crate) fn throughput(report: &mut Report) {
    for bits in [2048, 4096] {
        let token = Token::new(bits);
        for workers in [1_usize, 2, 4] {
            let target = match (bits, workers) {
                (2048, 2) => Target::AtLeast(0.85),
                (4096, 2) => Target::AtLeast(0.96),
                _ => Target::None,
            };
            let agent = Agent::start(&token, workers, &[]);
            let name = format!("payloads / bare C_Sign, RSA {bits}, {workers} at once");
            report.add(&name, against_bare(&token, workers, &agent.socket), target);
        }
        let name = format!("one check of a signature / one bare C_Sign, RSA {bits}");
        report.add(&name, checks(&token), Target::None);
        let relay = Relay::start(&token, 2);
        let name = format!("the same messages alone, in C / bare C_Sign, RSA {bits}, 2 at once");
        report.add(&name, against_bare(&token, 2, &relay.socket), Target::None);
        if bits == 2048 {
            let agent = Agent::start(&token, 2, &["--audit-path", &token.file("audit.log")]);
            let with_log = against_bare(&token, 2, &agent.socket);
            report.add("the same with the audit log, RSA 2048, 2 at once / bare C_Sign", with_log, Target::None);
        }
    }
}

/// The time of the parent's check of a result, measured on the library that it uses.
fn checks(token: &Token) -> Vec<f64> {
    const COUNT: u32 = 2000;
    let payload = token.agent("sign").stdout(Stdio::piped()).output().unwrap().stdout;
    let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    let decoded = |text: &serde_json::Value| {
        STANDARD.decode(text.as_str().unwrap().trim_start_matches("CACertificate ")).unwrap()
    };
    let certificate = decoded(&payload["headers"]["Authorization"]);
    let (message, signature) =
        (decoded(&payload["body"]["encodedData"]), decoded(&payload["body"]["encodedSignedData"]));
    let certificate = Certificate::from_der(&certificate).unwrap();
    let key = RsaPublicKeyComponents { n: &certificate.modulus, e: &certificate.exponent };
    let rounds: Vec<Vec<f64>> = (0..ROUNDS)
        .map(|_| {
            let bare: f64 = token.measured("rate", &["1", "500"]).trim().parse().unwrap();
            let start = Instant::now();
            (0..COUNT).for_each(|_| key.verify(&RSA_PKCS1_2048_8192_SHA512, &message, &signature).unwrap());
            vec![start.elapsed().as_secs_f64() / f64::from(COUNT), 1.0 / bare]
        })
        .collect();
    ratios(&rounds, 0, 1)
}

fn against_bare(token: &Token, workers: usize, socket: &Path) -> Vec<f64> {
    // Enough that no worker waits for a client.
    let clients = workers * 4;
    load::closed(socket, clients, TIME / 4);
    let rounds: Vec<Vec<f64>> = (0..ROUNDS)
        .map(|_| {
            let time = TIME.as_millis().to_string();
            let bare = token.measured("rate", &[&workers.to_string(), &time]).trim().parse().unwrap();
            vec![load::closed(socket, clients, TIME).0, bare]
        })
        .collect();
    ratios(&rounds, 0, 1)
}

/// Of one connection, and of requests at half the rate that two workers can do.
pub(crate) fn latency(report: &mut Report) {
    const COUNT: usize = 2000;
    let token = Token::new(2048);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let text = token.measured("latency", &[&COUNT.to_string()]);
        let mut bare: Vec<f64> = text.lines().map(|line| line.parse::<f64>().unwrap() / 1e9).collect();
        let agent = Agent::start(&token, 2, &[]);
        let half = load::closed(&agent.socket, 8, TIME).0 / 2.0;
        let mut round = vec![percentile(&mut bare, 50.0), percentile(&mut bare, 99.0)];
        let mut measure = |socket: &Path| {
            for mut times in [load::one_by_one(socket, COUNT), load::open(socket, half, 4000)] {
                round.extend([percentile(&mut times, 50.0), percentile(&mut times, 99.0)]);
            }
        };
        measure(&agent.socket);
        drop(agent);
        measure(&Relay::start(&token, 2).socket);
        rounds.push(round);
    }
    let mut add = |what: &str, which, target| {
        report.add(&format!("{what} / bare C_Sign p50"), ratios(&rounds, which, 0), target);
    };
    add("p50 at one connection", 2, Target::AtMost(1.3));
    add("p99 at one connection", 3, Target::None);
    add("p50 at half load", 4, Target::None);
    add("p99 at half load", 5, Target::AtMost(3.0));
    add("the same messages alone, in C: p50 at one connection", 6, Target::None);
    add("the same messages alone, in C: p99 at one connection", 7, Target::None);
    add("the same messages alone, in C: p50 at half load", 8, Target::None);
    add("the same messages alone, in C: p99 at half load", 9, Target::None);
    add("bare C_Sign p99", 1, Target::None);
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
    report.add("resident MiB of parent and one worker, idle", vec![idle / 1024.0], Target::AtMost(25.0));
    report.add(
        "after 100,000 payloads / after the first few thousand",
        vec![agent.resident() / warm],
        Target::AtMost(1.02),
    );
}

/// From 1 to 256 clients of one worker and of two.
pub(crate) fn clients(report: &mut Report) {
    const CLIENTS: [usize; 7] = [1, 2, 4, 8, 32, 128, 256];
    const OF: usize = 3;
    let token = Token::new(2048);
    let measured = |socket: &Path| {
        load::closed(socket, CLIENTS[OF], TIME);
        let rates = |clients: usize| load::closed(socket, clients, TIME).0;
        (0..ROUNDS).map(|_| CLIENTS.into_iter().map(rates).collect()).collect::<Vec<Vec<f64>>>()
    };
    for workers in [1, 2] {
        let agent = Agent::start(&token, workers, &[]);
        let rounds = measured(&agent.socket);
        for (at, clients) in CLIENTS.into_iter().enumerate().filter(|(at, _)| *at != OF) {
            // With as many clients as workers, a worker is idle while its answer is on the way.
            let target = if clients > workers { Target::AtLeast(0.9) } else { Target::None };
            let name = format!("throughput of {clients} clients / of 8 clients, {workers} at once");
            report.add(&name, ratios(&rounds, at, OF), target);
        }
        let mut each = load::closed(&agent.socket, 256, TIME * 5).1;
        let spread = percentile(&mut each, 0.0) / percentile(&mut each, 100.0);
        let name = format!("the least served of 256 clients / the most served, {workers} at once");
        report.add(&name, vec![spread], Target::AtLeast(0.8));
    }
    let rounds = measured(&Relay::start(&token, 2).socket);
    let name = "the same messages alone, in C: 2 clients / 8 clients, 2 at once";
    report.add(name, ratios(&rounds, 1, OF), Target::None);
}
