//! Clients of an agent, all on one thread: what they cost is part of what is measured.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::{JoinSet, LocalSet};

const REQUEST: &[u8] =
    b"POST /sign HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// A connection that is kept.
struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(socket: &Path) -> Self {
        Self { stream: UnixStream::connect(socket).await.unwrap(), buffer: vec![0; 16 << 10] }
    }

    /// One payload.
    async fn ask(&mut self) {
        self.stream.write_all(REQUEST).await.unwrap();
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.unwrap();
            assert!(read > 0, "the agent closed a connection");
            filled += read;
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut answer = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(start) = answer.parse(&self.buffer[..filled]).unwrap() else { continue };
            assert_eq!(answer.code, Some(200), "{}", String::from_utf8_lossy(&self.buffer[..filled]));
            let length =
                answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length")).unwrap();
            let length: usize = std::str::from_utf8(length.value).unwrap().parse().unwrap();
            if filled == start + length {
                return;
            }
        }
    }
}

fn on_this_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, work)
}

/// Payloads of each client within a time, in which each asks again as soon as it was answered.
pub(crate) fn closed(socket: &Path, clients: usize, time: Duration) -> (f64, Vec<f64>) {
    on_this_thread(async {
        let mut connected = Vec::new();
        for _ in 0..clients {
            connected.push(Client::connect(socket).await);
        }
        let start = Instant::now();
        let mut all = JoinSet::new();
        for mut client in connected {
            all.spawn_local(async move {
                let mut made = 0.0;
                while start.elapsed() < time {
                    client.ask().await;
                    made += 1.0;
                }
                made
            });
        }
        let each = all.join_all().await;
        (each.iter().sum::<f64>() / start.elapsed().as_secs_f64(), each)
    })
}

/// So many payloads, one after the other on one connection: the seconds of each.
pub(crate) fn one_by_one(socket: &Path, count: usize) -> Vec<f64> {
    on_this_thread(async {
        let mut client = Client::connect(socket).await;
        let mut times = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            client.ask().await;
            times.push(start.elapsed().as_secs_f64());
        }
        times
    })
}

/// Requests that come at a rate whether or not the last was answered, as from many that know nothing of each other; the
/// seconds of each from when it was due.
pub(crate) fn open(socket: &Path, rate: f64, count: u32) -> Vec<f64> {
    on_this_thread(async {
        let idle: Rc<RefCell<Vec<Client>>> = Rc::default();
        let times: Rc<RefCell<Vec<f64>>> = Rc::default();
        let mut all = JoinSet::new();
        // A thread of its own: the runtime's timers know milliseconds, which is longer than a signature.
        let (ring, mut rung) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let start = Instant::now();
            for number in 0..count {
                let due = start + Duration::from_secs_f64(f64::from(number) / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let _ = ring.send(due);
            }
        });
        while let Some(due) = rung.recv().await {
            let client = idle.borrow_mut().pop();
            let mut client = match client {
                Some(client) => client,
                None => Client::connect(socket).await,
            };
            let (idle, times) = (Rc::clone(&idle), Rc::clone(&times));
            all.spawn_local(async move {
                client.ask().await;
                times.borrow_mut().push(due.elapsed().as_secs_f64());
                idle.borrow_mut().push(client);
            });
        }
        all.join_all().await;
        times.take()
    })
}
