//! Limits for the reports of a worker: each text by the size of its PKCS#11 field, each list by its length.
//!
//! PURE. A module can write to the parent's socket itself, so no reply is trusted. A reply beyond a limit ends its worker. Free text, which
//! only explains an error, is shortened instead.

use crate::facts::{CertificateObject, Description, KeyObject, Library, Slot, Token};
use crate::fault::Fault;
use crate::worker_protocol::WorkerReply;

/// Slots of a module.
const SLOTS: usize = 4096;

/// RSA keys of a token.
const KEYS: usize = 8192;

/// X.509 certificates of a token.
const CERTIFICATES: usize = 2048;

/// `CKA_LABEL` and `CKA_ID` in bytes; the standard sets no limit.
const NAME: usize = 1024;

/// A certificate in bytes, with the padding that some tokens add.
const CERTIFICATE: usize = 64 << 10;

/// The modulus of a 32768-bit key in bytes.
const MODULUS: usize = 4096;

/// A message or a signature as base64.
const SIGNED: usize = 8192;

/// A version such as `255.255`.
const VERSION: usize = 7;

/// The name of a function, of a return value or of a mechanism.
const WORD: usize = 80;

/// Mechanisms of a key.
const MECHANISMS: usize = 1024;

/// An error's free text in characters.
const EXPLANATION: usize = 2000;

