//! Warnings about the private key where the configured `require` is weaker than the default.
//!
//! Runs in the parent.

use super::findings::Findings;
use crate::config::Config;
use crate::facts::{KeyClass, Token};
use crate::identity::Identity;
use crate::policy::{self, Policy};

const CHECK: &str = "key";

/// Warns about each default requirement that the list leaves out and the key does not meet.
pub(super) fn check(identity: &Identity, token: Option<&Token>, config: &Config, findings: &mut Findings) {
    for breach in policy::left_out(&config.policy, &identity.key, token) {
        findings.warn(CHECK, breach.reason(), breach.hint());
    }
}

/// The same before a login, where the key may be invisible.
pub(super) fn check_before_login(
    identity: Option<&Identity>,
    token: Option<&Token>,
    config: &Config,
    findings: &mut Findings,
) {
    if let Some(identity) = identity.filter(|identity| identity.key.class == KeyClass::Private) {
        return check(identity, token, config, findings);
    }
    let missing =
        Policy::DEFAULT_REQUIRE.into_iter().filter(|requirement| !config.policy.require.contains(requirement));
    let names: Vec<String> = missing.map(|requirement| format!("\"{}\"", requirement.name())).collect();
    if !names.is_empty() {
        let found =
            format!("the list `require` leaves out {}; only a login shows whether the key needs it", names.join(", "));
        findings.warn(CHECK, found, "look at the key: `cba-agent doctor --sign`");
    }
}
