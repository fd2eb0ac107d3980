//! A failed PKCS#11 call, as the worker reports it: function, return value, and its meaning.
//!
//! PURE. Return values are strings with their standard names (PKCS#11 3.0 section 5.1), not types of a library, so that the parent can
//! judge them without a PKCS#11 library.

use serde::{Deserialize, Serialize};

use crate::error::{Explain, Kind};

/// The reason why the worker could not fulfil a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Fault {
    /// A `C_` function returned something other than `CKR_OK`.
    #[error("{call}: {ckr}")]
    Call {
        /// The function, such as `C_Login`.
        call: String,
        /// The return value, such as `CKR_PIN_INCORRECT`, or a number without a standard name.
        ckr: String,
    },
    /// The module file could not be loaded. Contains the loader's message.
    #[error("cannot load the module: {0}")]
    Load(String),
    /// The file is a library without the entry point of a module.
    #[error("{}", no_entry_point(.library.as_deref()))]
    NoEntryPoint {
        /// A linked library that has an entry point.
        library: Option<String>,
    },
    /// The module returned `CKR_OK` with an invalid result, or lacks a required function.
    #[error("{call}: {what}")]
    Malformed {
        /// The function.
        call: String,
        /// The problem with its result.
        what: String,
    },
    /// The worker could not be confined.
    #[error("{0}")]
    Sandbox(String),
    /// The operating system returned no random bytes or no time.
    #[error("cannot make the message: {0}")]
    Message(String),
}

/// What a failed `C_Login` says about the PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PinVerdict {
    /// A try was spent, or none is left.
    Refused,
    /// The token did not check the PIN: no try was spent.
    NotTried,
    /// It is unknown whether a try was spent.
    Unknown,
}

impl Fault {
    /// A failed function, by its standard name.
    pub(crate) fn call(call: impl Into<String>, ckr: impl Into<String>) -> Self {
        Self::Call { call: call.into(), ckr: ckr.into() }
    }

    /// An invalid result of a function.
    pub(crate) fn malformed(call: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Malformed { call: call.into(), what: what.into() }
    }

    /// Whether this is exactly this return value of this function.
    #[must_use]
    pub(crate) fn is(&self, function: &str, value: &str) -> bool {
        matches!(self, Self::Call { call, ckr } if call == function && ckr == value)
    }

    /// The name of the return value, if there is one.
    #[must_use]
    pub(crate) fn ckr(&self) -> &str {
        match self {
            Self::Call { ckr, .. } => ckr,
            _ => "",
        }
    }

    /// Whether the fault came from a login, the only call that gets a PIN.
    #[must_use]
    pub(crate) fn is_login(&self) -> bool {
        matches!(self, Self::Call { call, .. } | Self::Malformed { call, .. } if call == "C_Login")
    }

    /// What a failed `C_Login` says about the sent PIN (PKCS#11 3.0 section 5.6.8).
    #[must_use]
    pub(crate) fn pin_verdict(&self) -> PinVerdict {
        match self.ckr() {
            "CKR_PIN_INCORRECT" | "CKR_PIN_INVALID" | "CKR_PIN_LOCKED" => PinVerdict::Refused,
            "CKR_PIN_LEN_RANGE"
            | "CKR_ARGUMENTS_BAD"
            | "CKR_PIN_EXPIRED"
            | "CKR_USER_PIN_NOT_INITIALIZED"
            | "CKR_USER_ANOTHER_ALREADY_LOGGED_IN"
            | "CKR_USER_TOO_MANY_TYPES"
            | "CKR_USER_TYPE_INVALID"
            | "CKR_USER_ALREADY_LOGGED_IN"
            | "CKR_OPERATION_NOT_INITIALIZED"
            | "CKR_FUNCTION_CANCELED"
            | "CKR_FUNCTION_REJECTED"
            | "CKR_CANCEL"
            | "CKR_FUNCTION_NOT_SUPPORTED" => PinVerdict::NotTried,
            // A token that was lost during the call (not present, session gone) may have checked the PIN before.
            _ => PinVerdict::Unknown,
        }
    }

