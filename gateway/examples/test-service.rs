//! The tests' authentication service as a program, for `gateway/demo` and for trying tools:
//! `test-service PORT TLS-CHAIN.pem TLS-KEY.pem REGISTERED.pem`.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/e2e/service.rs"]
mod service;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, port, chain, key, registered] = arguments.as_slice() else {
        panic!("test-service PORT TLS-CHAIN.pem TLS-KEY.pem REGISTERED.pem");
    };
    let read = |path: &String| std::fs::read(path).unwrap();
    let _service = service::Service::start(port.parse().unwrap(), &read(chain), &read(key), &read(registered));
    loop {
        std::thread::park();
    }
}
