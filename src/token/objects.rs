//! Reads keys and certificates. Only what is public is asked for.
//!
//! Searches are always by class: some modules also hold a hundred objects of other classes. The attributes of an object
//! are asked for at once, since each call may cost the module a look at its files, and one by one where that is not
//! answered whole: one odd value must not cost all the others.

use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, CertificateType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::fault;
use super::raw::Raw;
use crate::facts::{Certificate, Description, Key, KeyClass, KeyDetail, Objects};
use crate::fault::Fault;

/// Reads what one session sees.
pub(super) struct Reader<'a> {
    pub(super) session: &'a Session,
    /// For many attributes at once, where it knows the session.
    pub(super) raw: Option<&'a Raw>,
}

/// What an object reports of the attributes that it was asked for.
struct Reported(Vec<Attribute>);

const OF_A_KEY: [AttributeType; 5] =
    [AttributeType::KeyType, AttributeType::Label, AttributeType::Id, AttributeType::Modulus, AttributeType::Local];

const OF_A_PRIVATE_KEY: [AttributeType; 6] = [
    AttributeType::Sign,
    AttributeType::AlwaysAuthenticate,
    AttributeType::Sensitive,
    AttributeType::Extractable,
    AttributeType::AlwaysSensitive,
    AttributeType::NeverExtractable,
];

const OF_A_CERTIFICATE: [AttributeType; 4] =
    [AttributeType::CertificateType, AttributeType::Value, AttributeType::Label, AttributeType::Id];

const OF_EVIDENCE: [AttributeType; 8] = [
    AttributeType::Decrypt,
    AttributeType::SignRecover,
    AttributeType::Unwrap,
    AttributeType::Derive,
    AttributeType::Private,
    AttributeType::Modifiable,
    AttributeType::WrapWithTrusted,
    AttributeType::Local,
];

