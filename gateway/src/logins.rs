//! The logins in flight. Each has one task, which outlives its callers once the payload is posted.
//!
//! A copy of a v2 message that arrives meanwhile waits for the same result. A message is spent from the first byte of
//! its reply: a reader of the reply cannot log in with a copy. If the connection is lost before the last byte, the
//! message may come again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use crate::failure::LoginFailure;
use crate::replay::{MessageId, ReplayError, SpentMessages};
use crate::spent_file::SpentFile;
use crate::upstream::UpstreamAnswer;

pub(crate) mod record;

use record::LoginRecord;

pub(crate) type LoginResult = Result<UpstreamAnswer, LoginFailure>;

/// A v2 message of a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MessageKey {
    pub client: String,
    /// The SHA-256 of the message.
    pub message: MessageId,
}

/// How long a spent message is remembered, and how many messages of one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageRetention {
    /// This host's time, in seconds of Unix time.
    pub now: u64,
    /// The last second in which the message's time could be accepted.
    pub until: u64,
    /// The maximum number of messages of one client.
    pub capacity: usize,
}

/// All logins in flight, and the spent messages.
#[derive(Debug, Default)]
pub(crate) struct RunningLogins {
    state: Mutex<LoginsState>,
    /// Notified when a login ends.
    ended: Notify,
}

#[derive(Debug, Default)]
struct LoginsState {
    running: HashMap<MessageKey, Arc<RunningLogin>>,
    spent: SpentMessages,
    /// The file of the spent messages; `None` if the gateway has no state directory.
    file: Option<SpentFile>,
    in_flight: usize,
}

#[derive(Debug)]
pub(crate) struct RunningLogin {
    /// The ID of the request that began it.
    id: String,
    /// A v2 message, and the last second for which it is remembered once it is spent.
    key: Option<(MessageKey, u64)>,
    result: watch::Sender<Option<Arc<LoginResult>>>,
    progress: Mutex<LoginProgress>,
    abandoned: Notify,
}

#[derive(Debug, Default)]
struct LoginProgress {
    waiters: usize,
    is_posted: bool,
    /// Whether the write of a reply has begun. The message counts as spent from then on.
    write_has_begun: bool,
    /// Whether a reply was written completely.
    is_delivered: bool,
    record: Option<LoginRecord>,
}

/// A caller that waits for a login's result. Dropping it without [`Waiter::delivered`] means that the caller has left.
#[derive(Debug)]
pub(crate) struct Waiter {
    logins: Arc<RunningLogins>,
    login: Arc<RunningLogin>,
    is_delivered: bool,
}

impl RunningLogins {
    /// Creates the table without logins, and with the messages that were spent before the start.
    #[must_use]
    pub(crate) fn new(file: SpentFile, spent: SpentMessages) -> Self {
        let state = LoginsState { spent, file: Some(file), ..LoginsState::default() };
        Self { state: Mutex::new(state), ended: Notify::new() }
    }

    /// Joins the login with the same message, or begins a new one and passes it to `start`, which runs it.
    ///
    /// # Errors
    /// When the message was used, or no more messages can be remembered.
    pub(crate) fn join_or_start(
        self: &Arc<Self>,
        id: &str,
        key: Option<(MessageKey, MessageRetention)>,
        start: impl FnOnce(Arc<RunningLogin>),
    ) -> Result<Waiter, ReplayError> {
        let mut state = self.lock();
        if let Some((key, retention)) = &key {
            if let Some(login) = state.running.get(key).cloned() {
                login.lock().waiters += 1;
                return Ok(Waiter { logins: Arc::clone(self), login, is_delivered: false });
            }
            state.spent.check(&key.client, &key.message, retention.now, retention.capacity)?;
        }
        let login = Arc::new(RunningLogin::new(id, key.map(|(key, retention)| (key, retention.until))));
        if let Some((key, _)) = &login.key {
            state.running.insert(key.clone(), Arc::clone(&login));
        }
        state.in_flight += 1;
        drop(state);
        start(Arc::clone(&login));
        Ok(Waiter { logins: Arc::clone(self), login, is_delivered: false })
    }

    /// Returns a login that was refused before it started. It is logged and counted as any other login.
    pub(crate) fn refused(self: &Arc<Self>, mut record: LoginRecord, failure: LoginFailure) -> Waiter {
        record.set_failure(&failure);
        let login = Arc::new(RunningLogin::new(&record.id, None));
        login.lock().record = Some(record);
        login.result.send_replace(Some(Arc::new(Err(failure))));
        Waiter { logins: Arc::clone(self), login, is_delivered: false }
    }

