//! The state of a user's PIN, from the token's flags.
//!
//! PURE. Flags can be wrong, so the fuse counts separately. The agent never tries a login that they forbid.

use serde::{Deserialize, Serialize};

use crate::error::Kind;

/// `CKF_USER_PIN_*` of a token (PKCS#11 3.0 section 3.2, `CK_TOKEN_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // five flags of the standard
pub(crate) struct PinState {
    /// `CKF_USER_PIN_INITIALIZED`.
    pub initialized: bool,
    /// `CKF_USER_PIN_COUNT_LOW`: a wrong PIN was entered since the last right one.
    pub count_low: bool,
    /// `CKF_USER_PIN_FINAL_TRY`: one more wrong PIN locks the token.
    pub final_try: bool,
    /// `CKF_USER_PIN_LOCKED`.
    pub locked: bool,
    /// `CKF_USER_PIN_TO_BE_CHANGED`.
    pub to_be_changed: bool,
}

/// The reason why the flags forbid a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PinRefusal {
    /// Determines the exit code.
    pub kind: Kind,
    /// The cause, with the flag's name.
    pub cause: &'static str,
    /// The hint.
    pub remedy: &'static str,
}

impl PinState {
    /// The refusal by the flags. Only a person may spend the last try.
    #[must_use]
    pub(crate) fn refusal(&self, attended: bool) -> Option<PinRefusal> {
        let (kind, cause, remedy) = if self.locked {
            (
                Kind::PinLocked,
                "the PIN is locked (CKF_USER_PIN_LOCKED)",
                "unblock it with the security officer's PIN: `pkcs11-tool --login --login-type so --init-pin`; or with the token's own tool \
                 and its PUK",
            )
        } else if !self.initialized {
            (
                Kind::PinExpired,
                "no user PIN was ever set (CKF_USER_PIN_INITIALIZED is not set)",
                "set one: `pkcs11-tool --login --login-type so --init-pin`",
            )
        } else if self.to_be_changed {
            (
                Kind::PinExpired,
                "the PIN must be changed first (CKF_USER_PIN_TO_BE_CHANGED)",
                "change it: `pkcs11-tool --login --change-pin`",
            )
        } else if self.final_try && !attended {
            (
                Kind::PinFinalTry,
                "one try is left (CKF_USER_PIN_FINAL_TRY), and only a person may spend it",
                "log in once by hand with the right PIN: `cba-agent sign --pin-source prompt`",
            )
        } else {
            return None;
        };
        Some(PinRefusal { kind, cause, remedy })
    }

    /// Warnings for a login that may be tried.
    #[must_use]
    pub(crate) fn warning(&self) -> Option<&'static str> {
        self.count_low.then_some("a wrong PIN was entered at this token before (CKF_USER_PIN_COUNT_LOW)")
    }

    /// The state in short words, for a list.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &'static str> {
        let notes = [
            (self.count_low, "a wrong PIN was entered"),
            (self.final_try, "ONE PIN TRY LEFT"),
            (self.locked, "PIN LOCKED"),
            (self.to_be_changed, "PIN must be changed"),
        ];
        let unset = (!self.initialized).then_some("no user PIN set");
        unset.into_iter().chain(notes.into_iter().filter_map(|(holds, word)| holds.then_some(word)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: PinState =
        PinState { initialized: true, count_low: false, final_try: false, locked: false, to_be_changed: false };

    #[test]
    fn the_most_serious_flag_is_named_and_the_last_try_needs_a_person() {
        assert_eq!(READY.refusal(false), None);
        let kind = |state: PinState, attended| state.refusal(attended).map(|refusal| refusal.kind);
        assert_eq!(kind(PinState { locked: true, final_try: true, ..READY }, true), Some(Kind::PinLocked));
        assert_eq!(kind(PinState { initialized: false, ..READY }, true), Some(Kind::PinExpired));
        assert_eq!(kind(PinState { to_be_changed: true, ..READY }, true), Some(Kind::PinExpired));
        let last = PinState { final_try: true, count_low: true, ..READY };
        assert_eq!((kind(last, false), kind(last, true)), (Some(Kind::PinFinalTry), None));
        assert!(last.warning().is_some() && last.notes().count() == 2);
    }

    #[test]
    fn a_wrong_pin_before_is_a_warning() {
        let warned = PinState { count_low: true, ..PinState::default() }.warning().unwrap();
        assert!(warned.contains("CKF_USER_PIN_COUNT_LOW"), "{warned}");
        assert_eq!(PinState::default().warning(), None);
    }
}
