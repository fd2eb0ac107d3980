//! The reasons why a request to a worker failed, with their hints. Runs in the parent.

use std::io;
use std::time::Duration;

use crate::error::{Explain, Kind};
use crate::fault::Fault;
use crate::os::limits;
use crate::worker_protocol::FrameError;
use crate::worker_protocol::bounds::BoundsError;
use crate::worker_protocol::step::Step;

/// The reason why a request to a worker failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("cannot start the worker process")]
    Spawn(#[source] io::Error),
    #[error("cannot communicate with the worker process")]
    Socket(#[source] io::Error),
    /// The worker replied that a call of the module failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The process ended: the module crashed, or somebody killed it.
    #[error("the process that holds the module ended during {step}: {how}")]
    Died {
        /// The step of the current request.
        step: Step,
        /// The exit status or the signal, in words.
        how: String,
    },
    #[error("the token did not answer within {} during {step}", humantime::format_duration(in_milliseconds(*.timeout)))]
    TimedOut {
        /// The step of the current request.
        step: Step,
        /// The time limit of the request.
        timeout: Duration,
    },
    /// The reply is of another kind than expected.
    #[error("the worker sent an unexpected reply during {step}")]
    ProtocolError {
        /// The step of the current request.
        step: Step,
    },
    #[error("cannot parse the worker's reply")]
    Frame(#[from] FrameError),
    /// A field of the reply is larger than PKCS#11 or this program allows.
    #[error("the worker's reply exceeds a limit: {0}")]
    Bounds(#[from] BoundsError),
    /// The started process is another build of cba-agent, or another program.
    #[error("the worker is not this program (it was started from /proc/self/exe)")]
    NotThisProgram,
}

/// Without the rest of a division: "3s 333ms" is enough.
fn in_milliseconds(time: Duration) -> Duration {
    Duration::new(time.as_secs(), time.subsec_millis() * 1_000_000).max(Duration::from_millis(1))
}

impl Explain for WorkerError {
    fn kind(&self) -> Kind {
        match self {
            Self::Fault(fault) => fault.kind(),
            Self::Spawn(_) | Self::Socket(_) | Self::NotThisProgram => Kind::Unexpected,
            Self::TimedOut { .. } => Kind::TokenTimeout,
            Self::Died { .. } | Self::ProtocolError { .. } | Self::Frame(_) | Self::Bounds(_) => Kind::TokenFailed,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Fault(fault) => fault.hints(),
            Self::TimedOut { step: Step::LoadModule, .. } => vec![
                "the module hangs while it starts: check that its daemon runs and that its server can be reached, or allow more \
                 with --timeout"
                    .into(),
            ],
            Self::TimedOut { .. } => vec![
                "the token may wait for a touch, or may be gone; touch or reinsert it, or allow more with --timeout"
                    .into(),
            ],
            Self::Died { step: Step::LogIn, .. } => {
                vec!["the PIN may have been tried: `cba-agent pin-fuse` shows it; run with -v to see what the module says".into()]
            }
            Self::Died { step: Step::Start, .. } => {
                vec!["the worker needs /dev/null and /proc: `ls -l /dev/null /proc/self/exe`".into()]
            }
            Self::Died { .. } => vec!["run with -v to see what the module itself says".into()],
            Self::Spawn(error) => vec![limits::hint(error).unwrap_or("check that /proc is mounted").into()],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_is_named_in_milliseconds() {
        for (timeout, words) in [
            (Duration::from_secs(10) / 3, "within 3s 333ms during "),
            (Duration::from_secs(30), "within 30s during "),
            (Duration::from_micros(333), "within 1ms during "),
        ] {
            let error = WorkerError::TimedOut { step: Step::LogIn, timeout }.to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
