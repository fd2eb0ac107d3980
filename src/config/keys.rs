//! The table of configuration keys: for each key its place in the file, its flag, its variable and its help text.
//!
//! PURE.

/// The commands that accept a key as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Commands that use a token.
    Token,
    /// Commands that select an identity.
    Identity,
    /// Commands that log in.
    Pin,
    /// `sign`.
    Sign,
    /// Commands that apply the policy.
    Policy,
    /// `serve`.
    Serve,
    /// `sign`, and other clients of an agent.
    Socket,
    /// Commands that record payloads.
    Audit,
    /// Every command.
    Log,
}

/// The type of a value in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A string.
    Text,
    /// A whole number, or a string with one.
    Number,
    /// An array of strings. The flag is repeatable; the variable separates values by commas.
    List,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ConfigKey {
    /// The dotted path in the file.
    pub path: &'static str,
    /// The long flag. The variable is `CBA_AGENT_` and this name in capitals, for `[serve]` with `SERVE_` between.
    pub flag: &'static str,
    /// The value's name in the help.
    pub value: &'static str,
    /// The commands that have the flag.
    pub group: Group,
    /// The type in the file.
    pub shape: Shape,
    /// The help text, one sentence.
    pub help: &'static str,
}

impl ConfigKey {
    /// The environment variable.
    #[must_use]
    pub(crate) fn variable(&self) -> String {
        let mut name = String::from(if self.group == Group::Serve { "CBA_AGENT_SERVE_" } else { "CBA_AGENT_" });
        name.extend(self.flag.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }));
        name
    }
}

/// The literals of the table below.
type Literal = &'static str;

const fn text(path: Literal, flag: Literal, value: Literal, group: Group, help: Literal) -> ConfigKey {
    ConfigKey { path, flag, value, group, shape: Shape::Text, help }
}

const fn number(path: Literal, flag: Literal, value: Literal, group: Group, help: Literal) -> ConfigKey {
    ConfigKey { shape: Shape::Number, ..text(path, flag, value, group, help) }
}

const fn list(path: Literal, flag: Literal, value: Literal, group: Group, help: Literal) -> ConfigKey {
    ConfigKey { shape: Shape::List, ..text(path, flag, value, group, help) }
}

use Group::{Audit, Identity, Log, Pin, Policy, Serve, Sign, Socket, Token};

