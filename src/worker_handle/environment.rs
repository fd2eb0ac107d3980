//! The environment of a worker: which variables of this process it gets.
//!
//! Runs in the parent.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;

use zeroize::Zeroizing;

/// Variables that make vendors' modules write logs that contain the PIN.
const MODULE_DEBUG: [&str; 19] = [
    "CKNFAST_DEBUG",
    "CKNFAST_DEBUGFILE",
    "CS_PKCS11_LOG",
    "KRYOPTIC_LOG",
    "MUSCLE_DEBUG",
    "OPENCRYPTOKI_TRACE_LEVEL",
    "OPENSC_DEBUG",
    "P11_KIT_DEBUG",
    "P11_KIT_STRICT",
    "PCSCLITE_DEBUG",
    "PKCS11SPY",
    "PKCS11SPY_OUTPUT",
    "PKCS11_PROVIDER_DEBUG",
    "RUST_LOG",
    "TPM2_PKCS11_LOG_LEVEL",
    "TSS2_LOG",
    "YKCS11_DBG",
    "YKPIV_DEBUG",
    "YUBIHSM_PKCS11_DBG",
];

/// Returns the set variables for vendors' debug logs that modules do not get, for a hint.
#[must_use]
pub(crate) fn withheld() -> Vec<&'static str> {
    MODULE_DEBUG.into_iter().filter(|variable| std::env::var_os(variable).is_some()).collect()
}

/// Variables that connect the parent to systemd. A module must not use them.
const SERVICE: [&str; 6] =
    ["LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// How to start a worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerEnvironment {
    /// Variables with a PIN from the user. The worker does not get them.
    pub pin_variables: Vec<OsString>,
    /// Whether vendors' debug variables reach the module.
    pub module_debug: bool,
}

impl WorkerEnvironment {
    /// Returns the environment for the module. A variable with a PIN is left out, and its copy in memory is wiped.
    pub(super) fn variables(&self) -> Vec<(OsString, OsString)> {
        let is_withheld = |name: &OsStr| {
            SERVICE.iter().any(|other| name == *other)
                || (!self.module_debug && MODULE_DEBUG.iter().any(|other| name == *other))
        };
        let mut inherited = Vec::new();
        for (name, value) in std::env::vars_os() {
            if self.pin_variables.contains(&name) {
                drop(Zeroizing::new(value.into_vec()));
            } else if !is_withheld(&name) {
                inherited.push((name, value));
            }
        }
        inherited
    }
}
