//! Who attempts a login, and how it ended: what the fuse counts by.
//!
//! PURE.

/// Identifies the state of a PIN file without any information about the PIN: a digest over path, device, inode, time of
/// change and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileMark(pub String);

/// The initiator of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AttemptBy {
    /// A person, at a prompt or at the token's PIN pad.
    Person,
    /// A persistent file in this state.
    File(FileMark),
    /// Any other source.
    Unattended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptEnd {
    /// `CKR_OK`: the PIN is right.
    Accepted,
    /// A try was spent.
    Refused,
    /// The token did not check the PIN.
    NotTried,
}
