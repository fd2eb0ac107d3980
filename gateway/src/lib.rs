//! `cba-gateway`: unmodified Anaplan tools log in with the key in the PKCS#11 token.
//!
//! It is a small HTTP server that speaks Anaplan's authentication API. It verifies the caller's local identity, and never
//! forwards the caller's payload. `cba-agent` signs a fresh v2 payload. The gateway posts it to Anaplan, and returns
//! Anaplan's answer.
//!
//! ```text
//! tool ──> server/* ──> verify ──> logins ──> agents ──> upstream ──> Anaplan
//!          routes       which      one task    a payload   one POST
//!                       client?
//! ```
//!
//! | term | meaning |
//! |---|---|
//! | caller | the program at the other end of a connection to the gateway, usually a tool |
//! | client | a `[[client]]` table of the configuration, as which a caller may log in |
//! | local identity | the password or certificate of a client; Anaplan does not know it |
//! | upstream | Anaplan's authentication service. Texts for users say "Anaplan" |
//! | answer, reply | an answer comes from Anaplan, an agent or the kernel; the gateway sends a reply to a caller |
//! | result, outcome | the result of a login is Anaplan's answer or a failure; the outcome is one word for logs and metrics |
//! | spent message | a v2 message that has logged in; it cannot log in again |
//!
//! | module | job |
//! |---|---|
//! | `cli`, `manual_page`, `commands/*` | command line and manual pages; one file for each command |
//! | `serve` | set-up, signals, reload, shutdown |
//! | `server/*` | listeners, connections, TLS, routes, replies |
//! | `admin` | health, metrics and clients on a Unix socket |
//! | `login`, `logins/*` | one login; the logins in flight, copies of one message, the log line |
//! | `gateway` | the configuration that a reload replaces, and the state that survives a reload |
//! | `agents`, `upstream/*` | payloads from `cba-agent`; the HTTP client of Anaplan |
//! | `config/*` | the configuration file, and the files that it names |
//! | `spent_file` | the spent messages on disk |
//! | `rates`, `pause`, `connections`, `source`, `metrics` | limits and counters |
//! | `sock_diag/*`, `shared_users` | which user owns a loopback connection; user IDs that may stand for several users |
//! | `verify`, `credentials`, `login_body`, `request_form`, `replay`, `failure`, `upstream::answer`, `sock_diag::message` | PURE: the parts of requests, their verification, failures |
//! | `validity` | PURE: the end and the issuer of a TLS certificate |
//! | `library` | everything that the gateway uses from the agent's library |

mod admin;
mod agents;
mod cli;
mod commands;
mod config;
mod connections;
mod credentials;
mod failure;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gateway;
mod library;
mod login;
mod login_body;
mod logins;
mod manual_page;
mod metrics;
mod pause;
mod rates;
mod replay;
mod request_form;
mod serve;
mod server;
mod shared_users;
mod sock_diag;
mod source;
mod spent_file;
#[cfg(test)]
mod test_data;
mod upstream;
mod validity;
mod verify;

pub use commands::run;
