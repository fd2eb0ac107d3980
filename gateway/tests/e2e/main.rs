//! Runs the real gateway against a real agent on SoftHSM2, and the tests' service over real TLS.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

// The agent's tests wait in the same way.
#[allow(dead_code)]
#[path = "../../../tests/e2e/deadline.rs"]
mod deadline;
mod fixture;
mod gateway_process;
mod service;
mod token;

mod agents;
mod attack;
mod check;
mod clients;
mod commands;
mod completions;
mod deploy;
mod enrol;
mod lifecycle;
mod limits;
mod login;
mod malformed_requests;
mod name_resolution;
mod request_forms;
mod retries;
mod secrets;
mod tls;
mod users;