/// The reason why a reply is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BoundsError {
    /// Longer than its field.
    #[error("{what} has {found} characters or bytes; at most {most} are allowed")]
    TooLong { what: &'static str, found: usize, most: usize },
    #[error("there are {found} {what}; at most {most} are allowed")]
    TooMany {
        /// The kind of the entries.
        what: &'static str,
        found: usize,
        most: usize,
    },
    /// A name with characters outside the standard's names.
    #[error("{0} is not a name of the standard")]
    NoName(&'static str),
}

/// Checks a reply, and shortens its error texts.
///
/// # Errors
/// The first field beyond its limit.
pub(crate) fn check(reply: &mut WorkerReply) -> Result<(), BoundsError> {
    match reply {
        WorkerReply::Hello { build } => text("the build", build, WORD),
        WorkerReply::Confined(report) => {
            report.as_ref().map_or(Ok(()), |report| text("the sandbox's profile", &report.profile, WORD))
        }
        WorkerReply::Opened { library, slots } => {
            check_library(library)?;
            count("slots", slots.len(), SLOTS)?;
            slots.iter_mut().try_for_each(check_slot)
        }
        WorkerReply::Slot(slot) => check_slot(slot),
        WorkerReply::Session(mechanisms) => count("mechanisms", mechanisms.usable.len(), 2),
        WorkerReply::Objects(objects) => {
            count("keys", objects.keys.len(), KEYS)?;
            objects.keys.iter().try_for_each(check_key)?;
            check_certificates(&objects.certificates)
        }
        WorkerReply::Described(description) => check_description(description),
        WorkerReply::Signed { message, signature } => {
            text("the message", message, SIGNED)?;
            text("the signature", signature, SIGNED)
        }
        WorkerReply::Failed(fault) => check_fault(fault),
        WorkerReply::LoginBegins
        | WorkerReply::LoggedIn { .. }
        | WorkerReply::ContextAccepted { .. }
        | WorkerReply::Closed
        | WorkerReply::PcscdAnswered { .. } => Ok(()),
    }
}

/// `CK_INFO` (PKCS#11 3.0 section 3.1).
fn check_library(library: &Library) -> Result<(), BoundsError> {
    text("the module's Cryptoki version", &library.cryptoki, VERSION)?;
    text("the module's manufacturer", &library.manufacturer, 32)?;
    text("the module's description", &library.description, 32)?;
    text("the module's version", &library.version, VERSION)
}

/// `CK_SLOT_INFO` and `CK_TOKEN_INFO` (section 3.2).
fn check_slot(slot: &mut Slot) -> Result<(), BoundsError> {
    slot.error.iter_mut().for_each(shorten);
    text("the slot's description", &slot.description, 64)?;
    text("the slot's manufacturer", &slot.manufacturer, 32)?;
    slot.token.as_ref().map_or(Ok(()), check_token)
}

fn check_token(token: &Token) -> Result<(), BoundsError> {
    text("the token's label", &token.label, 32)?;
    text("the token's manufacturer", &token.manufacturer, 32)?;
    text("the token's model", &token.model, 16)?;
    text("the token's serial", &token.serial, 16)?;
    text("the token's firmware version", &token.firmware, VERSION)
}

fn check_key(key: &KeyObject) -> Result<(), BoundsError> {
    bytes("a key's label", &key.label, NAME)?;
    bytes("a key's ID", &key.id, NAME)?;
    bytes("a key's modulus", &key.modulus, MODULUS)
}

fn check_certificates(certificates: &[CertificateObject]) -> Result<(), BoundsError> {
    count("certificates", certificates.len(), CERTIFICATES)?;
    certificates.iter().try_for_each(|certificate| {
        bytes("a certificate's label", &certificate.label, NAME)?;
        bytes("a certificate's ID", &certificate.id, NAME)?;
        bytes("a certificate", &certificate.value, CERTIFICATE)
    })
}

fn check_description(description: &Description) -> Result<(), BoundsError> {
    let mechanisms = description.detail.allowed_mechanisms.as_deref().unwrap_or_default();
    count("allowed mechanisms", mechanisms.len(), MECHANISMS)?;
    check_certificates(&description.certificates)
}

fn check_fault(fault: &mut Fault) -> Result<(), BoundsError> {
    match fault {
        Fault::Call { call, ckr } => {
            function(call)?;
            return_value(ckr)
        }
        Fault::Malformed { call, what } => {
            shorten(what);
            function(call)
        }
        Fault::NoEntryPoint { library } => {
            library.iter_mut().for_each(shorten);
            Ok(())
        }
        Fault::Load(message) | Fault::Sandbox(message) | Fault::Message(message) => {
            shorten(message);
            Ok(())
        }
    }
}

/// A field contains bytes; invalid UTF-8 became one character for at least one byte.
fn text(what: &'static str, text: &str, most: usize) -> Result<(), BoundsError> {
    let found = text.chars().count();
    if found > most { Err(BoundsError::TooLong { what, found, most }) } else { Ok(()) }
}

fn bytes(what: &'static str, bytes: &[u8], most: usize) -> Result<(), BoundsError> {
    let found = bytes.len();
    if found > most { Err(BoundsError::TooLong { what, found, most }) } else { Ok(()) }
}

fn count(what: &'static str, found: usize, most: usize) -> Result<(), BoundsError> {
    if found > most { Err(BoundsError::TooMany { what, found, most }) } else { Ok(()) }
}

/// A function of PKCS#11, such as `C_Login`: letters alone, so that a module cannot write a sentence here.
fn function(name: &str) -> Result<(), BoundsError> {
    text("a function", name, WORD)?;
    let fits = name.strip_prefix("C_").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_alphabetic()));
    if fits { Ok(()) } else { Err(BoundsError::NoName("a function")) }
}

