//! The spent v2 messages, so that each message logs in only once.
//!
//! PURE. A message is remembered until its own time can no longer be accepted. It is never evicted earlier: a client that
//! has reached its maximum must wait.

use std::collections::HashMap;

/// The SHA-256 of a message.
pub(crate) type MessageId = [u8; 32];

/// The messages that each client has used.
#[derive(Debug, Default)]
pub(crate) struct SpentMessages {
    by_client: HashMap<String, HashMap<MessageId, u64>>,
}

/// The reason why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplayError {
    /// The message was used before.
    Used,
    /// The client has reached its maximum number of messages.
    Full,
}

impl SpentMessages {
    /// Checks that a client may use a message now.
    ///
    /// # Errors
    /// When the message was used, or no more messages can be remembered.
    pub(crate) fn check(
        &mut self,
        client: &str,
        message: &MessageId,
        now: u64,
        capacity: usize,
    ) -> Result<(), ReplayError> {
        let Some(own) = self.by_client.get_mut(client) else { return Ok(()) };
        if own.get(message).is_some_and(|until| *until >= now) {
            return Err(ReplayError::Used);
        }
        if own.len() >= capacity {
            own.retain(|_, until| *until >= now);
        }
        if own.len() >= capacity { Err(ReplayError::Full) } else { Ok(()) }
    }

    /// Remembers a message up to and including this time.
    pub(crate) fn spend(&mut self, client: &str, message: MessageId, until: u64) {
        self.by_client.entry(client.to_owned()).or_default().insert(message, until);
    }

    /// Drops the messages whose time is over.
    pub(crate) fn drop_old(&mut self, now: u64) {
        for own in self.by_client.values_mut() {
            own.retain(|_, until| *until >= now);
        }
        self.by_client.retain(|_, own| !own.is_empty());
    }

    /// Returns each client with its messages, and the last second for which each is remembered.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &MessageId, u64)> {
        self.by_client.iter().flat_map(|(client, own)| own.iter().map(move |(id, until)| (client.as_str(), id, *until)))
    }

    /// The number of remembered messages.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.by_client.values().map(HashMap::len).sum()
    }

    /// Forgets a message whose reply was not delivered.
    pub(crate) fn forget(&mut self, client: &str, message: &MessageId) {
        if let Some(own) = self.by_client.get_mut(client) {
            own.remove(message);
        }
    }
}

/// The maximum number of remembered messages of one client: what its rate allows while a message is remembered.
#[must_use]
pub(crate) fn capacity(rate_per_minute: u32, max_skew: u64) -> usize {
    let minutes = 2 * max_skew / 60 + 2;
    usize::try_from(u64::from(rate_per_minute) * minutes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_once_while_its_time_could_be_accepted() {
        let mut spent = SpentMessages::default();
        assert_eq!(spent.check("a", &[1; 32], 100, 4), Ok(()));
        spent.spend("a", [1; 32], 400);
        assert_eq!(spent.check("a", &[1; 32], 400, 4), Err(ReplayError::Used));
        assert_eq!(spent.check("b", &[1; 32], 400, 4), Ok(()));
        assert_eq!(spent.check("a", &[1; 32], 401, 4), Ok(()));
    }

    #[test]
    fn a_client_at_its_maximum_waits_and_no_message_is_evicted() {
        let mut spent = SpentMessages::default();
        spent.spend("a", [1; 32], 400);
        spent.spend("a", [2; 32], 500);
        spent.spend("b", [1; 32], 500);
        assert_eq!(spent.count(), 3);
        assert_eq!(spent.check("a", &[3; 32], 300, 2), Err(ReplayError::Full));
        assert_eq!(spent.check("a", &[1; 32], 300, 2), Err(ReplayError::Used));
        assert_eq!(spent.check("a", &[3; 32], 450, 2), Ok(()));
        assert_eq!(capacity(30, 300), 360);
    }
}
