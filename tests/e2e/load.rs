//! Load on an agent, for the tests of this crate and of the other stacks.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::agent::{Agent, Client, PayloadVerifier, Reply};

/// The results of all requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) payloads: AtomicUsize,
    /// The number of replies 503 and 504, which have a Retry-After.
    pub(crate) later: AtomicUsize,
    /// The number of connections that failed, or were closed without a reply.
    pub(crate) closed: AtomicUsize,
    /// The number of finished requests, with any result.
    done: AtomicUsize,
}

impl Tally {
    pub(crate) fn get(counter: &AtomicUsize) -> usize {
        counter.load(Ordering::SeqCst)
    }
}

/// Random numbers for the load tests. Each run has other numbers, unless `CBA_TEST_SEED` sets the seed.
pub(crate) struct Seed(u64);

impl Seed {
    #[allow(clippy::print_stderr)] // the test harness shows it if the test fails
    pub(crate) fn of_this_run() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let seed = std::env::var("CBA_TEST_SEED").map_or(now, |text| text.parse().expect("CBA_TEST_SEED is a number"));
        eprintln!("to repeat this: CBA_TEST_SEED={seed}");
        Self(seed)
    }

    /// Returns a number from `low` to below `high`, by splitmix64.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(high - low).unwrap()).unwrap()
    }

    pub(crate) fn milliseconds(&mut self, low: usize, high: usize) -> Duration {
        Duration::from_millis(self.between(low, high).try_into().unwrap())
    }
}

/// Sends this number of requests over this number of connections. Meanwhile runs `during`, with a function that returns the
/// number of finished requests, or `None` after the last.
pub(crate) fn load(
    agent: &Agent,
    verifier: &PayloadVerifier,
    (connections, requests): (usize, usize),
    during: impl FnOnce(&dyn Fn() -> Option<usize>),
) -> Tally {
    let (tally, next, is_over) = (Tally::default(), AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = None;
                    while next.fetch_add(1, Ordering::SeqCst) < requests {
                        send_request(&agent.socket, &mut client, verifier, &tally);
                        tally.done.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let clients = scope.spawn(|| {
            let failed = clients.into_iter().any(|client| client.join().is_err());
            is_over.store(true, Ordering::SeqCst);
            assert!(!failed, "a client failed; its panic is above");
        });
        during(&|| (!is_over.load(Ordering::SeqCst)).then(|| Tally::get(&tally.done)));
        clients.join().unwrap();
    });
    tally
}

fn send_request(socket: &str, client: &mut Option<Client>, verifier: &PayloadVerifier, tally: &Tally) {
    let mut connection = match client.take() {
        Some(connection) => connection,
        None => match Client::try_connect(socket) {
            Ok(connection) => connection,
            Err(_) => {
                tally.closed.fetch_add(1, Ordering::SeqCst);
                return;
            }
        },
    };
    match connection.exchange("POST", "/sign", "{}") {
        None => {
            tally.closed.fetch_add(1, Ordering::SeqCst);
        }
        Some(reply) => {
            count(&reply, verifier, tally);
            if reply.header("Connection") != Some("close") {
                *client = Some(connection);
            }
        }
    }
}

fn count(reply: &Reply, verifier: &PayloadVerifier, tally: &Tally) {
    if reply.status == 200 {
        verifier.accept(&serde_json::from_str::<Value>(&reply.body).unwrap());
        tally.payloads.fetch_add(1, Ordering::SeqCst);
        return;
    }
    assert!([503, 504].contains(&reply.status), "{reply:?}");
    let wait: u64 = reply.header("Retry-After").unwrap_or_else(|| panic!("{reply:?}")).parse().unwrap();
    tally.later.fetch_add(1, Ordering::SeqCst);
    // A client waits as Retry-After says. The test waits for at most 3 seconds.
    std::thread::sleep(Duration::from_secs(wait.min(3)));
}

/// Kills one ready worker in each `period` while the load lasts, and returns the number of kills. Each period begins with a
/// call of `each_period` with the number of finished requests. It never kills a worker that is still starting: otherwise
/// no worker might finish its login, and SoftHSM2 destroys its token file if a process is killed during a login.
pub(crate) fn kill_workers(
    agent: &Agent,
    period: Duration,
    progress: &dyn Fn() -> Option<usize>,
    mut each_period: impl FnMut(usize),
) -> usize {
    let mut killed = HashSet::new();
    while let Some(done) = progress() {
        each_period(done);
        let workers = agent.workers();
        let log = agent.log();
        let ready = log.lines().filter(|line| line.contains("is ready with"));
        let mut ready = ready.filter_map(|line| line.split_once("(process ")?.1.split_once(')')?.0.parse().ok());
        if let Some(worker) = ready.find(|id: &u32| workers.contains(id) && !killed.contains(id)) {
            killed.insert(worker);
            agent.kill_worker(worker);
        }
        std::thread::sleep(period);
    }
    killed.len()
}
