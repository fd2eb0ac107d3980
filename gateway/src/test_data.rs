//! Certificates and keys for the unit tests.

use cba_agent::Certificate;

pub(crate) const LEAF_PEM: &str = include_str!("../../tests/data/leaf.pem");

pub(crate) const KEY_PEM: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

pub(crate) fn leaf() -> Certificate {
    Certificate::from_pem(LEAF_PEM.as_bytes()).unwrap()
}

pub(crate) fn leaf_der() -> Vec<u8> {
    leaf().der().to_vec()
}
