//! What token and key say of themselves, collected for the custody report.

use super::Reached;
use crate::certificate::unpadded;
use crate::custody::{Evidence, Held};
use crate::error::Result;
use crate::facts::{Description, Mechanism};
use crate::identity::Identity;
use crate::modules;
use crate::worker::wire::{Reply, Request};

impl Reached {
    /// What can be known without a login; `module_sha256` is the digest of the module's file.
    #[must_use]
    pub fn evidence(&self, module_sha256: Option<String>) -> Evidence {
        let opened = &self.opened;
        Evidence {
            module: opened.module.display().to_string(),
            module_sha256,
            module_open: modules::writable_by_others(&opened.module),
            library: opened.library.clone(),
            confinement: opened.confinement.clone(),
            token: self.slot.token.clone(),
            held: None,
        }
    }

    /// What else a key says of itself, and the certificates beside it.
    ///
    /// # Errors
    /// What the token answered.
    pub fn describe(&mut self, identity: &Identity) -> Result<Description> {
        match self.ask(&Request::Describe { key: identity.key.handle })? {
            Reply::Described(description) => Ok(description),
            _ => Err(self.opened.handle.out_of_turn("reading the key").into()),
        }
    }
}

/// An identity with its description.
#[must_use]
pub fn held(identity: &Identity, mechanism: Mechanism, description: Description) -> Held {
    Held {
        key: identity.key.clone(),
        detail: description.detail,
        certificate: identity.certificate.clone(),
        from_file: identity.from_file,
        mechanism,
        others: description
            .certificates
            .iter()
            .filter_map(|stored| Some(unpadded(&stored.value).ok()?.to_vec()))
            .collect(),
    }
}
