//! Starts a worker, checks that it is this program, and tells it what to load.
//!
//! Runs in the parent.

use std::os::unix::net::UnixStream;
use std::path::Path;

use super::environment::WorkerEnvironment;
use super::process::{PrestartedWorker, WorkerProcess};
use super::{WorkerError, WorkerHandle};
use crate::deadline::Deadline;
use crate::worker_protocol::step::Step;
use crate::worker_protocol::{self, SandboxReport, Variable, WorkerReply, WorkerRequest};

impl WorkerHandle {
    /// Starts a worker or takes a prestarted one, and tells it to load a module in this sandbox profile. [`WorkerHandle::sandbox`] and
    /// [`WorkerHandle::wait_reply`] return its replies. The calling thread must live as long as the worker: a worker dies
    /// with the thread that started it.
    ///
    /// # Errors
    /// [`WorkerError::Spawn`], or [`WorkerError::NotThisProgram`] when the started process is not this program.
    pub(crate) fn spawn(
        environment: &WorkerEnvironment,
        prestarted: Option<PrestartedWorker>,
        (module, profile): (&Path, Option<&str>),
        deadline: &Deadline,
    ) -> Result<Self, WorkerError> {
        // A prestarted worker has no environment yet.
        let variables = || environment.variables().into_iter().map(Variable::from).collect();
        let open = WorkerRequest::Open {
            module: module.to_owned(),
            profile: profile.map(str::to_owned),
            environment: prestarted.is_some().then(variables),
        };
        let worker = prestarted.map_or_else(|| Self::process_for(environment), Ok)?;
        Self::begin(environment, worker, &open, deadline)
    }

    /// Starts a worker that connects to pcscd at this socket through the installed libpcsclite. The worker then ends.
    ///
    /// # Errors
    /// As [`WorkerHandle::spawn`], or when libpcsclite is not installed.
    pub(crate) fn ask_pcscd(
        environment: &WorkerEnvironment,
        socket: &Path,
        deadline: &Deadline,
    ) -> Result<u32, WorkerError> {
        let request = WorkerRequest::AskPcscd { socket: socket.to_owned() };
        let mut handle = Self::begin(environment, Self::process_for(environment)?, &request, deadline)?;
        match handle.wait_reply(deadline)? {
            WorkerReply::PcscdAnswered { code } => Ok(code),
            _ => Err(handle.protocol_error(Step::AskPcscd)),
        }
    }

    fn process_for(environment: &WorkerEnvironment) -> Result<PrestartedWorker, WorkerError> {
        let (socket, theirs) = UnixStream::pair().map_err(WorkerError::Spawn)?;
        let process = WorkerProcess::start(environment.variables(), theirs).map_err(WorkerError::Spawn)?;
        Ok(PrestartedWorker { process, socket })
    }

    /// Sends the first request to a started worker, and checks that the worker is this program.
    fn begin(
        environment: &WorkerEnvironment,
        started: PrestartedWorker,
        request: &WorkerRequest,
        deadline: &Deadline,
    ) -> Result<Self, WorkerError> {
        let PrestartedWorker { process, socket } = started;
        let writes_logs = environment.module_debug || tracing::enabled!(tracing::Level::DEBUG);
        let mut handle = Self {
            process,
            socket,
            long_wait_notice: None,
            pending_step: None,
            login_is_due: false,
            login_started: false,
            writes_logs,
            received: Vec::new(),
        };
        handle.deliver(request, None).map_err(|error| match error {
            // It ended before it read the request.
            WorkerError::Died { how, .. } => WorkerError::Died { step: Step::Start, how },
            other => other,
        })?;
        handle.pending_step = Some(Step::Start);
        match handle.receive(Step::Start, deadline) {
            Ok(WorkerReply::Hello { build }) if build == worker_protocol::BUILD => {
                handle.pending_step = Some(Step::of(request));
                Ok(handle)
            }
            Ok(_) | Err(WorkerError::Frame(_)) => Err(WorkerError::NotThisProgram),
            Err(error) => Err(error),
        }
    }

    /// Returns the sandbox that the worker entered before it loaded the module. This is the first reply after
    /// [`WorkerHandle::spawn`].
    ///
    /// # Errors
    /// As [`WorkerHandle::call`], or when the worker reports another profile than the requested one.
    pub(crate) fn sandbox(
        &mut self,
        profile: Option<&str>,
        deadline: &Deadline,
    ) -> Result<Option<SandboxReport>, WorkerError> {
        match self.wait_reply(deadline)? {
            WorkerReply::Confined(report) if report.as_ref().map(|report| report.profile.as_str()) == profile => {
                Ok(report)
            }
            _ => Err(self.protocol_error(Step::LoadModule)),
        }
    }
}
