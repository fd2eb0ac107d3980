//! The items of the agent's library that the gateway uses. Other files import them from here.

pub use cba_agent::cba::received::Received;
pub use cba_agent::cba::verify::Freshness;
pub use cba_agent::cba::{AuthUrl, Format, Request as LoginRequest, Version};
pub use cba_agent::certificate::{Certificate, HeaderEncoding, utc};
pub use cba_agent::certificate::{file_format, leaf};
pub use cba_agent::client as agent_client;
pub use cba_agent::client::ClientError;
pub use cba_agent::config::system_policy;
pub use cba_agent::deadline::Deadline;
pub use cba_agent::error::{Class, EXIT_CODES, Error, Explain, Kind, Result};
pub use cba_agent::log;
pub use cba_agent::os::descriptors::take as take_descriptor;
pub use cba_agent::os::subordinate_ids::{SubordinateIds, USERS as SUBORDINATE_USERS};
pub use cba_agent::os::{prepare, refuse_privileges, survive_file_limits};
pub use cba_agent::output::{check_stdout, print};
pub use cba_agent::payload_check::{CLOCK_TOLERANCE, check_received};
pub use cba_agent::policy::{MAX_RSA_BITS, MIN_RSA_BITS, Policy, Wish, decide_payload};
pub use cba_agent::session::now;
pub use cba_agent::text::{hex, parse_hex, printable};
pub use cba_agent::values::ranges::TIMEOUTS;
pub use cba_agent::values::{by_name, days};
