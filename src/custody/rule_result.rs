//! A row of the report: one rule, its requirement, the finding, and the verdict.
//!
//! PURE.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RuleVerdict {
    /// The requirement is met.
    Holds,
    /// Allowed, but somebody should look at it.
    Warning,
    /// The requirement is not met, or the value is not reported, which counts as not proven.
    Broken,
    /// The policy has no requirement. The report shows the value.
    #[serde(rename = "not-asked")]
    NotRequired,
    /// The policy does not allow the token, so it got no PIN, and no key is visible.
    #[serde(rename = "not-seen")]
    NotRead,
}

impl RuleVerdict {
    /// For people.
    #[must_use]
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Warning => "warning",
            Self::Broken => "broken",
            Self::NotRequired => "not required",
            Self::NotRead => "not read",
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct RuleResult {
    /// Its name: the key of `[policy]`, if there is one; a word of `require` after a dot.
    pub rule: String,
    pub means: &'static str,
    /// Its requirement.
    #[serde(rename = "asks")]
    pub requires: String,
    /// The value.
    pub found: String,
    pub verdict: RuleVerdict,
    /// The problem, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The requirement of a rule that is not configured.
pub(super) const NOTHING: &str = "any";
