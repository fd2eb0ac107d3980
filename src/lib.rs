//! `cba-agent`: Anaplan certificate logins, signed inside a PKCS#11 token.
//!
//! # The process boundary
//! Only a *worker* loads a PKCS#11 module. It is a disposable process: it makes a message, and the token signs it. The *parent*
//! decides, checks and prints. After any failure, the parent starts another worker.
//!
//! ```text
//! sign ──┐                                                              frames
//! serve ─┴─> signer ──> session ──> worker_handle ═══════ socket pair ═══════> worker ──> worker/pkcs11 ──> module.so
//!            policy before,          deadline, kill                            message, signature
//! list ────  check after ─> (the same session and handle)
//! ```
//!
//! # Layers, from top to bottom: a layer uses only layers below it
//! ```text
//! layer             process   contents
//! commands          parent    the subcommands, one file each, and the dispatch of the command line to them
//! serve             parent    `serve`: the socket and HTTP, who may ask, the pool of workers, metrics, systemd
//! client            parent    clients of an agent: `sign --socket`, `health`
//! signer            parent    policy before and check after a signature: the only way to a payload
//! session           parent    the way to a token: module, worker, slot, login under the fuse, identity, evidence
//! cli               parent    the command line: commands, options, help
//! output            parent    stdout: checked before a key is used, written once
//! config            parent    the table of keys, and the resolved configuration
//! worker_handle     parent    the parent's side of a worker: start, requests, deadlines, end
//! worker            worker    the worker process: its start, requests and end; pkcs11 (the module); sandbox
//! audit             parent    the hash-chained log
//! fuse              parent    the wrong-PIN fuse
//! pin               parent    sources of a PIN, the prompt, and the redacted PIN
//! sandbox_profile   both      the permissions of each known module, and where its files are
//! modules           parent    modules by name and path, and why one cannot be loaded
//! log               both      notices on stderr, written by a separate thread
//! custody           pure      evidence and verdict for auditors: text, JSON, HTML
//! payload_check     pure      the checks of a payload from any signer
//! policy            pure      facts in, decision out
//! identity          pure      selects a key and the certificate that belongs to it
//! selector          pure      selects a token: options and RFC 7512 URIs
//! http_api          pure      the body of `POST /sign`
//! problem           pure      problem documents of the HTTP API
//! worker_protocol   pure      the frames between parent and worker, and their bounds
//! cba               pure      the protocol: message, request, check
//! certificate       pure      X.509: facts, header encodings, PEM, chains, attestations
//! html_page         pure      HTML pages in single files
//! values            pure      parsers of values: words, numbers, durations, paths
//! os                both      calls of the kernel, most of them in small unsafe files
//! files             parent    files of this program: opened without following links, locked
//! deadline          both      time limits
//! facts             pure      the facts that a worker read from module and token
//! fault             pure      the failed PKCS#11 call of a worker
//! error             pure      errors: kind, exit code, hints
//! text              pure      untrusted text made printable; words for a shell
//! ```
//! PURE files do no input or output. `tests/layering.rs` fails if one does, if a layer uses one above it, if the dependencies of
//! files form a cycle, or if a file has more than 400 lines.
//!
//! # Glossary
//! - **module**: a shared library with the PKCS#11 interface, through which a program uses a token
//! - **token**: the device that holds keys; a *slot* is the place where the module shows it
//! - **identity**: a private key in a token, and the certificate with the same modulus
//! - **payload**: message, signature and certificate of one login; the *message* is the bytes that the token signs
//! - **parent**: the process that decides, checks and prints; it loads no module
//! - **worker**: the disposable process that loads a module; between the two is the *process boundary*
//! - **fuse**: the record of refused PINs, which stops further logins
//! - **policy**: the rules that key, certificate and token must meet before each signature; the *custody report* shows each
//!
//! # Invariants, each with the test that proves it
//! 1. Only payloads come out. [`worker::pkcs11::SigningKey::sign`] takes a [`cba::Message`], and a message can only be made by
//!    [`cba::Message::new`] from a version, a clock and a random source
//!    (`layering::a_message_is_created_in_one_place`, `worker_protocol::no_message_has_a_field_for_a_pin_or_for_bytes_to_sign`).
//! 2. The message is made in the worker at the last moment, after a context-specific login
//!    (`nonstandard_modules::a_slow_login_does_not_age_the_message`).
//! 3. The parent accepts a result only after [`cba::verify()`] and the policy accepted it
//!    (`faults::a_corrupted_signature_is_exit_7_and_nothing_on_stdout`), and hands it out only when its record is on disk, where
//!    records are kept (`audit::a_killed_agent_handed_out_no_payload_without_its_record`).
//! 4. [`policy::decide`] checks the worker's facts before the worker may sign (`sign::a_policy_refusal_signs_nothing`).
//! 5. A refused PIN is not sent again until the fuse clears (`fuse::ten_parallel_runs_with_a_wrong_pin_spend_one_try`).
//! 6. Only the result is on standard output. No secret is in arguments, logs or errors
//!    (`pin_secrecy::a_marker_pin_in_any_wrong_place_is_never_echoed`).
//! 7. The parent opens no network socket (`layering::nothing_opens_a_network_socket_or_ends_the_process_below_main`).
//! 8. Unsafe code is only in a few files of `worker/` and `os/` (`layering::unsafe_code_is_only_in_files_whose_header_says_so`).
//! 9. A module that is known by name is confined before its first line runs, and more strictly after the login
//!    (`sandbox::a_compromised_module_is_blocked_and_signing_continues`).

mod audit;
mod cba;
mod certificate;
mod cli;
pub mod client;
mod commands;
mod config;
mod custody;
mod deadline;
mod error;
mod facts;
mod fault;
mod files;
mod fuse;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod html_page;
mod http_api;
mod identity;
pub mod log;
mod modules;
mod os;
mod output;
mod payload_check;
mod pin;
mod policy;
mod problem;
mod sandbox_profile;
mod selector;
mod serve;
mod session;
mod signer;
mod text;
mod values;
mod worker;
mod worker_handle;
mod worker_protocol;

// The public interface: everything that cba-gateway uses, beside `client` and `log`, and the types in it. Nothing of it reaches a
// token, makes a message or starts a worker; only `run`, the whole program, does.
pub use cba::auth_url::{AuthUrl, AuthUrlError};
pub use cba::login_request::{LoginRequest, RequestFormat};
pub use cba::message::Version;
pub use cba::received::{Received, ReceivedError};
pub use cba::verify::{Freshness, VerifiedPayload};
pub use certificate::{BerError, Certificate, CertificateError, HeaderEncoding, file_format, leaf, utc};
pub use commands::run;
pub use config::{ConfigError, system_policy};
pub use deadline::Deadline;
pub use error::{Class, EXIT_CODES, Error, Explain, Kind, Result, with_causes};
pub use os::clock::now;
pub use os::descriptors::take as take_descriptor;
pub use os::subordinate_ids::{SubordinateIds, USERS as SUBORDINATE_USERS};
pub use os::{ignore_file_size_signal, prepare, refuse_privileges};
pub use output::{check_stdout, print};
pub use payload_check::{BadResult, CLOCK_TOLERANCE, PayloadError, check_received};
pub use policy::{Decision, MAX_RSA_BITS, MIN_RSA_BITS, PayloadChoice, Policy, PolicyRefusal, decide_payload};
pub use text::{hex, parse_hex, printable};
pub use values::ranges::{Durations, TIMEOUTS};
pub use values::{by_name, days};