impl Reader<'_> {
    /// The objects, and their handles in the order of the numbers in the facts.
    pub(super) fn objects(&self) -> Result<(Objects, Vec<ObjectHandle>), Fault> {
        let mut objects = Objects::default();
        let mut handles = Vec::new();
        for (class, of) in [(ObjectClass::PRIVATE_KEY, KeyClass::Private), (ObjectClass::PUBLIC_KEY, KeyClass::Public)]
        {
            for handle in self.find(class)? {
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

    /// What is evidence of a private key, and the certificates beside it.
    pub(super) fn describe(&self, handle: ObjectHandle) -> Result<Description, Fault> {
        let reported = self.reported(handle, &OF_EVIDENCE)?;
        let flag = |kind| reported.flag(kind);
        let was_generated_here = flag(AttributeType::Local) == Some(true);
        let generated = was_generated_here.then(|| self.mechanisms(handle, AttributeType::KeyGenMechanism));
        let detail = KeyDetail {
            decrypt: flag(AttributeType::Decrypt),
            sign_recover: flag(AttributeType::SignRecover),
            unwrap: flag(AttributeType::Unwrap),
            derive: flag(AttributeType::Derive),
            private: flag(AttributeType::Private),
            modifiable: flag(AttributeType::Modifiable),
            wrap_with_trusted: flag(AttributeType::WrapWithTrusted),
            // Otherwise it is CK_UNAVAILABLE_INFORMATION (PKCS#11 3.0 section 4.9).
            key_generation_mechanism: generated.transpose()?.flatten().map(|names| names.concat()),
            allowed_mechanisms: self.mechanisms(handle, AttributeType::AllowedMechanisms)?,
        };
        Ok(Description { detail, certificates: self.certificates()? })
    }

    fn certificates(&self) -> Result<Vec<Certificate>, Fault> {
        let all = self.find(ObjectClass::CERTIFICATE)?.into_iter();
        all.filter_map(|handle| self.certificate(handle).transpose()).collect()
    }

    /// Mechanisms by their names; a vendor's own have none here.
    fn mechanisms(&self, handle: ObjectHandle, kind: AttributeType) -> Result<Option<Vec<String>>, Fault> {
        match self.session.get_attributes(handle, &[kind]) {
            Err(Error::NotSupported) => Ok(Some(vec!["vendor-defined".into()])),
            _ => Ok(match self.attribute(handle, kind)? {
                Some(Attribute::KeyGenMechanism(one)) => Some(vec![one.to_string()]),
                Some(Attribute::AllowedMechanisms(all)) => Some(all.iter().map(ToString::to_string).collect()),
                _ => None,
            }),
        }
    }

    fn find(&self, class: ObjectClass) -> Result<Vec<ObjectHandle>, Fault> {
        self.session.find_objects(&[Attribute::Class(class)]).map_err(fault("C_FindObjects"))
    }

    /// `None` for a key that is not RSA.
    fn key(&self, handle: ObjectHandle, class: KeyClass, number: u64) -> Result<Option<Key>, Fault> {
        let of_a_private_key = if class == KeyClass::Private { &OF_A_PRIVATE_KEY[..] } else { &[] };
        let reported = self.reported(handle, &[&OF_A_KEY, of_a_private_key].concat())?;
        if reported.0.iter().any(|one| matches!(one, Attribute::KeyType(kind) if *kind != KeyType::RSA)) {
            return Ok(None);
        }
        let (flag, bytes) = (|kind| reported.flag(kind), |kind| reported.bytes(kind));
        let modulus = bytes(AttributeType::Modulus);
        let leading = modulus.iter().take_while(|byte| **byte == 0).count();
        Ok(Some(Key {
            handle: number,
            class,
            label: bytes(AttributeType::Label),
            id: bytes(AttributeType::Id),
            modulus: modulus[leading..].to_vec(),
            sign: flag(AttributeType::Sign),
            always_authenticate: flag(AttributeType::AlwaysAuthenticate),
            sensitive: flag(AttributeType::Sensitive),
            extractable: flag(AttributeType::Extractable),
            always_sensitive: flag(AttributeType::AlwaysSensitive),
            never_extractable: flag(AttributeType::NeverExtractable),
            local: flag(AttributeType::Local),
        }))
    }

    /// `None` for a certificate that is not X.509.
    fn certificate(&self, handle: ObjectHandle) -> Result<Option<Certificate>, Fault> {
        let reported = self.reported(handle, &OF_A_CERTIFICATE)?;
        let is_foreign =
            |one: &Attribute| matches!(one, Attribute::CertificateType(kind) if *kind != CertificateType::X_509);
        if reported.0.iter().any(is_foreign) {
            return Ok(None);
        }
        let bytes = |kind| reported.bytes(kind);
        let (label, id) = (bytes(AttributeType::Label), bytes(AttributeType::Id));
        Ok(Some(Certificate { label, id, value: bytes(AttributeType::Value) }))
    }

    /// At once, or else one by one.
    fn reported(&self, handle: ObjectHandle, kinds: &[AttributeType]) -> Result<Reported, Fault> {
        let at_once = self.raw.and_then(|raw| raw.attributes(self.session.handle(), handle.handle(), kinds));
        if let Some(all) = at_once {
            return Ok(Reported(all));
        }
        let each = kinds.iter().filter_map(|kind| self.attribute(handle, *kind).transpose());
        each.collect::<Result<_, _>>().map(Reported)
    }

    /// One attribute; `None` where the token does not report it or its value does not parse.
    fn attribute(&self, handle: ObjectHandle, kind: AttributeType) -> Result<Option<Attribute>, Fault> {
        match self.session.get_attributes(handle, &[kind]) {
            Ok(attributes) => Ok(attributes.into_iter().next()),
            Err(Error::Pkcs11(
                RvError::AttributeTypeInvalid
                | RvError::AttributeSensitive
                | RvError::AttributeValueInvalid
                | RvError::InformationSensitive
                | RvError::FunctionNotSupported,
                _,
            )) => Ok(None),
            Err(error @ Error::Pkcs11(..)) => Err(fault("C_GetAttributeValue")(error)),
            Err(_) => Ok(None),
        }
    }
}

impl Reported {
    fn bytes(&self, kind: AttributeType) -> Vec<u8> {
        match self.one(kind) {
            Some(
                Attribute::Label(bytes) | Attribute::Id(bytes) | Attribute::Modulus(bytes) | Attribute::Value(bytes),
            ) => bytes.clone(),
            _ => Vec::new(),
        }
    }

    fn flag(&self, kind: AttributeType) -> Option<bool> {
        match self.one(kind) {
            Some(
                Attribute::Sign(flag)
                | Attribute::AlwaysAuthenticate(flag)
                | Attribute::Sensitive(flag)
                | Attribute::Extractable(flag)
                | Attribute::AlwaysSensitive(flag)
                | Attribute::NeverExtractable(flag)
                | Attribute::Local(flag)
                | Attribute::Decrypt(flag)
                | Attribute::SignRecover(flag)
                | Attribute::Unwrap(flag)
                | Attribute::Derive(flag)
                | Attribute::Private(flag)
                | Attribute::Modifiable(flag)
                | Attribute::WrapWithTrusted(flag),
            ) => Some(*flag),
            _ => None,
        }
    }

    fn one(&self, kind: AttributeType) -> Option<&Attribute> {
        self.0.iter().find(|one| one.attribute_type() == kind)
    }
}
