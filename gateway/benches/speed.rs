//! How much the gateway adds to agent and service, how many logins a second it serves, and how much memory it has.
//!
//! `cargo bench -p cba-gateway`. Agent (on SoftHSM2), service (TLS on loopback) and gateway share this host's cores. The targets
//! are those of docs/gateway.md: at most 2 ms beyond agent and service, 300 logins a second on two cores, under 24 MiB.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, dead_code)]

use std::io::Write as _;
use std::time::{Duration, Instant};

#[path = "../../tests/e2e/deadline.rs"]
mod deadline;
#[path = "../tests/e2e/fixture.rs"]
mod fixture;
#[path = "../tests/e2e/gateway_process.rs"]
mod gateway_process;
#[path = "../tests/e2e/service.rs"]
mod service;
#[path = "../tests/e2e/token.rs"]
mod token;

use fixture::{Fixture, basic};
use gateway_process::{Gateway, read_reply};

fn main() {
    let mut fixture = Fixture::new();
    fixture.clients = fixture.clients.replace("rate_limit_per_minute = 100000", "rate_limit_per_minute = 10000000");
    let gateway = fixture.serve();
    logins(&gateway, 200);
    let before = sums(&fixture);
    let mut times = logins(&gateway, 1000);
    let after = sums(&fixture);
    times.sort();
    let mean = times.iter().sum::<Duration>().as_secs_f64() / 1000.0;
    let own = mean - (after.0 - before.0) / 1000.0 - (after.1 - before.1) / 1000.0;
    println!("one login (p50):                 {:8.3} ms", times[500].as_secs_f64() * 1000.0);
    println!("  of it, agent (mean):           {:8.3} ms", after.0 - before.0);
    println!("  of it, service (mean):         {:8.3} ms", after.1 - before.1);
    println!("  beyond agent and service (mean): {:6.3} ms   target: at most 2", own * 1000.0);
    for threads in [1, 4, 16] {
        println!("logins a second, {threads:2} at a time:  {:8.0}      target: 300", throughput(&gateway, threads));
    }
    println!("resident memory:                 {:8.1} MiB    target: under 24", memory(&gateway));
    let idle: Vec<_> = (0..1000).map(|_| gateway.connect()).collect();
    println!("logins a second, 1,000 idle connections: {:.0}", throughput(&gateway, 16));
    drop(idle);
}

/// Logs in one after the other on one connection.
fn logins(gateway: &Gateway, count: usize) -> Vec<Duration> {
    let request = gateway.request_text("POST /token/authenticate", &[("Authorization", &basic("finance"))], "");
    let mut stream = gateway.connect();
    stream.set_nodelay(true).unwrap();
    (0..count)
        .map(|_| {
            let start = Instant::now();
            stream.write_all(request.as_bytes()).unwrap();
            let reply = read_reply(&mut stream).unwrap();
            assert_eq!(reply.status, 201, "{reply:?}");
            start.elapsed()
        })
        .collect()
}

fn throughput(gateway: &Gateway, threads: usize) -> f64 {
    let each = 2000 / threads;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| logins(gateway, each));
        }
    });
    f64::from(u32::try_from(each * threads).unwrap()) / start.elapsed().as_secs_f64()
}

/// The sums, in seconds, that the gateway's histograms have for agent and service.
fn sums(fixture: &Fixture) -> (f64, f64) {
    let socket = fixture.file("run/admin.sock");
    let mut command = std::process::Command::new("curl");
    let text = token::run(command.args(["-sS", "--unix-socket", &socket, "http://localhost/metrics"]));
    let sum = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("cba_gateway_{name}_duration_seconds_sum")));
        line.unwrap().split(' ').nth(1).unwrap().parse().unwrap()
    };
    (sum("agent"), sum("upstream"))
}

/// Resident memory in MiB.
fn memory(gateway: &Gateway) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
