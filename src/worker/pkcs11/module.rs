//! A loaded and initialised module, and its slots. Runs in the worker.

use std::collections::HashSet;
use std::path::Path;

use cryptoki_sys::CKF_OS_LOCKING_OK;

use super::raw::Functions;
use super::session::Pkcs11Session;
use super::slot_info::{is_empty, padded, read_slot, version};
use crate::facts::{Library, Slot as SlotFacts};
use crate::fault::Fault;

/// A module after `C_Initialize`.
pub(crate) struct Pkcs11Module {
    functions: Functions,
}

impl Pkcs11Module {
    /// Loads a module file and initialises it for this single thread.
    ///
    /// # Errors
    /// [`Fault::Load`], or the error of `C_Initialize`.
    pub(crate) fn load(path: &Path) -> Result<Self, Fault> {
        let functions = Functions::load(path)?;
        match functions.initialize(CKF_OS_LOCKING_OK) {
            // A module that cannot lock gets a second call without locks: one thread needs none (section 5.4.1).
            Err(fault) if ["CKR_CANT_LOCK", "CKR_NEED_TO_CREATE_THREADS"].contains(&fault.ckr()) => {
                functions.initialize(0)?;
            }
            // A library of the module did it. This process uses no other module.
            Err(fault) if fault.ckr() == "CKR_CRYPTOKI_ALREADY_INITIALIZED" => {}
            other => other?,
        }
        Ok(Self { functions })
    }

    /// The module's information about itself; empty if there is none.
    #[must_use]
    pub(crate) fn library(&self) -> Library {
        let Ok(info) = self.functions.info() else { return Library::default() };
        Library {
            cryptoki: version(info.cryptokiVersion),
            manufacturer: padded(&info.manufacturerID),
            description: padded(&info.libraryDescription),
            version: version(info.libraryVersion),
        }
    }

    /// The slots with a token, in the module's order, each with the readable information.
    pub(crate) fn slots(&self) -> Result<Vec<SlotFacts>, Fault> {
        // Some modules list a slot twice, or also empty readers.
        let mut listed = HashSet::new();
        let slots = self.functions.slots()?.into_iter().filter(|slot| listed.insert(*slot));
        let slots = slots.filter(|slot| !is_empty(&self.functions, *slot));
        Ok(slots.map(|slot| read_slot(&self.functions, slot)).collect())
    }

    /// Opens a read-only session.
    pub(crate) fn open_session(&self, slot_id: u64) -> Result<Pkcs11Session<'_>, Fault> {
        Ok(Pkcs11Session::new(&self.functions, slot_id, self.functions.open_session(slot_id)?))
    }

    /// Ends the use of the module, and ignores its result.
    pub(crate) fn finalize(&self) {
        let _ = self.functions.finalize();
    }
}