pub(crate) const KEYS: [ConfigKey; 43] = [
    text(
        "module",
        "module",
        "PATH|NAME",
        Token,
        "PKCS#11 module: absolute path, or a name such as softhsm2, opensc, ykcs11",
    ),
    number("token.slot", "slot", "N", Token, "Nth slot, from 0, among those with an initialised token"),
    number("token.slot_id", "slot-id", "ID", Token, "Raw slot ID, decimal or 0x"),
    text("token.label", "token-label", "LABEL", Token, "Token label"),
    text("token.serial", "token-serial", "SERIAL", Token, "Token serial number"),
    text("token.uri", "uri", "URI", Token, "PKCS#11 URI (RFC 7512) of token, key or certificate"),
    text("identity.key_label", "key-label", "LABEL", Identity, "Label of the private key"),
    text("identity.key_id", "key-id", "HEX", Identity, "ID of the private key, colons allowed"),
    list(
        "identity.certificate_sha256",
        "certificate-sha256",
        "FP",
        Identity,
        "SHA-256 fingerprint of the certificate; repeatable, first valid one wins",
    ),
    text(
        "identity.certificate_file",
        "certificate-file",
        "PATH",
        Identity,
        "Certificate for an HSM that stores none; needs policy certificate_source",
    ),
    text("pin.source", "pin-source", "SOURCE", Pin, "file:PATH, env:VAR, fd:N, stdin, credential:NAME, prompt, pinpad"),
    text(
        "sign.payload_version",
        "payload-version",
        "v2|v1",
        Sign,
        "Payload version; v1 can be replayed until the certificate expires",
    ),
    text("sign.auth_url", "auth-url", "URL", Sign, "Base URL of the authentication service"),
    text("sign.header_encoding", "header-encoding", "der|pem", Sign, "Form of the certificate in the header"),
    text(
        "sign.timeout",
        "timeout",
        "DURATION",
        Token,
        "Time limit for the token; a prompt does not count [default: 30s]",
    ),
    text(
        "sign.warn_before",
        "warn-before",
        "DURATION",
        Sign,
        "Warn this long before the certificate expires [default: 30d]",
    ),
    list(
        "sign.socket",
        "socket",
        "PATH",
        Socket,
        "Ask the agent on this socket; repeatable: the next is asked if one is unavailable",
    ),
    text("serve.socket", "socket", "PATH", Serve, "The agent's socket [default: $RUNTIME_DIRECTORY/agent.sock]"),
    text("serve.socket_group", "socket-group", "GROUP", Serve, "Group whose members may connect and ask for payloads"),
    number("serve.workers", "workers", "N", Serve, "Worker processes, each with one session of the token [default: 1]"),
    number("serve.queue", "queue", "N", Serve, "Requests that may wait, for each worker [default: 64]"),
    text(
        "serve.call_timeout",
        "call-timeout",
        "DURATION",
        Serve,
        "Time limit of one call of the module, including a touch [default: 25s]",
    ),
    text(
        "serve.request_timeout",
        "request-timeout",
        "DURATION",
        Serve,
        "Time limit from a request to its answer [default: 60s]",
    ),
    number(
        "serve.rate_limit_per_second",
        "rate-limit-per-second",
        "N",
        Serve,
        "Requests that each user may make in a second [default: 50]",
    ),
    number(
        "serve.total_rate_limit_per_second",
        "total-rate-limit-per-second",
        "N",
        Serve,
        "Requests that all users together may make in a second [default: 20 times the limit of each user]",
    ),
    list("serve.allow_users", "allow-users", "USER", Serve, "Users who may ask, by name or number"),
    list("serve.allow_groups", "allow-groups", "GROUP", Serve, "Groups whose members may ask"),
    list(
        "serve.monitor_groups",
        "monitor-groups",
        "GROUP",
        Serve,
        "Groups whose members may read the state, but not ask for payloads",
    ),
    text(
        "serve.metrics_file",
        "metrics-file",
        "PATH",
        Serve,
        "File for the metrics, for node_exporter's textfile collector",
    ),
    list("policy.payload_versions", "policy-payload-versions", "V", Policy, "Versions that may be signed"),
    number("policy.min_rsa_bits", "policy-min-rsa-bits", "N", Policy, "Minimum size of the RSA key [default: 2048]"),
    text(
        "policy.mechanism",
        "policy-mechanism",
        "NAME",
        Policy,
        "The only allowed mechanism: sha512-rsa-pkcs or rsa-pkcs",
    ),
    list(
        "policy.require",
        "policy-require",
        "RULE",
        Policy,
        "Required properties of the key [default: sensitive,non-extractable]",
    ),
    list(
        "policy.extended_key_usage",
        "policy-extended-key-usage",
        "USAGE",
        Policy,
        "The certificate must have one of these [default: clientAuth,emailProtection]",
    ),
    text(
        "policy.certificate_validity",
        "policy-certificate-validity",
        "enforce|warn",
        Policy,
        "Whether a certificate outside its validity is refused, or only gets a warning",
    ),
    text(
        "policy.certificate_source",
        "policy-certificate-source",
        "token|token-or-file",
        Policy,
        "Allowed source of the certificate",
    ),
    list("policy.token_serials", "policy-token-serials", "SERIAL", Policy, "Serial numbers of allowed tokens"),
    list(
        "policy.certificate_sha256",
        "policy-certificate-sha256",
        "FP",
        Policy,
        "Fingerprints of allowed certificates",
    ),
    text(
        "audit.path",
        "audit-path",
        "FILE",
        Audit,
        "Audit log: one record on disk before each payload is handed out; {user} is the name of the user",
    ),
    text("log.format", "log-format", "text|json|journald", Log, "Format of log lines and errors on standard error"),
    text("log.level", "log-level", "LEVEL", Log, "error, warn, info, debug or trace; -v is debug, -vv trace"),
    text(
        "sandbox.mode",
        "sandbox",
        "module|off",
        Token,
        "Confine the process that loads the module to the needs of that module [default: module]",
    ),
    text("state_dir", "state-dir", "DIR", Token, "Directory of the wrong-PIN fuse"),
];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_path_and_flag_is_there_once() {
        for (at, key) in KEYS.iter().enumerate() {
            let again = KEYS[at + 1..].iter().any(|other| {
                other.path == key.path
                    || other.variable() == key.variable()
                    || (other.flag, other.group) == (key.flag, key.group)
            });
            assert!(!again, "{}", key.path);
        }
    }

    #[test]
    fn variables_are_as_documented() {
        let variable = |flag| KEYS.iter().find(|key| key.flag == flag).unwrap().variable();
        assert_eq!(variable("token-serial"), "CBA_AGENT_TOKEN_SERIAL");
        assert_eq!(variable("payload-version"), "CBA_AGENT_PAYLOAD_VERSION");
        assert_eq!(variable("socket"), "CBA_AGENT_SOCKET");
        assert_eq!(variable("workers"), "CBA_AGENT_SERVE_WORKERS");
    }

    /// The rows of the reference, generated from the table of keys.
    fn rows() -> Vec<String> {
        let shape = |key: &ConfigKey| match key.shape {
            Shape::Text => "string",
            Shape::Number => "number",
            Shape::List => "list",
        };
        let cell = |text: &str| text.replace('|', "\\|");
        let row = |key: &ConfigKey| {
            format!(
                "| `{}` | {} | `--{}` | `{}` | {} |",
                key.path,
                shape(key),
                cell(&format!("{} {}", key.flag, key.value)),
                key.variable(),
                cell(key.help)
            )
        };
        KEYS.iter().map(row).collect()
    }

    #[test]
    fn the_reference_has_every_key_as_it_is() {
        let reference = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).unwrap();
        let written: Vec<&str> = reference.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(written, rows(), "the rows should be:\n{}", rows().join("\n"));
    }
}
