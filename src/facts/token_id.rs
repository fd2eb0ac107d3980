//! The identity of tokens: the only equality of tokens, and the rule for tokens that could be the same.
//!
//! PURE.

use std::path::{Path, PathBuf};

use super::{Slot, Token};

/// The identity of a token. If the token has a serial number, a certificate does not change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenId {
    /// A token with a real serial number.
    Serial { manufacturer: String, model: String, serial: String },
    /// A token whose serial number is empty or all zeros: its label counts too.
    Label {
        manufacturer: String,
        model: String,
        /// The serial number, which is empty or all zeros.
        serial: String,
        label: String,
    },
    /// A token whose information cannot be read: its place in its module.
    Slot {
        /// The module's canonical path.
        module: PathBuf,
        /// The `CK_SLOT_ID`.
        id: u64,
    },
}

impl TokenId {
    /// The identity of the token in a slot.
    #[must_use]
    pub(crate) fn of(slot: &Slot, module: &Path) -> Self {
        slot.token.as_ref().map_or_else(|| Self::Slot { module: module.to_owned(), id: slot.id }, Self::of_token)
    }

    /// The identity of a token with readable information.
    #[must_use]
    pub(crate) fn of_token(token: &Token) -> Self {
        let field = |text: &str| text.trim_matches([' ', '\0']).to_owned();
        let (manufacturer, model) = (field(&token.manufacturer), field(&token.model));
        let serial = field(&token.serial);
        if is_distinctive(&serial) {
            Self::Serial { manufacturer, model, serial }
        } else {
            Self::Label { manufacturer, model, serial, label: field(&token.label) }
        }
    }

    /// The identity of a token, or of a placeholder from [`stand_in`].
    #[must_use]
    pub(crate) fn of_stand_in(token: &Token) -> Self {
        let id = token.label.strip_prefix(STAND_IN).and_then(|id| id.parse().ok());
        let module = Path::new(&token.model);
        match id {
            Some(id) if token.manufacturer.is_empty() && token.serial.is_empty() && module.is_absolute() => {
                Self::Slot { module: module.to_owned(), id }
            }
            _ => Self::of_token(token),
        }
    }

    /// Whether no other token has this identity, as far as a serial number can show.
    #[must_use]
    pub(crate) fn is_unique(&self) -> bool {
        matches!(self, Self::Serial { .. })
    }

    /// Whether both could be the same token: one card through two modules, or before and after a renewal of its
    /// certificate. A serial number of zeros does not prove that two tokens differ. Neither does a label, which some
    /// modules take from a certificate. An empty serial number with another label is another token.
    #[must_use]
    pub(crate) fn may_be(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        match (self.family(), other.family()) {
            (Some(PivModule::PivByOpensc), Some(_)) | (Some(_), Some(PivModule::PivByOpensc)) => true,
            _ => match (self, other) {
                (
                    Self::Label { manufacturer, model, serial, .. },
                    Self::Label { manufacturer: other_maker, model: other_model, serial: other_serial, .. },
                ) => {
                    (manufacturer, model) == (other_maker, other_model)
                        && !serial.is_empty()
                        && !other_serial.is_empty()
                }
                _ => false,
            },
        }
    }

    fn family(&self) -> Option<PivModule> {
        let (Self::Serial { manufacturer, model, .. } | Self::Label { manufacturer, model, .. }) = self else {
            return None;
        };
        if manufacturer == "piv_II" {
            Some(PivModule::PivByOpensc)
        } else if manufacturer.starts_with("Yubico") && model.starts_with("YubiKey") {
            Some(PivModule::PivByYkcs11)
        } else {
            None
        }
    }
}

const STAND_IN: &str = "slot ID ";

/// The token in a slot. If nothing can be read, a placeholder that names slot and module.
#[must_use]
pub(crate) fn stand_in(slot: &Slot, module: &Path) -> Token {
    slot.token.clone().unwrap_or_else(|| Token {
        label: format!("{STAND_IN}{}", slot.id),
        model: module.display().to_string(),
        ..Token::default()
    })
}

/// Modules that show PIV cards.
enum PivModule {
    /// OpenSC takes the serial number from the card holder's identifier (CHUID), which ykman changes with each
    /// certificate (OpenSC issue 3460), and the label from the certificate.
    PivByOpensc,
    /// ykcs11 reads the device's serial number.
    PivByYkcs11,
}

