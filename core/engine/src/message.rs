//! A message on its way in: what a publisher hands to the engine.

use fastmq_memory::view::Optional;

/// A message to send. Fields that are empty are absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    /// Where to.
    pub subject: &'a [u8],
    /// What.
    pub payload: &'a [u8],
    /// Where an answer may be published.
    pub reply_to: &'a [u8],
    /// What keeps messages of one kind in order in key-shared groups.
    pub key: &'a [u8],
    /// Encoded headers.
    pub headers: &'a [u8],
    /// How long it is worth delivering, in nanoseconds; 0: for ever.
    pub ttl_ns: u64,
    /// It becomes the last value of its subject, for whoever subscribes later with `replay_last`.
    pub keep_last: bool,
}

impl Message<'_> {
    /// Whether there is more to check than a subject and a payload: a reply address, key, headers.
    #[inline(always)]
    pub(crate) fn has_more(&self) -> bool {
        self.reply_to.len() | self.key.len() | self.headers.len() != 0
    }
}

pub(crate) fn optional_of<'m>(message: &Message<'m>) -> Optional<'m> {
    Optional {
        reply_to: message.reply_to,
        key: message.key,
        headers: message.headers,
    }
}
