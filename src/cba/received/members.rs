//! The JSON members of a request.
//!
//! PURE.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReceivedBody {
    /// Absent for v1; `null` does not count as absent.
    #[serde(default, deserialize_with = "present")]
    pub(super) encoded_data_format: Option<String>,
    pub(super) encoded_data: String,
    pub(super) encoded_signed_data: String,
}

fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    String::deserialize(value).map(Some)
}

#[derive(Deserialize)]
pub(super) struct ReceivedHeaders {
    #[serde(rename = "Authorization")]
    pub(super) authorization: String,
    #[serde(rename = "Content-Type")]
    pub(super) content_type: String,
    /// Names of headers have no case (RFC 9110 section 5.1).
    #[serde(flatten)]
    pub(super) others: BTreeMap<String, IgnoredAny>,
}

/// A JSON object. The derived parser of a struct alone also accepts an array of its members' values.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReceivedJson {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) headers: Object<ReceivedHeaders>,
    pub(super) body: Object<ReceivedBody>,
}

/// An agent's answer. Unknown members are ignored, so that a newer agent can add some.
#[derive(Deserialize)]
pub(super) struct AnswerJson {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) headers: Object<ReceivedHeaders>,
    pub(super) body: Object<AnswerBody>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AnswerBody {
    #[serde(default, deserialize_with = "present")]
    pub(super) encoded_data_format: Option<String>,
    pub(super) encoded_data: String,
    pub(super) encoded_signed_data: String,
}

impl From<AnswerJson> for ReceivedJson {
    fn from(answer: AnswerJson) -> Self {
        let AnswerJson { method, url, headers, body } = answer;
        let Object(AnswerBody { encoded_data_format, encoded_data, encoded_signed_data }) = body;
        let body = Object(ReceivedBody { encoded_data_format, encoded_data, encoded_signed_data });
        Self { method, url, headers, body }
    }
}