    fn login_kind(&self) -> Option<Kind> {
        Some(match self.ckr() {
            "CKR_PIN_INCORRECT" | "CKR_PIN_INVALID" => Kind::PinIncorrect,
            "CKR_PIN_LOCKED" => Kind::PinLocked,
            "CKR_PIN_LEN_RANGE" | "CKR_ARGUMENTS_BAD" => Kind::PinLength,
            "CKR_PIN_EXPIRED" | "CKR_USER_PIN_NOT_INITIALIZED" => Kind::PinExpired,
            "CKR_USER_ANOTHER_ALREADY_LOGGED_IN" | "CKR_USER_TOO_MANY_TYPES" => Kind::PinState,
            "CKR_FUNCTION_CANCELED" | "CKR_FUNCTION_REJECTED" | "CKR_CANCEL" => Kind::PinMissing,
            _ => return None,
        })
    }
}

impl Explain for Fault {
    fn kind(&self) -> Kind {
        if let Some(kind) = self.is_login().then(|| self.login_kind()).flatten() {
            return kind;
        }
        match (self, self.ckr()) {
            (Self::Load(_) | Self::NoEntryPoint { .. }, _) => Kind::NotFound,
            (Self::Message(_) | Self::Sandbox(_), _) => Kind::Unexpected,
            (_, "CKR_SLOT_ID_INVALID") => Kind::NotFound,
            (_, "CKR_TOKEN_NOT_PRESENT" | "CKR_DEVICE_REMOVED" | "CKR_TOKEN_NOT_RECOGNIZED") => Kind::TokenRemoved,
            (_, "CKR_MECHANISM_INVALID" | "CKR_KEY_FUNCTION_NOT_PERMITTED" | "CKR_KEY_TYPE_INCONSISTENT") => {
                Kind::Unsuitable
            }
            (_, "CKR_PIN_EXPIRED") => Kind::PinExpired,
            (_, "CKR_SESSION_COUNT") => Kind::TokenSessions,
            _ => Kind::TokenFailed,
        }
    }

    fn hints(&self) -> Vec<String> {
        let hint = match (self, self.ckr()) {
            (Self::Load(_), _) => "check the file with `ldd -r`; a module must be built for this system".into(),
            (Self::NoEntryPoint { library: Some(library) }, _) => {
                format!("if you mean the tokens of that library, choose it: --module {library}")
            }
            (Self::NoEntryPoint { library: None }, _) => {
                "give the path of the PKCS#11 module itself; `cba-agent list` without --module shows what is found"
                    .into()
            }
            (Self::Message(_), _) => return Vec::new(),
            (Self::Sandbox(_), _) => "with --sandbox off the module runs without one".into(),
            (_, "CKR_PIN_INCORRECT") => "the PIN was sent once and will not be sent again; correct the PIN source \
                 before the next run, since a token locks after a few wrong PINs"
                .into(),
            (_, "CKR_PIN_LOCKED") => "unblock the PIN with the security officer's PIN: `pkcs11-tool --login --login-type so --init-pin`; a YubiKey \
                 with its PUK: `yubico-piv-tool -a unblock-pin`"
                .into(),
            (_, "CKR_PIN_LEN_RANGE" | "CKR_ARGUMENTS_BAD") if self.is_login() => {
                "the token does not accept a PIN of this length; no try was spent".into()
            }
            (_, "CKR_PIN_EXPIRED") => "change the PIN first: `pkcs11-tool --login --change-pin`".into(),
            (_, "CKR_USER_PIN_NOT_INITIALIZED") => "set a user PIN first: `pkcs11-tool --login --login-type so --init-pin`".into(),
            (_, "CKR_USER_ANOTHER_ALREADY_LOGGED_IN" | "CKR_USER_TOO_MANY_TYPES") => {
                "another role is logged in to this token; end that program first".into()
            }
            (_, "CKR_TOKEN_NOT_PRESENT" | "CKR_DEVICE_REMOVED" | "CKR_TOKEN_NOT_RECOGNIZED") => {
                "put the token back and run the command again; `cba-agent list` shows what is there".into()
            }
            (_, "CKR_SLOT_ID_INVALID") => "`cba-agent list` shows the slots".into(),
            (_, "CKR_SESSION_COUNT") => "the token has no session left; end other programs that use it".into(),
            (_, "CKR_MECHANISM_INVALID") => "the token offers neither CKM_SHA512_RSA_PKCS nor CKM_RSA_PKCS for this \
                 key; `pkcs11-tool --list-mechanisms` shows its mechanisms"
                .into(),
            (_, "CKR_KEY_FUNCTION_NOT_PERMITTED") => "the key may not sign; choose a key with CKA_SIGN".into(),
            (_, "CKR_GENERAL_ERROR") if matches!(self, Self::Call { call, .. } if call == "C_Initialize") => {
                "the module could not start; check its configuration, and whether its daemon runs (smart cards: pcscd); -v \
                 shows what the module itself says"
                    .into()
            }
            (_, "CKR_ARGUMENTS_BAD") if matches!(self, Self::Call { call, .. } if call == "C_Initialize") => {
                "the module may need parameters at its start, as NSS does: put them into x-init-reserved of a p11-kit \
                 configuration, see pkcs11.conf(5), and use --module p11-kit"
                    .into()
            }
            (_, "CKR_FUNCTION_CANCELED" | "CKR_FUNCTION_REJECTED" | "CKR_CANCEL") if self.is_login() => {
                "the entry of the PIN was cancelled or took too long, and no try was spent; run the command again".into()
            }
            _ => "run with -v to see what the module itself says".into(),
        };
        vec![hint]
    }
}

