//! No client blocks another one. Clients wait, disconnect or stop reading, and modules send half a reply or endless output.

use std::io::Write as _;
use std::os::unix::net::UnixListener;

use crate::agent::{Agent, Client, PayloadVerifier};
use crate::deadline::until;
use crate::fixture::{BINARY, Fixture};

#[test]
fn a_thousand_idle_connections_and_half_sent_requests_do_not_stop_service() {
    let fixture = Fixture::new();
    // This test needs more descriptors than a process may open by default.
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files).unwrap();
    // The default limit of a service, and a very small one.
    for limit in ["1024:", "256:256"] {
        let mut command = fixture.program("prlimit");
        command.args([&format!("--nofile={limit}"), BINARY]).args(Agent::arguments(&fixture, &[]));
        let mut agent = Agent::start(&fixture, command);
        agent.wait_for_state("STATUS=ready");
        let idle: Vec<Client> = (0..1000).map(|_| Client::connect(&agent.socket)).collect();
        let half: Vec<Client> = (0..200)
            .map(|number| {
                let mut client = Client::connect(&agent.socket);
                let text =
                    ["POST /sign HT", "POST /sign HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"][number % 2];
                let _ = client.stream.write_all(text.as_bytes());
                client
            })
            .collect();
        for _ in 0..20 {
            agent.payload();
        }
        assert_eq!(agent.ask("GET", "/readyz", "").status, 200);
        drop((idle, half));
        let (status, log) = agent.end("-TERM");
        assert_eq!(status.code(), Some(0), "{log}");
    }
}

#[test]
fn requests_have_a_deadline_and_the_queue_has_a_limit() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign#2+=hang");
    let agent = Agent::ready(&fixture, &["--queue", "2", "--call-timeout", "20s", "--request-timeout", "1500ms"]);
    agent.payload();
    std::thread::scope(|scope| {
        let ask = || agent.ask("POST", "/sign", "{}");
        let hanging = scope.spawn(ask);
        fixture.await_calls("C_Sign", 2);
        let waiting: Vec<_> = (0..2).map(|_| scope.spawn(ask)).collect();
        until(|| agent.ask("GET", "/metrics", "").body.contains("cba_agent_queue_depth 2"));
        let refused = ask();
        assert_eq!(refused.header("Retry-After"), Some("1"));
        assert_eq!(refused.problem(503), "busy");
        for reply in waiting.into_iter().chain([hanging]).map(|reply| reply.join().unwrap()) {
            assert!(reply.header("Retry-After").is_some());
            assert_eq!(reply.problem(504), "timeout");
        }
    });
}

#[test]
fn a_client_of_an_agent_that_accepts_no_connection_stops_at_its_timeout() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let full = fixture.file("full.sock");
    let listener = UnixListener::bind(&full).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _waiting = std::os::unix::net::UnixStream::connect(&full).unwrap();
    let error = fixture.run(&["health", "--socket", &full, "--timeout", "300ms"]).failed(9);
    assert!(error.contains("did not answer in time"), "{error}");
    fixture.run(&["sign", "--socket", &full, "--socket", &agent.socket, "--timeout", "1s"]).ok();
    let arguments = Agent::arguments(&fixture, &["--socket", &full]);
    let error = fixture.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).failed(1);
    assert!(error.contains("another agent serves"), "{error}");
}

#[test]
fn a_client_that_closes_its_sending_side_gets_its_answer() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let mut client = Client::connect(&agent.socket);
    client.send_sign_request();
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.receive("POST").unwrap().status, 200);
}

#[test]
fn stalled_clients_do_not_delay_the_shutdown() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let texts = ["", "POST /sign HT", "POST /sign HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{"];
    let mut stalled: Vec<Client> = texts
        .iter()
        .map(|text| {
            let mut client = Client::connect(&agent.socket);
            client.stream.write_all(text.as_bytes()).unwrap();
            client
        })
        .collect();
    // A client that sends requests and never reads.
    let mut never_reads = Client::connect(&agent.socket);
    never_reads.stream.set_nonblocking(true).unwrap();
    while never_reads.stream.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").is_ok() {}
    stalled.push(never_reads);
    let (status, log) = agent.end("-TERM");
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn nothing_is_signed_for_clients_that_disconnected() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=delay:400");
    let agent = Agent::ready(&fixture, &[]);
    let disconnected: Vec<Client> = (0..10)
        .map(|_| {
            let mut client = Client::connect(&agent.socket);
            client.send_sign_request();
            client
        })
        .collect();
    fixture.await_calls("C_Sign", 1);
    drop(disconnected);
    agent.payload();
    assert!(fixture.calls("C_Sign") <= 3, "{}", fixture.calls("C_Sign"));
    assert!(agent.ask("GET", "/metrics", "").body.contains("outcome=\"abandoned\",version=\"v2\"} 10"));
}

#[test]
fn a_partial_or_forged_reply_blocks_only_its_own_request() {
    let mut fixture = Fixture::new();
    for fault in ["half", "forged"] {
        fixture.faulty(&format!("C_Sign#2+={fault}"));
        let agent = Agent::ready(&fixture, &["--call-timeout", "60s", "--request-timeout", "60s"]);
        agent.payload();
        let (worker, calls) = (agent.workers()[0], fixture.calls("C_Sign"));
        std::thread::scope(|scope| {
            // The agent sends this request again, to a new worker, whose first signature succeeds.
            let request = scope.spawn(|| assert_eq!(agent.ask("POST", "/sign", "{}").status, 200));
            fixture.await_calls("C_Sign", calls + 1);
            for _ in 0..200 {
                assert_eq!(agent.ask("GET", "/healthz", "").status, 200);
            }
            if fault == "half" {
                // The other half is still missing. An agent that blocks on it would have answered no request above.
                assert_eq!(agent.workers(), [worker]);
                agent.kill_worker(worker);
            }
            request.join().unwrap();
        });
    }
}

#[test]
fn clients_that_leave_do_not_affect_others() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &["--workers", "2", "--rate-limit-per-second", "100000"]);
    let verifier = PayloadVerifier::of(&fixture, &agent.payload());
    for round in 0..100 {
        let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(&agent.socket)).collect();
        for client in &mut clients {
            client.send_sign_request();
        }
        // One third disconnects, while a worker has their request or while it is in the queue.
        let remaining: Vec<Client> =
            clients.into_iter().enumerate().filter(|(at, _)| (at + round) % 3 != 0).map(|(_, one)| one).collect();
        for mut client in remaining {
            let reply = client.receive("POST").unwrap();
            assert_eq!(reply.status, 200, "{reply:?}");
            verifier.accept(&serde_json::from_str(&reply.body).unwrap());
        }
    }
}

#[test]
fn a_module_that_prints_without_end_blocks_nobody() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign#1=chatter");
    let agent = Agent::ready(&fixture, &[]);
    for _ in 0..60 {
        agent.payload();
        assert_eq!(agent.ask("GET", "/healthz", "").status, 200);
    }
}
