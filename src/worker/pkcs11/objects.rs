//! Reads keys and certificates: only public attributes. Runs in the worker.
//!
//! Searches are always by class, since some modules also have a hundred objects of other classes. The attributes of an object are read in
//! one call, since each call may make the module read its files. If the answer is incomplete, they are read one by one: one unusual value
//! must not hide the others.

use cryptoki_sys::*;

use super::raw::Functions;
use crate::facts::{CertificateObject, Description, KeyClass, KeyDetail, KeyObject, MechanismId, TokenObjects};
use crate::fault::Fault;

/// Reads the objects of one session.
pub(super) struct ObjectReader<'a> {
    pub(super) functions: &'a Functions,
    pub(super) session: CK_SESSION_HANDLE,
}

/// The attributes that an object reports.
struct ReportedAttributes(Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)>);

const OF_A_KEY: [CK_ATTRIBUTE_TYPE; 5] = [CKA_KEY_TYPE, CKA_LABEL, CKA_ID, CKA_MODULUS, CKA_LOCAL];

const OF_A_PRIVATE_KEY: [CK_ATTRIBUTE_TYPE; 6] =
    [CKA_SIGN, CKA_ALWAYS_AUTHENTICATE, CKA_SENSITIVE, CKA_EXTRACTABLE, CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE];

const OF_A_CERTIFICATE: [CK_ATTRIBUTE_TYPE; 4] = [CKA_CERTIFICATE_TYPE, CKA_VALUE, CKA_LABEL, CKA_ID];

const OF_EVIDENCE: [CK_ATTRIBUTE_TYPE; 8] = [
    CKA_DECRYPT,
    CKA_SIGN_RECOVER,
    CKA_UNWRAP,
    CKA_DERIVE,
    CKA_PRIVATE,
    CKA_MODIFIABLE,
    CKA_WRAP_WITH_TRUSTED,
    CKA_LOCAL,
];

/// Return values for an attribute that the token does not report.
const NOT_REPORTED: [&str; 5] = [
    "CKR_ATTRIBUTE_TYPE_INVALID",
    "CKR_ATTRIBUTE_SENSITIVE",
    "CKR_ATTRIBUTE_VALUE_INVALID",
    "CKR_INFORMATION_SENSITIVE",
    "CKR_FUNCTION_NOT_SUPPORTED",
];

