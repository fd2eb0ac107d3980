//! The items of the agent's library that the gateway uses. Other files import them from here.

pub(crate) use cba_agent::{
    AuthUrl, CLOCK_TOLERANCE, Certificate, Class, Deadline, EXIT_CODES, Error, Freshness, HeaderEncoding, Kind,
    LoginRequest, MAX_RSA_BITS, MIN_RSA_BITS, PayloadChoice, Policy, Received, RequestFormat as Format, Result,
    SUBORDINATE_USERS, SubordinateIds, TIMEOUTS, Version, by_name, check_received, check_stdout,
    client as agent_client, client::ClientError, days, decide_payload, file_format, hex, ignore_file_size_signal, leaf,
    log, now, parse_hex, prepare, print, printable, refuse_privileges, system_policy, take_descriptor, utc,
    with_causes,
};
