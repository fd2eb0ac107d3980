//! `cba-agent`: Anaplan certificate logins, signed inside a PKCS#11 token.
//!
//! # The one idea
//! The process that loads a PKCS#11 module is always a disposable child. The front process never loads one: it chooses,
//! judges, checks and prints; the child makes a message and has the token sign it. Recovery from anything is another
//! child.
//!
//! ```text
//! sign ──┐                                                          frames
//! serve ─┴─> signer ──> reach ──> worker::Handle ═══ socket pair ═══> worker ─> token ─> module.so
//!            policy before,        deadline, kill                    message, signature
//! list ────  check after ─> (the same reach and handle)
//! ```
//!
//! # Rooms, and which way the arrows point (top may use below, never the reverse)
//! ```text
//! main            parse, run, exit code
//! commands/*      one file per subcommand: glue over readers and writers
//! agent/*         `serve`: server (HTTP on the socket), peer (who asks), pool (queue, workers; its rules in pool/plan are
//!                 PURE), metrics, systemd; client (`sign --socket`, `health`)
//! signer          the front's judgement, the only way to a payload
//! audit/*         the hash-chained log; chain: its records and their check (PURE)
//! reach/*         the way to a token: module, worker, slot, login under the fuse, identity, evidence
//! worker/*        the child's loop; handle: spawn, deadline, kill; output: what the module prints; wire: the frames, bounds:
//!                 what a reply may hold (both PURE)
//! token/*         the only room that names a PKCS#11 library; entry_point, raw, pcsc: unsafe code
//! config/*        file < environment < flag, resolved once; keys: every key once
//! sandbox/*       what a worker may not do: profiles (PURE), files, system calls, what an older kernel leaves open
//! modules         modules by name and path
//! pin/*           sources, prompt, the redacted Pin, the fuse; record: the fuse's rule (PURE)
//! cli             the command line, no I/O
//! output          stdout: checked before a key is used, written once
//! log/*           notices on stderr, written by a thread of its own
//! custody/*       evidence and verdict, for auditors: text, JSON, a page              PURE
//! payload_check   what must hold for a payload from any signer                         PURE
//! policy/*        facts in, decision out: key, certificate, token, version            PURE
//! identity        which key and certificate belong together                            PURE
//! selector/*      --slot .. and RFC 7512 URIs: parse, print, match                     PURE
//! cba/*           the protocol: message, request, verify                               PURE
//! certificate/*   X.509: facts, header encodings, PEM, chains, attestations           PURE
//! facts, fault    what a worker read; why it could not                                 PURE
//! page            pages for people, in one file each                                    PURE
//! process/*       what the process does to itself first; clock, death, descriptors, environment,
//!                 memory, privileges, standard_streams, turns: unsafe corners
//! store           files of its own: opened without following links, locked
//! deadline, error, printable
//! ```
//! `tests/layering.rs` reads this tree and fails where an arrow or a PURE rule is broken.
//!
//! # Invariants, each with the test that proves it
//! 1. Only payloads come out. [`token::Key::sign`] takes a [`cba::Message`], and a message can only be made by
//!    [`cba::Message::new`] from a version, a clock and a random source
//!    (`layering::a_message_is_created_in_one_place`, `wire::no_message_has_a_field_for_a_pin_or_for_bytes_to_sign`).
//! 2. The message is made in the worker at the last moment, after a context-specific login
//!    (`odd::a_slow_login_does_not_age_the_message`).
//! 3. The front accepts a result only after [`cba::verify()`] and the policy accepted it
//!    (`faults::a_corrupted_signature_is_exit_7_and_nothing_on_stdout`), and hands it out only when its record is on disk, where
//!    records are kept (`audit::a_killed_agent_handed_out_no_payload_without_its_record`).
//! 4. [`policy::decide`] runs on the worker's facts before it is told to sign (`sign::a_refused_policy_signs_nothing`).
//! 5. A refused PIN is not sent again until the fuse clears (`fuse::ten_parallel_runs_with_a_wrong_pin_spend_one_try`).
//! 6. Standard output carries the result alone; nothing secret is in arguments, logs or errors
//!    (`pin::a_marker_pin_in_any_wrong_place_is_never_echoed`).
//! 7. The front opens no network socket (`layering::nothing_opens_a_network_socket`).
//! 8. Unsafe code stands in three files of `token/` and some of `process/` alone (`layering::unsafe_code_is_only_in_listed_files`).
//! 9. A module that is known by name is confined before its first line runs, and tighter after the login
//!    (`sandbox::a_compromised_module_is_blocked_and_signing_continues`).

pub mod agent;
pub mod audit;
pub mod cba;
pub mod certificate;
pub mod cli;
pub mod commands;
pub mod config;
pub mod custody;
pub mod deadline;
pub mod error;
pub mod facts;
pub mod fault;
pub mod identity;
pub mod log;
pub mod modules;
pub mod output;
pub mod page;
pub mod payload_check;
pub mod pin;
pub mod policy;
pub mod printable;
pub mod process;
pub mod reach;
pub mod sandbox;
pub mod selector;
pub mod signer;
pub mod store;
pub mod token;
pub mod worker;

pub use commands::run;
