//! Splits BER (X.690) into its values, and writes them as DER.
//!
//! PURE. Certificates in use are not always DER: lengths have more bytes than necessary, or are indefinite. This reader
//! accepts both, as OpenSSL does. The crates `der` and `x509-cert` then decode each value from its DER.

use std::borrow::Cow;

use der::{Encode as _, Length};

/// The maximum nesting of values with indefinite length.
const MAX_DEPTH: usize = 16;

/// The maximum nesting of values that are rewritten in DER. Certificates in use are nested less deeply; deeper values
/// stay unchanged.
const MAX_DEPTH_OF_DER: usize = 24;

/// The bit of a tag that is set if the content consists of values.
const CONSTRUCTED: u8 = 0x20;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// A context-specific tag, primitive.
pub(super) const fn context(number: u8) -> u8 {
    0x80 | number
}

/// A context-specific tag, constructed.
pub(super) const fn constructed(number: u8) -> u8 {
    0xa0 | number
}

/// The reason why bytes are not the expected BER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BerError {
    /// The value is longer than the bytes that hold it.
    #[error("it ends too early")]
    Truncated,
    /// A length of more than four bytes, or an indefinite one where it is not allowed.
    #[error("a length is not valid")]
    Length,
    /// Values of indefinite length are nested too deep.
    #[error("it is nested too deep")]
    Depth,
    /// Another type than the expected one.
    #[error("type {found:#04x} was found, {wanted:#04x} was expected")]
    Type {
        /// The first byte of the found tag.
        found: u8,
        /// The tag that is expected.
        wanted: u8,
    },
    /// More values than the standard allows here.
    #[error("more follows than the standard allows")]
    Trailing,
    /// The right type with an invalid value.
    #[error("{0}")]
    Value(&'static str),
    /// The library cannot decode the value.
    #[error("{0}")]
    Der(#[from] der::Error),
}

/// One value with its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    /// The first byte of the tag. It distinguishes all types that certificates use.
    pub(super) tag: u8,
    tag_length: usize,
    pub(super) content: &'a [u8],
    /// Tag, length and content.
    pub(super) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads one value from the beginning, and ignores the rest.
    pub(super) fn first(bytes: &'a [u8]) -> Result<Self, BerError> {
        element(bytes, 0)
    }

    /// The value, if it has this tag.
    pub(super) fn of(self, wanted: u8) -> Result<Self, BerError> {
        if self.tag == wanted { Ok(self) } else { Err(BerError::Type { found: self.tag, wanted }) }
    }

    pub(super) fn reader(self) -> BerReader<'a> {
        BerReader(self.content)
    }

    /// The value in DER: with the shortest lengths, and `ff` for true.
    pub(super) fn to_der(self) -> Vec<u8> {
        self.to_der_within(MAX_DEPTH_OF_DER)
    }

    fn to_der_within(self, depth: usize) -> Vec<u8> {
        let content = match (self.tag, self.content) {
            (BOOLEAN, [flag]) if *flag != 0 => Cow::Borrowed(&[0xff][..]),
            (tag, content) if tag & CONSTRUCTED == 0 || depth == 0 => Cow::Borrowed(content),
            // Bytes that are not values stay unchanged; decoding them fails.
            _ => self.values_in_der(depth - 1).map_or(Cow::Borrowed(self.content), Cow::Owned),
        };
        let mut der = self.whole[..self.tag_length].to_vec();
        // invariant: a certificate is shorter than 4 GiB.
        der.extend(Length::try_from(content.len()).and_then(|length| length.to_der()).unwrap_or_default());
        der.extend_from_slice(&content);
        der
    }

    fn values_in_der(self, depth: usize) -> Option<Vec<u8>> {
        let (mut inside, mut der) = (self.reader(), Vec::with_capacity(self.content.len()));
        while !inside.is_finished() {
            der.extend(inside.next().ok()?.to_der_within(depth));
        }
        Some(der)
    }
}

/// The DER of a value that fills all of `bytes`.
pub(super) fn in_der(bytes: &[u8]) -> Result<Vec<u8>, BerError> {
    let mut all = BerReader::new(bytes);
    let value = all.next()?;
    all.finish()?;
    Ok(value.to_der())
}

/// Reads values one after another.
#[derive(Clone, Copy, Debug)]
pub(super) struct BerReader<'a>(&'a [u8]);

impl<'a> BerReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_finished(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn first_tag(self) -> Option<u8> {
        self.0.first().copied()
    }

    pub(super) fn next(&mut self) -> Result<Element<'a>, BerError> {
        let element = Element::first(self.0)?;
        self.0 = &self.0[element.whole.len()..];
        Ok(element)
    }

    /// The next value, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<Element<'a>, BerError> {
        let found = *self.0.first().ok_or(BerError::Truncated)?;
        if found == tag { self.next() } else { Err(BerError::Type { found, wanted: tag }) }
    }

    /// The next value, if it has this tag.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, BerError> {
        if self.0.first() == Some(&tag) { self.next().map(Some) } else { Ok(None) }
    }

    /// Checks that nothing follows.
    pub(super) fn finish(self) -> Result<(), BerError> {
        if self.0.is_empty() { Ok(()) } else { Err(BerError::Trailing) }
    }
}

/// The digits of an unsigned number, without leading zeros; `true` where its first bit makes it negative by the standard.
pub(super) fn unsigned(content: &[u8]) -> Result<(&[u8], bool), BerError> {
    let is_negative = *content.first().ok_or(BerError::Value("a number without a value"))? & 0x80 != 0;
    let zeros = content.iter().take_while(|byte| **byte == 0).count();
    Ok((&content[zeros..], is_negative))
}