fn no_entry_point(library: Option<&str>) -> String {
    match library {
        Some(library) => {
            format!("it has no C_GetFunctionList; only {library}, which it is linked to, has one")
        }
        None => "it has no C_GetFunctionList, so it is not a PKCS#11 module".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_pin_is_exit_4_and_a_bad_length_spends_no_try() {
        let refused = Fault::call("C_Login", "CKR_PIN_INCORRECT");
        assert_eq!(refused.kind().exit_code(), 4);
        assert_eq!(refused.pin_verdict(), PinVerdict::Refused);
        let length = Fault::call("C_Login", "CKR_PIN_LEN_RANGE");
        assert_eq!(length.kind(), Kind::PinLength);
        assert_eq!(length.pin_verdict(), PinVerdict::NotTried);
    }

    #[test]
    fn a_login_that_ends_in_a_device_error_leaves_the_pin_unknown() {
        for ckr in [
            "CKR_TOKEN_NOT_PRESENT",
            "CKR_SESSION_CLOSED",
            "CKR_DEVICE_ERROR",
            "CKR_GENERAL_ERROR",
            "CKR_DEVICE_REMOVED",
            "CKR_VENDOR_DEFINED(0x80000001)",
        ] {
            assert_eq!(Fault::call("C_Login", ckr).pin_verdict(), PinVerdict::Unknown, "{ckr}");
        }
    }

    #[test]
    fn arguments_bad_outside_a_login_is_a_failed_token() {
        assert_eq!(Fault::call("C_Sign", "CKR_ARGUMENTS_BAD").kind(), Kind::TokenFailed);
    }

    #[test]
    fn each_return_value_has_its_kind_and_its_hint() {
        for (call, ckr, kind, hint) in [
            ("C_Login", "CKR_PIN_INCORRECT", Kind::PinIncorrect, "correct the PIN source"),
            ("C_Login", "CKR_PIN_INVALID", Kind::PinIncorrect, "-v"),
            ("C_Login", "CKR_PIN_LOCKED", Kind::PinLocked, "unblock the PIN"),
            ("C_Login", "CKR_PIN_LEN_RANGE", Kind::PinLength, "this length"),
            ("C_Login", "CKR_ARGUMENTS_BAD", Kind::PinLength, "this length"),
            ("C_Login", "CKR_PIN_EXPIRED", Kind::PinExpired, "--change-pin"),
            ("C_Sign", "CKR_PIN_EXPIRED", Kind::PinExpired, "--change-pin"),
            ("C_Login", "CKR_USER_PIN_NOT_INITIALIZED", Kind::PinExpired, "set a user PIN"),
            ("C_Login", "CKR_USER_ANOTHER_ALREADY_LOGGED_IN", Kind::PinState, "another role"),
            ("C_Login", "CKR_USER_TOO_MANY_TYPES", Kind::PinState, "another role"),
            ("C_Login", "CKR_FUNCTION_CANCELED", Kind::PinMissing, "was cancelled"),
            ("C_Login", "CKR_FUNCTION_REJECTED", Kind::PinMissing, "was cancelled"),
            ("C_Login", "CKR_CANCEL", Kind::PinMissing, "was cancelled"),
            ("C_Login", "CKR_DEVICE_ERROR", Kind::TokenFailed, "-v"),
            ("C_OpenSession", "CKR_SLOT_ID_INVALID", Kind::NotFound, "shows the slots"),
            ("C_Sign", "CKR_TOKEN_NOT_PRESENT", Kind::TokenRemoved, "put the token back"),
            ("C_Sign", "CKR_DEVICE_REMOVED", Kind::TokenRemoved, "put the token back"),
            ("C_Sign", "CKR_TOKEN_NOT_RECOGNIZED", Kind::TokenRemoved, "put the token back"),
            ("C_SignInit", "CKR_MECHANISM_INVALID", Kind::Unsuitable, "--list-mechanisms"),
            ("C_SignInit", "CKR_KEY_FUNCTION_NOT_PERMITTED", Kind::Unsuitable, "may not sign"),
            ("C_SignInit", "CKR_KEY_TYPE_INCONSISTENT", Kind::Unsuitable, "-v"),
            ("C_OpenSession", "CKR_SESSION_COUNT", Kind::TokenSessions, "no session left"),
            ("C_Initialize", "CKR_GENERAL_ERROR", Kind::TokenFailed, "could not start"),
            ("C_Sign", "CKR_GENERAL_ERROR", Kind::TokenFailed, "run with -v"),
            ("C_Initialize", "CKR_ARGUMENTS_BAD", Kind::TokenFailed, "x-init-reserved"),
            ("C_Initialize", "CKR_HOST_MEMORY", Kind::TokenFailed, "run with -v"),
            ("C_Sign", "CKR_PIN_LEN_RANGE", Kind::TokenFailed, "run with -v"),
        ] {
            let fault = Fault::call(call, ckr);
            assert_eq!(fault.kind(), kind, "{fault}");
            let hints = fault.hints();
            assert!(hints.len() == 1 && hints[0].contains(hint), "{fault}: {hints:?}");
            assert!(fault.is(call, ckr) && !fault.is("C_Other", ckr) && !fault.is(call, "CKR_OK"), "{fault}");
            assert_eq!((fault.ckr(), fault.is_login()), (ckr, call == "C_Login"));
        }
    }

    #[test]
    fn a_fault_without_a_return_value_has_its_kind_and_its_hint() {
        let library = Some("/usr/lib/libp11-kit.so.0".to_owned());
        for (fault, kind, hint, text) in [
            (Fault::Load("E".into()), Kind::NotFound, "ldd -r", "cannot load the module: E"),
            (
                Fault::NoEntryPoint { library },
                Kind::NotFound,
                "--module /usr/lib/libp11-kit.so.0",
                "only /usr/lib/libp11-kit",
            ),
            (
                Fault::NoEntryPoint { library: None },
                Kind::NotFound,
                "the path of the PKCS#11 module",
                "not a PKCS#11 module",
            ),
            (Fault::Sandbox("E".into()), Kind::Unexpected, "--sandbox off", "E"),
            (Fault::malformed("C_Sign", "E"), Kind::TokenFailed, "-v", "C_Sign: E"),
        ] {
            assert_eq!((fault.kind(), fault.ckr()), (kind, ""), "{fault}");
            let hints = fault.hints();
            assert!(hints.len() == 1 && hints[0].contains(hint), "{fault}: {hints:?}");
            assert!(fault.to_string().contains(text) && !fault.is("C_Sign", ""), "{fault}");
        }
        let message = Fault::Message("E".into());
        assert_eq!((message.kind(), message.hints()), (Kind::Unexpected, Vec::new()));
        assert!(Fault::malformed("C_Login", "E").is_login());
    }

    #[test]
    fn a_login_without_a_check_of_the_pin_spends_no_try() {
        for (ckr, verdict) in [
            ("CKR_PIN_INVALID", PinVerdict::Refused),
            ("CKR_PIN_LOCKED", PinVerdict::Refused),
            ("CKR_PIN_EXPIRED", PinVerdict::NotTried),
            ("CKR_CANCEL", PinVerdict::NotTried),
            ("CKR_USER_ALREADY_LOGGED_IN", PinVerdict::NotTried),
            ("CKR_FUNCTION_NOT_SUPPORTED", PinVerdict::NotTried),
            ("", PinVerdict::Unknown),
        ] {
            assert_eq!(Fault::call("C_Login", ckr).pin_verdict(), verdict, "{ckr}");
        }
    }
}
