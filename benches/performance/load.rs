//! Clients of an agent. Either many on one thread, since the cost of the clients is part of the measurement, or each on
//! a separate thread, where the time of each answer counts.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::epoll;

/// What a client sends for one signature, and how it recognises the end of the reply.
#[derive(Clone)]
pub(crate) struct Protocol {
    pub(crate) request: Vec<u8>,
    /// Panics where the reply is a refusal.
    pub(crate) is_complete: fn(&[u8]) -> bool,
}

/// `POST /sign` of cba-agent.
pub(crate) fn http() -> Protocol {
    let request =
        b"POST /sign HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    Protocol { request: request.to_vec(), is_complete: is_complete_payload }
}

/// A kept connection.
struct Client {
    protocol: Protocol,
    stream: UnixStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Client {
    fn connect(socket: &Path, protocol: Protocol) -> Self {
        Self { protocol, stream: UnixStream::connect(socket).unwrap(), buffer: vec![0; 16 << 10], filled: 0 }
    }

    fn send(&mut self) {
        self.stream.write_all(&self.protocol.request).unwrap();
    }

    /// Reads available bytes. Returns whether the answer is complete.
    fn receive(&mut self) -> bool {
        let read = self.stream.read(&mut self.buffer[self.filled..]).unwrap();
        assert!(read > 0, "the agent closed a connection");
        self.filled += read;
        let is_complete = (self.protocol.is_complete)(&self.buffer[..self.filled]);
        if is_complete {
            self.filled = 0;
        }
        is_complete
    }

    /// One payload.
    fn ask(&mut self) {
        self.send();
        while !self.receive() {}
    }
}

/// Whether an answer is complete. It must be a payload.
fn is_complete_payload(text: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = answer.parse(text).unwrap() else { return false };
    assert_eq!(answer.code, Some(200), "{}", String::from_utf8_lossy(text));
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length")).unwrap();
    let length: usize = std::str::from_utf8(length.value).unwrap().parse().unwrap();
    text.len() == start + length
}

/// Payloads a second, in total and for each client. Each client asks again as soon as it has its answer.
pub(crate) fn closed(socket: &Path, clients: usize, time: Duration) -> (f64, Vec<f64>) {
    closed_by(&http(), socket, clients, time)
}

/// The same by any protocol.
pub(crate) fn closed_by(protocol: &Protocol, socket: &Path, clients: usize, time: Duration) -> (f64, Vec<f64>) {
    let waiting = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let mut all: Vec<Client> = (0..clients).map(|_| Client::connect(socket, protocol.clone())).collect();
    for (number, client) in (0..).zip(&all) {
        epoll::add(&waiting, &client.stream, epoll::EventData::new_u64(number), epoll::EventFlags::IN).unwrap();
    }
    let mut each = vec![0.0; clients];
    let start = Instant::now();
    all.iter_mut().for_each(Client::send);
    let mut open = clients;
    while open > 0 {
        let mut events = Vec::with_capacity(64);
        epoll::wait(&waiting, rustix::buffer::spare_capacity(&mut events), None).unwrap();
        for event in events {
            let number = usize::try_from(event.data.u64()).unwrap();
            if !all[number].receive() {
                continue;
            }
            each[number] += 1.0;
            if start.elapsed() < time {
                all[number].send();
            } else {
                open -= 1;
            }
        }
    }
    (each.iter().sum::<f64>() / start.elapsed().as_secs_f64(), each)
}

/// Sends this number of requests, one after the other on one connection. Returns the seconds of each.
pub(crate) fn one_by_one(socket: &Path, count: usize) -> Vec<f64> {
    let mut client = Client::connect(socket, http());
    let time = |_| {
        let start = Instant::now();
        client.ask();
        start.elapsed().as_secs_f64()
    };
    (0..count).map(time).collect()
}

/// Sends requests at a fixed rate, without waiting for answers, as many independent clients do. Returns the seconds of
/// each from the moment when it was due.
pub(crate) fn open(socket: &Path, rate: f64, count: u32) -> Vec<f64> {
    const CLIENTS: u32 = 16;
    let start = Instant::now() + Duration::from_millis(50);
    let client = |first: u32| {
        // Limits the delay of the kernel's timers: the default of 50 us would be measured as time of the agent.
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).unwrap();
        let mut client = Client::connect(socket, http());
        let time = |number| {
            let due = start + Duration::from_secs_f64(f64::from(number) / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            client.ask();
            due.elapsed().as_secs_f64()
        };
        (first..count).step_by(CLIENTS as usize).map(time).collect::<Vec<f64>>()
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..CLIENTS).map(|first| scope.spawn(move || client(first))).collect();
        all.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}
