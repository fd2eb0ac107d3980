//! The reasons why a worker cannot be confined. Runs in the worker.

/// The reason why a worker could not be confined although the kernel supports it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("no sandbox profile '{0}'")]
    Unknown(String),
    #[error("the sandbox for files failed: {0}")]
    Files(#[from] ::landlock::RulesetError),
    #[error("the sandbox for system calls failed: {0}")]
    CallFilter(String),
    #[error("the worker cannot be made to end with its parent: {0}")]
    ParentDeath(#[from] std::io::Error),
}
