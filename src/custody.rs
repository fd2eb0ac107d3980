//! Evidence for a key-custody policy: the facts about token, key and certificate, checked against each rule.
//!
//! PURE. The document's members have a stable order, and values that change between runs are separate in `run`. Its schema is
//! `docs/custody.schema.json`. [`text`] and [`html`] show the same document to people.

mod attestation_check;
mod criteria;
mod evidence;
pub(crate) mod html;
mod other_checks;
mod report;
mod rule_result;
mod rules;
mod sections;
#[cfg(test)]
mod tests;
pub(crate) mod text;

pub(crate) use criteria::{Criteria, PolicySources, TrustedRoots};
pub(crate) use evidence::{Evidence, KeyCopy, KeyEvidence};
pub(crate) use report::Report;