fn element(bytes: &[u8], depth: usize) -> Result<Element<'_>, BerError> {
    let tag = *bytes.first().ok_or(BerError::Truncated)?;
    let tag_length = if tag & 0x1f == 0x1f {
        // A set first bit means that another byte follows.
        let more = bytes[1..].iter().take_while(|byte| **byte & 0x80 != 0).count();
        2 + more
    } else {
        1
    };
    let first = *bytes.get(tag_length).ok_or(BerError::Truncated)?;
    let start = tag_length + 1;
    let (start, length) = match first {
        0..=0x7f => (start, usize::from(first)),
        0x80 if tag & CONSTRUCTED != 0 => return indefinite(bytes, tag_length, depth),
        0x81..=0x84 => {
            let count = usize::from(first - 0x80);
            let digits = bytes.get(start..start + count).ok_or(BerError::Truncated)?;
            let length = digits.iter().fold(0_u32, |length, byte| length << 8 | u32::from(*byte));
            (start + count, usize::try_from(length).map_err(|_| BerError::Length)?)
        }
        _ => return Err(BerError::Length),
    };
    let end = start.checked_add(length).ok_or(BerError::Length)?;
    let content = bytes.get(start..end).ok_or(BerError::Truncated)?;
    Ok(Element { tag, tag_length, content, whole: &bytes[..end] })
}

/// A value that ends at two zero bytes.
fn indefinite(bytes: &[u8], tag_length: usize, depth: usize) -> Result<Element<'_>, BerError> {
    if depth == MAX_DEPTH {
        return Err(BerError::Depth);
    }
    let start = tag_length + 1;
    let mut end = start;
    loop {
        let rest = &bytes[end..];
        if rest.starts_with(&[0, 0]) {
            let (content, whole) = (&bytes[start..end], &bytes[..end + 2]);
            return Ok(Element { tag: bytes[0], tag_length, content, whole });
        }
        end += element(rest, depth + 1)?.whole.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_read_in_all_their_forms() {
        for (bytes, der) in [
            (&[0x04, 1, 7, 9][..], &[0x04, 1, 7][..]),
            (&[0x04, 0x81, 1, 7, 9], &[0x04, 1, 7]),
            (&[0x04, 0x84, 0, 0, 0, 1, 7, 9], &[0x04, 1, 7]),
            (&[0x1f, 0x81, 0x01, 1, 7, 9], &[0x1f, 0x81, 0x01, 1, 7]),
        ] {
            let element = Element::first(bytes).unwrap();
            assert_eq!((element.content, element.to_der()), (&[7][..], der.to_vec()), "{bytes:?}");
            assert_eq!(element.whole, &bytes[..bytes.len() - 1]);
        }
        let nested = Element::first(&[0x30, 0x80, 0x30, 0x80, 0x04, 1, 7, 0, 0, 0, 0, 9]).unwrap();
        assert_eq!((nested.content, nested.whole.len()), (&[0x30, 0x80, 0x04, 1, 7, 0, 0][..], 11));
        assert_eq!(nested.to_der(), [0x30, 5, 0x30, 3, 0x04, 1, 7]);
    }

    #[test]
    fn values_are_written_as_der_wants_them() {
        for (bytes, der) in [
            (&[0x30, 3, 1, 1, 1][..], Some(&[0x30, 3, 1, 1, 0xff][..])),
            (&[0x30, 3, 1, 1, 0], Some(&[0x30, 3, 1, 1, 0])),
            (&[0x30, 4, 1, 2, 1, 1], Some(&[0x30, 4, 1, 2, 1, 1])),
            (&[0xa3, 0x81, 2, 0x30, 5], Some(&[0xa3, 2, 0x30, 5])),
            (&[0xa3, 0x81, 4, 0x30, 0x81, 1, 0], Some(&[0xa3, 3, 0x30, 1, 0])),
            (&[4, 1, 7, 0], None),
            (&[4, 2, 7], None),
        ] {
            assert_eq!(in_der(bytes).ok().as_deref(), der, "{bytes:?}");
        }
        for length in [0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let value = der::asn1::OctetString::new(vec![7; length]).unwrap();
            let der = value.to_der().unwrap();
            assert_eq!(in_der(&der).unwrap(), der, "{length}");
        }
    }

    #[test]
    fn nesting_without_end_is_left_as_it_is() {
        let mut bytes = vec![0x04, 0x81, 1, 7];
        for _ in 0..30 {
            bytes = [&[0x30, 0x81, u8::try_from(bytes.len()).unwrap()], &bytes[..]].concat();
        }
        let der = in_der(&bytes).unwrap();
        assert_eq!(der.len(), bytes.len() - MAX_DEPTH_OF_DER - 1);
        assert_eq!(in_der(&[0x30, 0x80].repeat(5_000)), Err(BerError::Depth));
    }

    #[test]
    fn invalid_lengths_are_refused() {
        for (bytes, error) in [
            (&[][..], BerError::Truncated),
            (&[0x04], BerError::Truncated),
            (&[0x04, 2, 7], BerError::Truncated),
            (&[0x04, 0x80, 0, 0], BerError::Length),
            (&[0x04, 0x85, 0, 0, 0, 0, 1, 7], BerError::Length),
            (&[0x30, 0x80, 0x04, 1], BerError::Truncated),
            (&[0x30, 0x80].repeat(MAX_DEPTH + 1), BerError::Depth),
        ] {
            assert_eq!(Element::first(bytes), Err(error), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            if let Ok(element) = Element::first(&bytes) {
                prop_assert!(bytes.starts_with(element.whole));
                let der = element.to_der();
                prop_assert_eq!(in_der(&der).unwrap(), der);
            }
        }
    }
}
