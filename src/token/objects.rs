//! Reads keys and certificates. Only what is public is asked for.
//!
//! Searches are always by class: some modules also hold a hundred objects of other classes. Attributes are asked for one
//! at a time, since one odd value would cost all the others.

use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, CertificateType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::fault;
use crate::facts::{Certificate, Description, Key, KeyClass, KeyDetail, Objects};
use crate::fault::Fault;

/// The objects, and their handles in the order of the numbers in the facts.
pub(super) fn read(session: &Session) -> Result<(Objects, Vec<ObjectHandle>), Fault> {
    let mut objects = Objects::default();
    let mut handles = Vec::new();
    for (class, of) in [(ObjectClass::PRIVATE_KEY, KeyClass::Private), (ObjectClass::PUBLIC_KEY, KeyClass::Public)] {
        for handle in find(session, class)? {
            let number = u64::try_from(handles.len()).unwrap_or(u64::MAX);
            if let Some(key) = key(session, handle, of, number)? {
                objects.keys.push(key);
                handles.push(handle);
            }
        }
    }
    objects.certificates = certificates(session)?;
    Ok((objects, handles))
}

/// What is evidence of a private key, and the certificates beside it.
pub(super) fn describe(session: &Session, handle: ObjectHandle) -> Result<Description, Fault> {
    let flag = |kind| flag(session, handle, kind);
    let detail = KeyDetail {
        decrypt: flag(AttributeType::Decrypt)?,
        sign_recover: flag(AttributeType::SignRecover)?,
        unwrap: flag(AttributeType::Unwrap)?,
        derive: flag(AttributeType::Derive)?,
        private: flag(AttributeType::Private)?,
        modifiable: flag(AttributeType::Modifiable)?,
        wrap_with_trusted: flag(AttributeType::WrapWithTrusted)?,
        key_generation_mechanism: mechanisms(session, handle, AttributeType::KeyGenMechanism)?
            .map(|names| names.concat()),
        allowed_mechanisms: mechanisms(session, handle, AttributeType::AllowedMechanisms)?,
    };
    Ok(Description { detail, certificates: certificates(session)? })
}

fn certificates(session: &Session) -> Result<Vec<Certificate>, Fault> {
    let all = find(session, ObjectClass::CERTIFICATE)?.into_iter();
    all.filter_map(|handle| certificate(session, handle).transpose()).collect()
}

/// Mechanisms by their names; a vendor's own have none here.
fn mechanisms(session: &Session, handle: ObjectHandle, kind: AttributeType) -> Result<Option<Vec<String>>, Fault> {
    if kind == AttributeType::KeyGenMechanism && flag(session, handle, AttributeType::Local)? != Some(true) {
        // Then it is CK_UNAVAILABLE_INFORMATION (PKCS#11 3.0 section 4.9).
        return Ok(None);
    }
    match session.get_attributes(handle, &[kind]) {
        Err(Error::NotSupported) => Ok(Some(vec!["vendor-defined".into()])),
        _ => Ok(match attribute(session, handle, kind)? {
            Some(Attribute::KeyGenMechanism(one)) => Some(vec![one.to_string()]),
            Some(Attribute::AllowedMechanisms(all)) => Some(all.iter().map(ToString::to_string).collect()),
            _ => None,
        }),
    }
}

fn find(session: &Session, class: ObjectClass) -> Result<Vec<ObjectHandle>, Fault> {
    session.find_objects(&[Attribute::Class(class)]).map_err(fault("C_FindObjects"))
}

/// `None` for a key that is not RSA.
fn key(session: &Session, handle: ObjectHandle, class: KeyClass, number: u64) -> Result<Option<Key>, Fault> {
    if let Some(Attribute::KeyType(kind)) = attribute(session, handle, AttributeType::KeyType)? {
        if kind != KeyType::RSA {
            return Ok(None);
        }
    }
    let flag = |kind| flag(session, handle, kind);
    let private = |kind| if class == KeyClass::Private { flag(kind) } else { Ok(None) };
    let modulus = bytes(session, handle, AttributeType::Modulus)?;
    let leading = modulus.iter().take_while(|byte| **byte == 0).count();
    Ok(Some(Key {
        handle: number,
        class,
        label: bytes(session, handle, AttributeType::Label)?,
        id: bytes(session, handle, AttributeType::Id)?,
        modulus: modulus[leading..].to_vec(),
        sign: private(AttributeType::Sign)?,
        always_authenticate: private(AttributeType::AlwaysAuthenticate)?,
        sensitive: private(AttributeType::Sensitive)?,
        extractable: private(AttributeType::Extractable)?,
        always_sensitive: private(AttributeType::AlwaysSensitive)?,
        never_extractable: private(AttributeType::NeverExtractable)?,
        local: flag(AttributeType::Local)?,
    }))
}

/// `None` for a certificate that is not X.509.
fn certificate(session: &Session, handle: ObjectHandle) -> Result<Option<Certificate>, Fault> {
    if let Some(Attribute::CertificateType(kind)) = attribute(session, handle, AttributeType::CertificateType)? {
        if kind != CertificateType::X_509 {
            return Ok(None);
        }
    }
    let value = bytes(session, handle, AttributeType::Value)?;
    let label = bytes(session, handle, AttributeType::Label)?;
    let id = bytes(session, handle, AttributeType::Id)?;
    Ok(Some(Certificate { label, id, value }))
}

fn bytes(session: &Session, handle: ObjectHandle, kind: AttributeType) -> Result<Vec<u8>, Fault> {
    Ok(match attribute(session, handle, kind)? {
        Some(Attribute::Label(bytes) | Attribute::Id(bytes) | Attribute::Modulus(bytes) | Attribute::Value(bytes)) => {
            bytes
        }
        _ => Vec::new(),
    })
}

fn flag(session: &Session, handle: ObjectHandle, kind: AttributeType) -> Result<Option<bool>, Fault> {
    Ok(match attribute(session, handle, kind)? {
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
        ) => Some(flag),
        _ => None,
    })
}

/// One attribute; `None` where the token does not report it or its value does not parse.
fn attribute(session: &Session, handle: ObjectHandle, kind: AttributeType) -> Result<Option<Attribute>, Fault> {
    match session.get_attributes(handle, &[kind]) {
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