/// Whether a serial number distinguishes tokens: not if it is empty or all zeros.
#[must_use]
pub(crate) fn is_distinctive(serial: &str) -> bool {
    serial.chars().any(|c| !matches!(c, '0' | ' ' | '\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(manufacturer: &str, model: &str, serial: &str, label: &str) -> TokenId {
        let [manufacturer, model, serial, label] = [manufacturer, model, serial, label].map(str::to_owned);
        TokenId::of_token(&Token { manufacturer, model, serial, label, ..Token::default() })
    }

    #[test]
    fn a_label_counts_only_if_the_serial_number_is_empty_or_zeros() {
        assert_eq!(id("m", "x", "1", "a"), id("m ", "x\0", " 1", "b"));
        assert_ne!(id("m", "x", "1", "a"), id("m", "x", "2", "a"));
        assert_ne!(id("m", "x", "1", "a"), id("m", "y", "1", "a"));
        for serial in ["", "0000", "   ", "\0\0"] {
            assert_eq!(id("m", "x", serial, "a"), id("m", "x", serial, "a"));
            assert_ne!(id("m", "x", serial, "a"), id("m", "x", serial, "b"));
            assert!(!id("m", "x", serial, "a").is_unique());
        }
    }

    #[test]
    fn a_slot_without_identity_is_known_by_its_place() {
        let (slot, module) = (Slot { id: 7, ..Slot::default() }, Path::new("/lib/m.so"));
        let place = TokenId::Slot { module: module.to_owned(), id: 7 };
        assert_eq!(TokenId::of(&slot, module), place);
        assert_eq!(TokenId::of_stand_in(&stand_in(&slot, module)), place);
        assert!(!place.may_be(&id("m", "x", "00", "a")));
    }

    #[test]
    fn tokens_that_could_be_the_same_are_recognised() {
        let (card, renewed) =
            (id("piv_II", "PKCS#15 emulated", "aa", "old"), id("piv_II", "PKCS#15 emulated", "bb", "new"));
        let yubikey = id("Yubico (www.yubico.com)", "YubiKey YK5", "12345678", "YubiKey PIV #12345678");
        let another = id("Yubico (www.yubico.com)", "YubiKey YK5", "22345678", "YubiKey PIV #22345678");
        for (a, b, may_be) in [
            (&card, &renewed, true),
            (&card, &yubikey, true),
            (&yubikey, &another, false),
            (&id("m", "x", "00", "a"), &id("m", "x", "00", "b"), true),
            (&id("m", "x", "", "a"), &id("m", "x", "", "b"), false),
            (&id("m", "x", "00", "a"), &id("m", "y", "00", "a"), false),
            (&id("m", "x", "1", "a"), &id("m", "x", "2", "a"), false),
            (&card, &id("m", "x", "1", "a"), false),
        ] {
            assert_eq!((a.may_be(b), b.may_be(a)), (may_be, may_be), "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_placeholder_is_known_by_all_of_its_fields() {
        let slot = Slot { id: 7, ..Slot::default() };
        let placeholder = stand_in(&slot, Path::new("/m.so"));
        assert_eq!((placeholder.label.as_str(), placeholder.model.as_str()), ("slot ID 7", "/m.so"));
        let id = TokenId::of_stand_in(&placeholder);
        assert_eq!(id, TokenId::Slot { module: "/m.so".into(), id: 7 });
        assert_eq!(id, TokenId::of(&slot, Path::new("/m.so")));
        for token in [
            Token { manufacturer: "m".into(), ..placeholder.clone() },
            Token { serial: "1".into(), ..placeholder.clone() },
            Token { model: "m.so".into(), ..placeholder.clone() },
            Token { label: "slot ID x".into(), ..placeholder.clone() },
            Token { manufacturer: "m".into(), serial: "1".into(), ..placeholder },
        ] {
            assert_eq!(TokenId::of_stand_in(&token), TokenId::of_token(&token), "{token:?}");
        }
    }

    #[test]
    fn only_a_serial_number_makes_an_identity_unique() {
        let id = |serial: &str| TokenId::of_token(&Token { serial: serial.into(), ..Token::default() });
        assert!(id("1").is_unique() && !id("000").is_unique() && !id("").is_unique());
        assert!(!TokenId::Slot { module: "/m.so".into(), id: 1 }.is_unique());
    }

    #[test]
    fn a_yubikey_is_known_by_maker_and_model() {
        let token = |manufacturer: &str, model: &str, serial: &str| {
            TokenId::of_token(&Token {
                manufacturer: manufacturer.into(),
                model: model.into(),
                serial: serial.into(),
                ..Token::default()
            })
        };
        let by_opensc = token("piv_II", "PKCS#15 emulated", "1");
        for (manufacturer, model, wanted) in [
            ("Yubico (www.yubico.com)", "YubiKey YK5", true),
            ("Yubico", "YubiHSM", false),
            ("Other", "YubiKey YK5", false),
            ("piv_II", "x", true),
        ] {
            let other = token(manufacturer, model, "2");
            assert_eq!(
                (by_opensc.may_be(&other), other.may_be(&by_opensc)),
                (wanted, wanted),
                "{manufacturer} {model}"
            );
        }
    }
}
