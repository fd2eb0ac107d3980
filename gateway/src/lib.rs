//! `cba-gateway`: unmodified Anaplan tools log in with the hardware key.
//!
//! It is a small HTTP server that speaks Anaplan's authentication API. It verifies the caller's local identity and
//! discards the caller's bytes. `cba-agent` makes a fresh v2 payload. The gateway posts it to Anaplan, and returns
//! Anaplan's answer.
//!
//! ```text
//! tool ──> server/* ──> verify ──> logins ──> agents ──> upstream ──> Anaplan
//!          routes       client?    one task    payload     one POST
//! ```
//!
//! | module | job |
//! |---|---|
//! | `cli`, `manual_page`, `commands/*` | command line and manual pages; one file for each command |
//! | `serve` | set-up, signals, reload, shutdown |
//! | `server/*` | listeners, connections, TLS, routes, answers |
//! | `admin` | health, metrics and clients on a Unix socket |
//! | `login`, `logins/*` | one login; the logins in flight, copies of one message, the log line |
//! | `gateway` | the set that a reload replaces, and the state that survives a reload |
//! | `agents`, `upstream/*` | payloads from `cba-agent`; Anaplan's service |
//! | `config/*` | the configuration file, and the files that it names |
//! | `spent_file` | the spent messages on disk |
//! | `rates`, `pause`, `connections`, `metrics` | limits and counters |
//! | `sock_diag/*`, `shared_users` | which user owns a loopback connection; user IDs that may stand for several users |
//! | `verify`, `credentials`, `login_body`, `request_form`, `replay`, `failure`, `upstream::answer`, `sock_diag::message` | PURE: the parts of requests, their verification, the answers to callers |
//! | `library` | everything that the gateway uses of the agent's library |

pub mod admin;
pub mod agents;
pub mod cli;
pub mod commands;
pub mod config;
pub mod connections;
pub mod credentials;
pub mod failure;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod gateway;
pub mod library;
pub mod login;
pub mod login_body;
pub mod logins;
mod manual_page;
pub mod metrics;
pub mod pause;
pub mod rates;
pub mod replay;
pub mod request_form;
pub mod serve;
pub mod server;
pub mod shared_users;
pub mod sock_diag;
pub mod source;
pub mod spent_file;
#[cfg(test)]
mod test_data;
pub mod upstream;
pub mod validity;
pub mod verify;

pub use commands::run;