impl ObjectReader<'_> {
    /// The objects, and their handles in the order of the numbers in the facts.
    pub(super) fn objects(&self) -> Result<(TokenObjects, Vec<CK_OBJECT_HANDLE>), Fault> {
        let mut objects = TokenObjects::default();
        let mut handles = Vec::new();
        for (class, of) in [(CKO_PRIVATE_KEY, KeyClass::Private), (CKO_PUBLIC_KEY, KeyClass::Public)] {
            for handle in self.functions.find(self.session, class)? {
                let number = u64::try_from(handles.len()).unwrap_or(u64::MAX);
                if let Some(key) = self.key(handle, of, number)? {
                    objects.keys.push(key);
                    handles.push(handle);
                }
            }
        }
        objects.certificates = self.certificates()?;
        Ok((objects, handles))
    }

    /// The evidence about a private key, and the certificates in the token.
    pub(super) fn describe(&self, handle: CK_OBJECT_HANDLE) -> Result<Description, Fault> {
        let reported = self.reported(handle, &OF_EVIDENCE)?;
        let flag = |kind| reported.flag(kind);
        let was_generated_here = flag(CKA_LOCAL) == Some(true);
        let generated = was_generated_here.then(|| self.mechanisms(handle, CKA_KEY_GEN_MECHANISM));
        let detail = KeyDetail {
            decrypt: flag(CKA_DECRYPT),
            sign_recover: flag(CKA_SIGN_RECOVER),
            unwrap: flag(CKA_UNWRAP),
            derive: flag(CKA_DERIVE),
            private: flag(CKA_PRIVATE),
            modifiable: flag(CKA_MODIFIABLE),
            wrap_with_trusted: flag(CKA_WRAP_WITH_TRUSTED),
            // Otherwise it is CK_UNAVAILABLE_INFORMATION (PKCS#11 3.0 section 4.9).
            key_generation_mechanism: generated.transpose()?.flatten().and_then(|all| all.first().copied()),
            allowed_mechanisms: self.mechanisms(handle, CKA_ALLOWED_MECHANISMS)?,
        };
        Ok(Description { detail, certificates: self.certificates()? })
    }

    fn certificates(&self) -> Result<Vec<CertificateObject>, Fault> {
        let all = self.functions.find(self.session, CKO_CERTIFICATE)?.into_iter();
        all.filter_map(|handle| self.certificate(handle).transpose()).collect()
    }

    fn mechanisms(&self, handle: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Result<Option<Vec<MechanismId>>, Fault> {
        let value = self.attribute(handle, kind)?;
        Ok(value.as_deref().and_then(numbers).map(|all| all.into_iter().map(MechanismId).collect()))
    }

    /// `None` for a key that is not RSA.
    fn key(&self, handle: CK_OBJECT_HANDLE, class: KeyClass, number: u64) -> Result<Option<KeyObject>, Fault> {
        let of_a_private_key = if class == KeyClass::Private { &OF_A_PRIVATE_KEY[..] } else { &[] };
        let reported = self.reported(handle, &[&OF_A_KEY, of_a_private_key].concat())?;
        if reported.number(CKA_KEY_TYPE).is_some_and(|kind| kind != CKK_RSA) {
            return Ok(None);
        }
        let (flag, bytes) = (|kind| reported.flag(kind), |kind| reported.bytes(kind));
        let modulus = bytes(CKA_MODULUS);
        let leading = modulus.iter().take_while(|byte| **byte == 0).count();
        Ok(Some(KeyObject {
            handle: number,
            class,
            label: bytes(CKA_LABEL),
            id: bytes(CKA_ID),
            modulus: modulus[leading..].to_vec(),
            sign: flag(CKA_SIGN),
            always_authenticate: flag(CKA_ALWAYS_AUTHENTICATE),
            sensitive: flag(CKA_SENSITIVE),
            extractable: flag(CKA_EXTRACTABLE),
            always_sensitive: flag(CKA_ALWAYS_SENSITIVE),
            never_extractable: flag(CKA_NEVER_EXTRACTABLE),
            local: flag(CKA_LOCAL),
        }))
    }

    /// `None` for a certificate that is not X.509.
    fn certificate(&self, handle: CK_OBJECT_HANDLE) -> Result<Option<CertificateObject>, Fault> {
        let reported = self.reported(handle, &OF_A_CERTIFICATE)?;
        if reported.number(CKA_CERTIFICATE_TYPE).is_some_and(|kind| kind != CKC_X_509) {
            return Ok(None);
        }
        let bytes = |kind| reported.bytes(kind);
        let (label, id) = (bytes(CKA_LABEL), bytes(CKA_ID));
        Ok(Some(CertificateObject { label, id, value: bytes(CKA_VALUE) }))
    }

    /// All attributes in one call, or else one by one.
    fn reported(&self, handle: CK_OBJECT_HANDLE, kinds: &[CK_ATTRIBUTE_TYPE]) -> Result<ReportedAttributes, Fault> {
        if let Some(all) = self.functions.attributes(self.session, handle, kinds) {
            return Ok(ReportedAttributes(kinds.iter().copied().zip(all).collect()));
        }
        let read_one = |kind: &CK_ATTRIBUTE_TYPE| {
            let value = self.attribute(handle, *kind).transpose()?;
            Some(value.map(|value| (*kind, value)))
        };
        kinds.iter().filter_map(read_one).collect::<Result<_, _>>().map(ReportedAttributes)
    }

    /// One attribute; `None` if the token does not report it, or reports an invalid value.
    fn attribute(&self, handle: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Result<Option<Vec<u8>>, Fault> {
        match self.functions.attribute(self.session, handle, kind) {
            Ok(value) => Ok(Some(value)),
            Err(Fault::Malformed { .. }) => Ok(None),
            Err(fault) if NOT_REPORTED.contains(&fault.ckr()) => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

impl ReportedAttributes {
    fn bytes(&self, kind: CK_ATTRIBUTE_TYPE) -> Vec<u8> {
        self.one(kind).unwrap_or_default().to_vec()
    }

    /// `CK_TRUE` or `CK_FALSE`; any other value is neither.
    fn flag(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<bool> {
        match self.one(kind)? {
            [CK_FALSE] => Some(false),
            [CK_TRUE] => Some(true),
            _ => None,
        }
    }

    fn number(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<CK_ULONG> {
        match numbers(self.one(kind)?)?[..] {
            [number] => Some(number),
            _ => None,
        }
    }

    fn one(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<&[u8]> {
        self.0.iter().find(|(own, _)| *own == kind).map(|(_, value)| value.as_slice())
    }
}

/// The numbers in an attribute with one or more `CK_ULONG`.
fn numbers(value: &[u8]) -> Option<Vec<CK_ULONG>> {
    let chunks = value.chunks_exact(size_of::<CK_ULONG>());
    let is_whole = chunks.remainder().is_empty();
    let numbers = chunks.filter_map(|chunk| chunk.try_into().ok().map(CK_ULONG::from_ne_bytes));
    is_whole.then(|| numbers.collect())
}
