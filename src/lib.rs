//! `cba-agent`: Anaplan certificate logins, signed inside a PKCS#11 token.
//!
//! # The process boundary
//! A PKCS#11 module is loaded by a *worker* alone: a disposable process. The *parent* decides, checks and prints. The worker makes
//! a message and has the token sign it. Whatever fails, the parent recovers by starting another worker.
//!
//! ```text
//! sign ──┐                                                              frames
//! serve ─┴─> signer ──> session ──> worker_handle ═══════ socket pair ═══════> worker ──> worker/pkcs11 ──> module.so
//!            policy before,          deadline, kill                            message, signature
//! list ────  check after ─> (the same session and handle)
//! ```
//!
//! # Rooms, from top to bottom: a room uses only rooms below it
//! ```text
//! room              process   what is inside
//! commands          parent    one file for each subcommand, and the way from the command line to it
//! serve             parent    `serve`: the socket and HTTP, who may ask, the pool of workers, metrics, systemd
//! client            parent    the other end of the socket: `sign --socket`, `health`
//! signer            parent    policy before, check after: the only way to a payload
//! session           parent    the way to a token: module, worker, slot, login under the fuse, identity, evidence
//! cli               parent    the command line: commands, options, help
//! output            parent    stdout: checked before a key is used, written once
//! config            parent    the agent's keys, and the configuration that they make
//! settings          parent    text for keys: file, environment and flags
//! worker_handle     parent    the parent's side of a worker: start, requests, deadlines, end
//! worker            worker    the worker process: its start, requests and end; pkcs11 (the module); sandbox
//! audit             parent    the hash-chained log
//! fuse              parent    the wrong-PIN fuse
//! pin               parent    sources of a PIN, the prompt, and the redacted PIN
//! sandbox_profile   both      what each known module may do, and where its files are
//! modules           parent    modules by name and path, and why one cannot be loaded
//! log               parent    notices on stderr, written by a thread of its own
//! custody           pure      evidence and verdict for auditors: text, JSON, a page
//! payload_check     pure      what must hold for a payload from any signer
//! policy            pure      facts in, decision out
//! identity          pure      which key and certificate belong together
//! selector          pure      which token is meant: options and RFC 7512 URIs
//! http_api          pure      the body of `POST /sign`
//! problem           pure      problem documents of the HTTP API
//! worker_protocol   pure      the frames between parent and worker, and their bounds
//! cba               pure      the protocol: message, request, check
//! certificate       pure      X.509: facts, header encodings, PEM, chains, attestations
//! html_page         pure      pages for people, one file each
//! os                both      what a process asks of the kernel, most of it in small unsafe files
//! files             parent    files of this program: opened without following links, locked
//! deadline          both      how long something may take
//! facts             pure      what a worker read
//! fault             pure      why a worker could not
//! error             pure      errors: kind, exit code, hints
//! text              pure      untrusted text made printable; words for a shell
//! ```
//! `tests/layering.rs` fails where a room uses one above it, or where a PURE file does input or output.
//!
//! # Invariants, each with the test that proves it
//! 1. Only payloads come out. [`worker::pkcs11::Key::sign`] takes a [`cba::Message`], and a message can only be made by
//!    [`cba::Message::new`] from a version, a clock and a random source
//!    (`layering::a_message_is_created_in_one_place`, `worker_protocol::no_message_has_a_field_for_a_pin_or_for_bytes_to_sign`).
//! 2. The message is made in the worker at the last moment, after a context-specific login
//!    (`odd::a_slow_login_does_not_age_the_message`).
//! 3. The parent accepts a result only after [`cba::verify()`] and the policy accepted it
//!    (`faults::a_corrupted_signature_is_exit_7_and_nothing_on_stdout`), and hands it out only when its record is on disk, where
//!    records are kept (`audit::a_killed_agent_handed_out_no_payload_without_its_record`).
//! 4. [`policy::decide`] runs on the worker's facts before it is told to sign (`sign::a_refused_policy_signs_nothing`).
//! 5. A refused PIN is not sent again until the fuse clears (`fuse::ten_parallel_runs_with_a_wrong_pin_spend_one_try`).
//! 6. Standard output carries the result alone; nothing secret is in arguments, logs or errors
//!    (`pin::a_marker_pin_in_any_wrong_place_is_never_echoed`).
//! 7. The parent opens no network socket (`layering::nothing_opens_a_network_socket`).
//! 8. Unsafe code stands in a few files of `worker/` and `os/` alone (`layering::unsafe_code_is_only_in_listed_files`).
//! 9. A module that is known by name is confined before its first line runs, and tighter after the login
//!    (`sandbox::a_compromised_module_is_blocked_and_signing_continues`).

pub mod audit;
pub mod cba;
pub mod certificate;
pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
pub mod custody;
pub mod deadline;
pub mod error;
pub mod facts;
pub mod fault;
pub mod files;
pub mod fuse;
pub mod html_page;
pub mod http_api;
pub mod identity;
pub mod log;
pub mod modules;
pub mod os;
pub mod output;
pub mod payload_check;
pub mod pin;
pub mod policy;
pub mod problem;
pub mod sandbox_profile;
pub mod selector;
pub mod serve;
pub mod session;
pub mod settings;
pub mod signer;
pub mod text;
pub mod worker;
pub mod worker_handle;
pub mod worker_protocol;

pub use commands::run;
