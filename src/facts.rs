//! The facts that a worker read from module and token, as plain values.
//!
//! PURE. Policy, selection and output use them. Nothing here can access a token. A value that the token does not report is `None`, which is
//! neither true nor false.

use std::fmt;

use serde::{Deserialize, Serialize};

mod mechanism_id;
mod objects;
mod pin_state;
mod token;
mod token_id;

pub(crate) use mechanism_id::MechanismId;
pub(crate) use objects::{
    CertificateObject, Description, KeyClass, KeyDetail, KeyObject, TokenObjects, bytes, object_name,
};
pub(crate) use pin_state::{PinRefusal, PinState};
pub(crate) use token::{Slot, Token};
pub(crate) use token_id::{TokenId, is_distinctive, stand_in};

/// `C_GetInfo` (PKCS#11 3.0 section 5.4.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Library {
    /// The Cryptoki version of the module, such as `2.40`.
    pub cryptoki: String,
    pub manufacturer: String,
    pub description: String,
    /// The module's own version, such as `2.6`.
    pub version: String,
}

/// The sandbox in which a worker loaded its module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// The profile's name, which is the name of the module.
    pub profile: &'static str,
    /// The version of Landlock's interface that confines files; `None` if the kernel has none.
    pub files: Option<u32>,
    /// Whether system calls are filtered.
    pub calls: bool,
    /// The parts that this kernel does not confine.
    pub gaps: Vec<Gap>,
}

/// A part of the sandbox that a kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Gap {
    /// Access to files: Linux 5.13, with Landlock enabled.
    Files,
    /// System calls: a kernel with seccomp.
    SystemCalls,
    /// Truncating files: Linux 6.2.
    Truncation,
    /// TCP ports: Linux 6.7.
    TcpPorts,
    /// Commands to devices: Linux 6.10.
    DeviceCommands,
    /// Signals to other processes: Linux 6.12.
    Signals,
    /// Unix sockets without a path: Linux 6.12.
    AbstractSockets,
    /// Unix sockets with a path: Linux 7.1.
    UnixSockets,
}

impl Gap {
    /// The open part, and the kernel that closes it.
    #[must_use]
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Files => "files (Linux 5.13, with Landlock enabled)",
            Self::SystemCalls => "system calls (a kernel with seccomp)",
            Self::Truncation => "the truncation of files (Linux 6.2)",
            Self::TcpPorts => "TCP ports (Linux 6.7)",
            Self::DeviceCommands => "commands to devices (Linux 6.10)",
            Self::Signals => "signals to other processes (Linux 6.12)",
            Self::AbstractSockets => "abstract Unix sockets (Linux 6.12)",
            Self::UnixSockets => "which Unix sockets are opened by path (Linux 7.1)",
        }
    }
}

impl Confinement {
    /// The parts that this kernel does not confine, and the kernels that do, in one line.
    #[must_use]
    pub(crate) fn gaps_in_words(&self) -> String {
        self.gaps.iter().map(|gap| gap.words()).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "profile {}: ", self.profile)?;
        match self.files {
            Some(abi) => write!(f, "files (Landlock ABI {abi})")?,
            None => f.write_str("files are not confined, this kernel has no Landlock")?,
        }
        f.write_str(if self.calls {
            ", system calls"
        } else {
            ", system calls are not filtered, this kernel has no seccomp"
        })?;
        if self.gaps.is_empty() {
            return Ok(());
        }
        write!(f, "; this kernel does not confine {}", self.gaps_in_words())
    }
}

/// The two ways to an RSASSA-PKCS1-v1_5 signature with SHA-512.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mechanism {
    /// `CKM_SHA512_RSA_PKCS`: the token hashes.
    Sha512RsaPkcs,
    /// `CKM_RSA_PKCS` over the DER `DigestInfo` of the SHA-512 digest (RFC 8017 section 9.2).
    RsaPkcs,
}

impl Mechanism {
    /// The standard's name.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sha512RsaPkcs => "CKM_SHA512_RSA_PKCS",
            Self::RsaPkcs => "CKM_RSA_PKCS",
        }
    }
}

/// The signature mechanisms of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mechanisms {
    /// Signature mechanisms from the mechanism list, preferred one first; empty if the list could not be read.
    pub usable: Vec<Mechanism>,
    /// Whether the module could list its mechanisms.
    pub known: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAPS: [Gap; 8] = [
        Gap::Files,
        Gap::SystemCalls,
        Gap::Truncation,
        Gap::TcpPorts,
        Gap::DeviceCommands,
        Gap::Signals,
        Gap::AbstractSockets,
        Gap::UnixSockets,
    ];

    #[test]
    fn a_sandbox_names_what_it_confines_and_each_gap() {
        let whole = Confinement { profile: "p", files: Some(6), calls: true, gaps: Vec::new() };
        assert_eq!(whole.to_string(), "profile p: files (Landlock ABI 6), system calls");
        assert_eq!(whole.gaps_in_words(), "");
        let none = Confinement { profile: "p", files: None, calls: false, gaps: GAPS.to_vec() };
        let text = none.to_string();
        assert!(text.contains("files are not confined") && text.contains("system calls are not filtered"), "{text}");
        assert!(text.ends_with(&format!("; this kernel does not confine {}", none.gaps_in_words())), "{text}");
        let words: std::collections::HashSet<&str> = GAPS.map(Gap::words).into();
        assert!(words.len() == GAPS.len() && words.iter().all(|one| text.contains(one) && one.len() > 9), "{text}");
        assert!(Gap::Files.words().contains("5.13") && Gap::TcpPorts.words().contains("6.7"));
    }

    #[test]
    fn tokens_that_are_programs_are_known_by_maker_and_model() {
        for (manufacturer, model, name) in [
            ("SoftHSM project", "SoftHSM v2", Some("SoftHSM")),
            ("Kryoptic Project", "v1", Some("kryoptic")),
            ("Mozilla Foundation", "NSS 3", Some("NSS")),
            ("Mozilla Foundation", "x", None),
            ("IBM", "Soft", Some("openCryptoki's soft token")),
            ("IBM", "EP11", None),
            ("GNOME Keyring", "1.0", Some("GNOME Keyring")),
            ("x", "SoftHSM v2", Some("SoftHSM")),
            ("Utimaco", "Simulator", Some("a simulator")),
            ("Yubico (www.yubico.com)", "YubiKey YK5", None),
            ("", "", None),
        ] {
            let token = Token { manufacturer: manufacturer.into(), model: model.into(), ..Token::default() };
            assert_eq!(token.software_name(), name, "{manufacturer} {model}");
        }
    }

    #[test]
    fn mechanisms_have_the_names_of_the_standard() {
        assert_eq!(Mechanism::Sha512RsaPkcs.name(), "CKM_SHA512_RSA_PKCS");
        assert_eq!(Mechanism::RsaPkcs.name(), "CKM_RSA_PKCS");
    }
}
