//! A slot and its token, as the module reports them.
//!
//! PURE.

use serde::{Deserialize, Serialize};

use super::PinState;

/// A slot with a token, in the module's order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot {
    /// The `CK_SLOT_ID`.
    pub id: u64,
    /// The description of the slot; empty if `C_GetSlotInfo` failed.
    pub description: String,
    /// The manufacturer of the slot; empty if `C_GetSlotInfo` failed.
    pub manufacturer: String,
    /// The token's information, as far as it could be read.
    pub token: Option<Token>,
    /// The reason why the slot could not be read completely. Such a slot keeps its place and is never selected by its
    /// index.
    pub error: Option<String>,
}

/// `C_GetTokenInfo` (PKCS#11 3.0 section 5.5.3); strings without their padding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    /// The label from the token's initialisation.
    pub label: String,
    pub manufacturer: String,
    pub model: String,
    /// The serial number. It may be empty, all zeros, or shared by all tokens of one model.
    pub serial: String,
    /// The firmware version, such as `5.4`.
    pub firmware: String,
    /// `CKF_HW_SLOT` of the slot; `None` if `C_GetSlotInfo` failed.
    pub hardware: Option<bool>,
    /// `CKF_TOKEN_INITIALIZED`.
    pub initialized: bool,
    /// `CKF_LOGIN_REQUIRED`.
    pub login_required: bool,
    /// The state of the user's PIN.
    pub pin: PinState,
    /// `CKF_PROTECTED_AUTHENTICATION_PATH`: the PIN is entered on the token itself.
    pub pinpad: bool,
}

/// Software tokens: part of the manufacturer's name, part of the model's name, and the name for people.
const SOFTWARE_TOKENS: [(&str, &str, &str); 7] = [
    ("softhsm", "", "SoftHSM"),
    ("kryoptic", "", "kryoptic"),
    ("mozilla", "nss", "NSS"),
    ("gnome", "", "GNOME Keyring"),
    ("ibm", "soft", "openCryptoki's soft token"),
    ("", "softhsm", "SoftHSM"),
    ("", "simulator", "a simulator"),
];

impl Token {
    /// The name of the program, if the token is a known software token. It protects keys no better than files.
    #[must_use]
    pub(crate) fn software_name(&self) -> Option<&'static str> {
        let (manufacturer, model) = (self.manufacturer.to_lowercase(), self.model.to_lowercase());
        let is_it = |(maker, kind, _): &&(&str, &str, &str)| manufacturer.contains(maker) && model.contains(kind);
        SOFTWARE_TOKENS.iter().find(is_it).map(|(_, _, name)| *name)
    }
}
