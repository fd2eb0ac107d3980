//! The bodies of the fuzz targets. A unit test runs each of their seeds.

use crate::credentials::Credentials;
use crate::login_body::LoginBody;
use crate::sock_diag::message::LoopbackConnection;

/// Parses a tool's request: the value of its `Authorization` header, a line feed, and its body.
pub fn login(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (header, body) = bytes.split_at(end);
    match Credentials::read(header) {
        Ok(Credentials::Certificate(der)) => assert_eq!(der.first(), Some(&0x30)),
        Ok(Credentials::Token(token)) => assert!(token.bytes().all(|byte| byte.is_ascii_graphic())),
        Ok(Credentials::Password { .. }) | Err(_) => {}
    }
    let Ok(body) = LoginBody::read(body) else { return };
    assert!((100..=1024).contains(&body.message.len()) && body.signature.len() <= 1024);
    assert!(body.claimed_time().is_none_or(|time| time <= u64::MAX / 1000));
}

/// Parses the kernel's answer about the owner of a connection. Only an answer about this connection names a user.
pub fn owner(answer: &[u8]) {
    let (Ok(caller), Ok(server)) = ("127.0.0.1:40000".parse(), "127.0.0.1:731".parse()) else { return };
    if LoopbackConnection::new(caller, server).owner(answer).is_ok() {
        // The state is "established", and the ports are where the kernel puts them.
        assert_eq!(answer.get(17), Some(&1));
        assert_eq!(answer.get(20..24), Some(&[0x9c, 0x40, 0x02, 0xdb][..]));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn run_seeds(target: &str, body: fn(&[u8])) -> Vec<Vec<u8>> {
        let directory = format!("{}/../fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let seeds: Vec<Vec<u8>> = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{directory}: {error}"))
            .map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .collect();
        seeds.iter().for_each(|seed| body(seed));
        seeds
    }

    #[test]
    fn every_seed_of_a_login_is_run_and_most_are_read() {
        let seeds = run_seeds("gateway_login", login);
        let header = |seed: &Vec<u8>| seed.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec();
        let read = seeds.iter().filter(|seed| Credentials::read(&header(seed)).is_ok()).count();
        assert!(seeds.len() >= 5 && read >= 4, "{read} of {}", seeds.len());
    }

    #[test]
    fn every_seed_of_the_kernels_answer_is_run() {
        assert!(run_seeds("gateway_owner", owner).len() >= 4);
    }
}