    /// Stores a login's result and gives it to all its waiters.
    pub(crate) fn finish(&self, login: &Arc<RunningLogin>, record: LoginRecord, result: LoginResult) {
        let is_awaited = {
            let mut progress = login.lock();
            progress.record = Some(record);
            progress.waiters > 0
        };
        login.result.send_replace(Some(Arc::new(result)));
        if !is_awaited {
            self.settle(login, false);
        }
        self.lock().in_flight -= 1;
        self.ended.notify_waiters();
    }

    /// Waits until no login is in flight.
    pub(crate) async fn all_ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.lock().in_flight == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Ends the login for new callers before the reply is written, and marks the message as spent unless the result
    /// allows a retry. A caller that has read the reply never joins the same login again.
    fn begin_write(&self, login: &Arc<RunningLogin>) {
        let Some((key, until)) = &login.key else { return };
        let mut state = self.lock();
        state.remove(key, login);
        if !login.allows_retry() {
            login.lock().write_has_begun = true;
            state.spend(key, *until);
        }
    }

    /// Logs the login once, and forgets its message if no reply was delivered.
    fn settle(&self, login: &Arc<RunningLogin>, is_delivered: bool) {
        let mut state = self.lock();
        let mut progress = login.lock();
        progress.is_delivered |= is_delivered;
        let record = progress.record.take();
        if let Some((key, _)) = &login.key {
            state.remove(key, login);
            if progress.write_has_begun && !progress.is_delivered {
                state.forget(key);
            }
        }
        drop((state, progress));
        if let Some(record) = record {
            record.log(is_delivered);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LoginsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LoginsState {
    fn spend(&mut self, key: &MessageKey, until: u64) {
        self.spent.spend(&key.client, key.message, until);
        if let Some(file) = &mut self.file {
            file.spend((&key.client, &key.message, until), &self.spent);
        }
    }

    fn forget(&mut self, key: &MessageKey) {
        self.spent.forget(&key.client, &key.message);
        if let Some(file) = &mut self.file {
            file.forget(&key.client, &key.message, &self.spent);
        }
    }

    /// Removes this login, but not another one with the same message.
    fn remove(&mut self, key: &MessageKey, login: &Arc<RunningLogin>) {
        if self.running.get(key).is_some_and(|running| Arc::ptr_eq(running, login)) {
            self.running.remove(key);
        }
    }
}

impl RunningLogin {
    fn new(id: &str, key: Option<(MessageKey, u64)>) -> Self {
        let progress = Mutex::new(LoginProgress { waiters: 1, ..LoginProgress::default() });
        Self { id: id.to_owned(), key, result: watch::Sender::new(None), progress, abandoned: Notify::new() }
    }

    /// Whether the same message may log in again: after 429 and 5xx.
    fn allows_retry(&self) -> bool {
        let result = self.result.borrow().clone();
        let status = result.as_deref().map(|result| match result {
            Ok(answer) => answer.status,
            Err(failure) => failure.status,
        });
        status.is_none_or(|status| status.is_server_error() || status.as_u16() == 429)
    }

    /// Marks the payload as posted. From then on, the login is finished even if all callers leave. Returns `false` if
    /// all callers have left already: the payload must not be posted then.
    #[must_use]
    pub(crate) fn begin_post(&self) -> bool {
        let mut progress = self.lock();
        progress.is_posted = progress.waiters > 0;
        progress.is_posted
    }

    /// Waits until every caller has left while the payload was not posted.
    pub(crate) async fn wait_until_abandoned(&self) {
        self.abandoned.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LoginProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Waits for the result of the login. Returns `None` if its task ended without one.
    pub(crate) async fn result(&self) -> Option<Arc<LoginResult>> {
        let mut result = self.login.result.subscribe();
        result.wait_for(Option::is_some).await.ok().and_then(|result| result.clone())
    }

    /// The ID of the login, which the log and the agent's audit log have. Copies of one message share it.
    #[must_use]
    pub(crate) fn id(&self) -> &str {
        &self.login.id
    }

    /// Records that the write of the reply begins.
    pub(crate) fn begin_write(&self) {
        self.logins.begin_write(&self.login);
    }

    /// Records that the reply was written to the caller.
    pub(crate) fn delivered(mut self) {
        self.is_delivered = true;
        self.logins.settle(&self.login, true);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // This is the lock order of `join_or_start`, which may join this login at the same time.
        let mut state = self.logins.lock();
        let mut progress = self.login.lock();
        progress.waiters -= 1;
        if self.is_delivered || progress.waiters > 0 {
            return;
        }
        let is_finished = self.login.result.borrow().is_some();
        let is_posted = progress.is_posted;
        drop(progress);
        if let (Some((key, _)), false, false) = (&self.login.key, is_finished, is_posted) {
            state.remove(key, &self.login);
        }
        drop(state);
        if is_finished {
            self.logins.settle(&self.login, false);
        } else if !is_posted {
            self.login.abandoned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn key(message: u8) -> Option<(MessageKey, MessageRetention)> {
        let retention = MessageRetention { now: 100, until: 400, capacity: 9 };
        Some((MessageKey { client: "a".into(), message: [message; 32] }, retention))
    }

    fn join_or_start(
        logins: &Arc<RunningLogins>,
        message: u8,
    ) -> Result<(Waiter, Option<Arc<RunningLogin>>), ReplayError> {
        let mut started = None;
        let waiter = logins.join_or_start("1a2b3c4d", key(message), |login| started = Some(login))?;
        Ok((waiter, started))
    }

    fn failed(status: StatusCode) -> LoginResult {
        Err(LoginFailure { status, ..LoginFailure::not_verified("") })
    }

    fn finish(logins: &RunningLogins, login: &Arc<RunningLogin>, status: StatusCode) {
        logins.finish(login, LoginRecord::default(), failed(status));
    }

    #[test]
    fn a_copy_joins_the_login_and_is_refused_once_the_reply_was_written() {
        let logins = Arc::new(RunningLogins::default());
        let (first, login) = join_or_start(&logins, 1).unwrap();
        let login = login.unwrap();
        let (copy, started) = join_or_start(&logins, 1).unwrap();
        assert!(started.is_none() && login.begin_post());
        finish(&logins, &login, StatusCode::UNAUTHORIZED);
        // The message is spent from the first byte, so a reader of the reply cannot log in with a copy.
        first.begin_write();
        assert_eq!(join_or_start(&logins, 1).err(), Some(ReplayError::Used));
        first.delivered();
        assert_eq!(join_or_start(&logins, 1).err(), Some(ReplayError::Used));
        copy.delivered();
        assert_eq!(join_or_start(&logins, 1).err(), Some(ReplayError::Used));
    }

    #[test]
    fn after_a_server_error_or_a_lost_connection_a_message_may_come_again() {
        let logins = Arc::new(RunningLogins::default());
        for (status, is_delivered) in [(StatusCode::BAD_GATEWAY, true), (StatusCode::UNAUTHORIZED, false)] {
            let (waiter, login) = join_or_start(&logins, 1).unwrap();
            let login = login.unwrap();
            assert!(login.begin_post());
            finish(&logins, &login, status);
            waiter.begin_write();
            if is_delivered {
                waiter.delivered();
            } else {
                drop(waiter);
            }
        }
        assert!(join_or_start(&logins, 1).unwrap().1.is_some());
    }

    #[test]
    fn a_caller_that_reads_a_server_error_can_try_again_at_once() {
        let logins = Arc::new(RunningLogins::default());
        let (first, login) = join_or_start(&logins, 1).unwrap();
        let login = login.unwrap();
        assert!(login.begin_post());
        finish(&logins, &login, StatusCode::SERVICE_UNAVAILABLE);
        first.begin_write();
        // The caller has the reply before `delivered` runs.
        let (_again, started) = join_or_start(&logins, 1).unwrap();
        assert!(started.is_some());
        first.delivered();
        assert!(join_or_start(&logins, 1).unwrap().1.is_none());
    }

    #[test]
    fn nothing_is_posted_for_callers_that_have_left() {
        let logins = Arc::new(RunningLogins::default());
        let (waiter, login) = join_or_start(&logins, 1).unwrap();
        drop(waiter);
        assert!(!login.unwrap().begin_post());
        assert!(join_or_start(&logins, 1).unwrap().1.is_some());
    }

    #[test]
    fn a_copy_joins_a_posted_login_whose_caller_has_left() {
        let logins = Arc::new(RunningLogins::default());
        let (waiter, login) = join_or_start(&logins, 1).unwrap();
        assert!(login.as_ref().unwrap().begin_post());
        drop(waiter);
        assert!(join_or_start(&logins, 1).unwrap().1.is_none());
    }
}
