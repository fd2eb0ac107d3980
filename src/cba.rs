//! Anaplan's certificate-based authentication: the message, the payload, the request, and their check.
//!
//! PURE. It has no token, file, clock or random source; time and randomness are arguments. Terms: the *message* is the 100 bytes that are signed,
//! the *payload* is the JSON body, and the *request* is the HTTP request that carries it.

pub mod auth_url;
pub mod login_page;
pub mod login_request;
pub mod message;
pub mod received;
pub mod verify;

pub use auth_url::AuthUrl;
pub use login_request::{Format, Request};
pub use message::{Message, Version};
pub use verify::{UncheckedPayload, VerifiedPayload, Violation, verify};
