//! Anaplan's certificate-based authentication: the message, the payload, the request, and their check.
//!
//! PURE. It has no token, file, clock or random source; time and randomness are arguments. Terms: the *message* is the 100 bytes that are signed,
//! the *payload* is the JSON body, and the *request* is the HTTP request that carries it.

pub(crate) mod auth_url;
pub(crate) mod login_page;
pub(crate) mod login_request;
pub(crate) mod message;
pub(crate) mod received;
pub(crate) mod verify;

pub(crate) use auth_url::AuthUrl;
pub(crate) use login_request::{LoginRequest, RequestFormat};
pub(crate) use message::{Message, Version};
pub(crate) use verify::{UncheckedPayload, VerifiedPayload, Violation, verify};