/// A return value, such as `CKR_OK` or `CKR_VENDOR_DEFINED(0x80000001)`.
fn return_value(name: &str) -> Result<(), BoundsError> {
    text("a return value", name, WORD)?;
    let (word, code) = name.split_once('(').map_or((name, None), |(word, code)| (word, Some(code)));
    let is_word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let is_code = |code: &str| {
        let digits = code.strip_prefix("0x").and_then(|code| code.strip_suffix(')'));
        digits.is_some_and(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()))
    };
    let fits = word.starts_with("CKR") && word.chars().all(is_word) && code.is_none_or(is_code);
    if fits { Ok(()) } else { Err(BoundsError::NoName("a return value")) }
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(EXPLANATION) {
        text.truncate(end);
        text.push('\u{2026}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::TokenObjects;

    fn token(change: impl FnOnce(&mut Token)) -> WorkerReply {
        let mut token = Token::default();
        change(&mut token);
        WorkerReply::Slot(Slot { token: Some(token), ..Slot::default() })
    }

    #[test]
    fn each_text_of_a_token_has_the_size_of_its_field() {
        type Field = fn(&mut Token) -> &mut String;
        let fields: [(Field, usize); 5] = [
            (|token| &mut token.label, 32),
            (|token| &mut token.manufacturer, 32),
            (|token| &mut token.model, 16),
            (|token| &mut token.serial, 16),
            (|token| &mut token.firmware, 7),
        ];
        for (field, size) in fields {
            // Invalid UTF-8 becomes three bytes for one.
            assert_eq!(check(&mut token(|token| *field(token) = "\u{fffd}".repeat(size))), Ok(()));
            let long = check(&mut token(|token| *field(token) = "x".repeat(size + 1)));
            assert!(matches!(long, Err(BoundsError::TooLong { .. })), "{long:?}");
        }
    }

    #[test]
    fn lists_have_a_limit() {
        let certificate = CertificateObject { label: vec![], id: vec![], value: vec![1] };
        let objects =
            |count| TokenObjects { certificates: vec![certificate.clone(); count], ..TokenObjects::default() };
        assert_eq!(check(&mut WorkerReply::Objects(objects(CERTIFICATES))), Ok(()));
        let error = check(&mut WorkerReply::Objects(objects(CERTIFICATES + 1))).unwrap_err();
        assert_eq!(error.to_string(), "there are 2049 certificates; at most 2048 are allowed");
        let description = Description { certificates: vec![certificate; CERTIFICATES + 1], ..Description::default() };
        assert!(check(&mut WorkerReply::Described(description)).is_err());
        assert!(
            check(&mut WorkerReply::Opened { library: Library::default(), slots: vec![Slot::default(); SLOTS + 1] })
                .is_err()
        );
    }

    #[test]
    fn a_function_and_its_return_value_have_the_form_of_pkcs11_names() {
        let failed = |call: &str, ckr: &str| check(&mut WorkerReply::Failed(Fault::call(call, ckr)));
        for ckr in ["CKR_OK", "CKR_PIN_LEN_RANGE", "CKR_VENDOR_DEFINED(0x80000001)", "CKR(0xdead)"] {
            assert_eq!(failed("C_GetFunctionList", ckr), Ok(()), "{ckr}");
        }
        for call in ["C_Login\n", "C_All is well", "Login", "C_\u{1b}[2J", &*"C".repeat(81), ""] {
            assert!(failed(call, "CKR_OK").is_err(), "{call}");
        }
        for ckr in ["\u{9b}2J", "CKR_OK, all is well", "CKR_ok", "CKR(0x1) all is well", "CKR(1)", "OK", ""] {
            assert!(failed("C_Login", ckr).is_err(), "{ckr}");
        }
    }

    #[test]
    fn an_error_text_is_shortened() {
        let mut reply = WorkerReply::Failed(Fault::Load("ä".repeat(4 << 20)));
        assert_eq!(check(&mut reply), Ok(()));
        let WorkerReply::Failed(Fault::Load(message)) = reply else { unreachable!() };
        assert_eq!(message.chars().count(), EXPLANATION + 1);
    }

    #[test]
    fn each_text_and_list_of_every_reply_has_its_limit() {
        let x = |length: usize| "x".repeat(length);
        let stored = |label: usize, id: usize, value: usize| CertificateObject {
            label: vec![7; label],
            id: vec![7; id],
            value: vec![7; value],
        };
        let rsa = |label: usize, id: usize, modulus: usize| KeyObject {
            label: vec![7; label],
            id: vec![7; id],
            modulus: vec![7; modulus],
            ..KeyObject::unreported(0, crate::facts::KeyClass::Public)
        };
        let library = |values: [usize; 4]| {
            let [cryptoki, manufacturer, description, version] = values.map(x);
            WorkerReply::Opened { library: Library { cryptoki, manufacturer, description, version }, slots: Vec::new() }
        };
        let keys = |keys: Vec<KeyObject>| WorkerReply::Objects(TokenObjects { keys, ..TokenObjects::default() });
        let certificates = |certificate| {
            WorkerReply::Objects(TokenObjects { certificates: vec![certificate], ..TokenObjects::default() })
        };
        let slot = |description: usize, manufacturer: usize| {
            WorkerReply::Slot(Slot { description: x(description), manufacturer: x(manufacturer), ..Slot::default() })
        };
        let signed = |message, signature| WorkerReply::Signed { message: x(message), signature: x(signature) };
        let mechanisms = |count| {
            let usable = vec![crate::facts::Mechanism::RsaPkcs; count];
            WorkerReply::Session(crate::facts::Mechanisms { usable, known: true })
        };
        let allowed = |count| {
            let mut description = Description::default();
            description.detail.allowed_mechanisms = Some(vec![crate::facts::MechanismId(1); count]);
            WorkerReply::Described(description)
        };
        for (mut fits, wrong) in [
            (WorkerReply::Hello { build: x(80) }, vec![WorkerReply::Hello { build: x(81) }]),
            (
                library([7, 32, 32, 7]),
                vec![library([8, 0, 0, 0]), library([0, 33, 0, 0]), library([0, 0, 33, 0]), library([0, 0, 0, 8])],
            ),
            (slot(64, 32), vec![slot(65, 0), slot(0, 33)]),
            (
                keys(vec![rsa(1024, 1024, 4096)]),
                vec![keys(vec![rsa(1025, 0, 0)]), keys(vec![rsa(0, 1025, 0)]), keys(vec![rsa(0, 0, 4097)])],
            ),
            (keys(vec![rsa(0, 0, 0); KEYS]), vec![keys(vec![rsa(0, 0, 0); KEYS + 1])]),
            (
                certificates(stored(1024, 1024, 64 << 10)),
                vec![
                    certificates(stored(1025, 0, 0)),
                    certificates(stored(0, 1025, 0)),
                    certificates(stored(0, 0, (64 << 10) + 1)),
                ],
            ),
            (signed(8192, 8192), vec![signed(8193, 0), signed(0, 8193)]),
            (mechanisms(2), vec![mechanisms(3)]),
            (allowed(1024), vec![allowed(1025)]),
            (WorkerReply::Closed, Vec::new()),
        ] {
            assert_eq!(check(&mut fits), Ok(()));
            for mut reply in wrong {
                assert!(check(&mut reply).is_err());
            }
        }
    }

    #[test]
    fn each_explanation_is_shortened() {
        let long = || "x".repeat(EXPLANATION + 5);
        let shortened = format!("{}\u{2026}", "x".repeat(EXPLANATION));
        for fault in [
            Fault::Load(long()),
            Fault::Sandbox(long()),
            Fault::NoEntryPoint { library: Some(long()) },
            Fault::malformed("C_Sign", long()),
        ] {
            let mut reply = WorkerReply::Failed(fault);
            assert_eq!(check(&mut reply), Ok(()));
            let WorkerReply::Failed(fault) = reply else { unreachable!() };
            assert!(fault.to_string().contains(&shortened) && !fault.to_string().contains(&long()), "{fault}");
        }
        let mut slot = WorkerReply::Slot(Slot { error: Some(long()), ..Slot::default() });
        assert_eq!(check(&mut slot), Ok(()));
        assert!(matches!(slot, WorkerReply::Slot(Slot { error: Some(error), .. }) if error == shortened));
        assert!(check(&mut WorkerReply::Failed(Fault::malformed("no function", "x"))).is_err());
    }
}
