//! Collects the facts about token and key for the custody report.
//!
//! Runs in the parent.

use super::SlotSession;
use crate::certificate::unpadded;
use crate::custody::{Evidence, KeyCopy, KeyEvidence};
use crate::error::Result;
use crate::facts::{Description, KeyDetail, Mechanism};
use crate::identity::Identity;
use crate::modules;
use crate::worker_protocol::step::Step;
use crate::worker_protocol::{WorkerReply, WorkerRequest};

/// Further copies of the key are judged by the policy, but not described.
const MAX_COPIES: usize = 8;

/// Further attributes of a key and its copies, and the certificates in the token.
#[derive(Debug, Default)]
pub(crate) struct KeyDescriptions {
    key: Description,
    copies: Vec<KeyDetail>,
}

impl SlotSession {
    /// The facts without a login. `module_sha256` is the digest of the module's file.
    #[must_use]
    pub(crate) fn evidence(&self, module_sha256: Option<String>) -> Evidence {
        let loaded = &self.module;
        Evidence {
            module: loaded.path.display().to_string(),
            module_sha256,
            module_open: modules::writable_by_others(&loaded.path),
            library: loaded.library.clone(),
            confinement: loaded.confinement.clone(),
            token: self.slot.token.clone(),
            key: None,
        }
    }

    /// Reads further attributes of the key and its copies.
    pub(crate) fn describe(&mut self, identity: &Identity) -> Result<KeyDescriptions> {
        let key = self.description(identity.key.handle)?;
        let copies = identity.copies.iter().take(MAX_COPIES);
        let copies = copies.map(|copy| Ok(self.description(copy.handle)?.detail)).collect::<Result<_>>()?;
        Ok(KeyDescriptions { key, copies })
    }

    fn description(&mut self, key: u64) -> Result<Description> {
        match self.ask(&WorkerRequest::Describe { key })? {
            WorkerReply::Described(description) => Ok(description),
            _ => Err(self.module.handle.protocol_error(Step::ReadKey).into()),
        }
    }
}

/// An identity with its description.
#[must_use]
pub(crate) fn key_evidence(identity: &Identity, mechanism: Mechanism, described: KeyDescriptions) -> KeyEvidence {
    let details = described.copies.into_iter().chain(std::iter::repeat(KeyDetail::default()));
    let copies = identity.copies.iter().cloned().zip(details);
    let certificates = described.key.certificates.iter();
    KeyEvidence {
        key: identity.key.clone(),
        detail: described.key.detail,
        copies: copies.map(|(key, detail)| KeyCopy { key, detail }).collect(),
        certificate: identity.certificate.clone(),
        from_file: identity.from_file,
        mechanism,
        others: certificates.filter_map(|stored| Some(unpadded(&stored.value).ok()?.to_vec())).collect(),
        same_id: identity.same_id.clone(),
        unreadable: identity
            .unreadable
            .iter()
            .filter(|certificate| certificate.is_broken())
            .map(ToString::to_string)
            .collect(),
    }
}
