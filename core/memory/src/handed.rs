//! A message that was handed over from another queue: a copy, and what ends once it was handled.
//!
//! It waits outside every lane: whoever hands it over decides when the reader takes it
//! ([`ReaderGuard::push_handed`](crate::ReaderGuard::push_handed)).

use crate::allocation::try_box;
use crate::batch::Detached;
use crate::view::View;

/// A copy of one message.
pub struct Handed {
    copy: Detached,
    /// Dropped when the batch that shows the message ends.
    _end: Box<dyn Send>,
}

impl std::fmt::Debug for Handed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handed").finish_non_exhaustive()
    }
}

impl Handed {
    /// Copies a message, or says that there is no memory. `end` is dropped when the batch that
    /// shows the copy ends, or with the copy if none does.
    pub fn new(message: &View, end: impl Send + 'static) -> Option<Self> {
        Some(Self {
            copy: Detached::copy(std::slice::from_ref(message))?,
            _end: try_box(end).ok()?,
        })
    }

    /// Where the subject is, which the batch shows: no other message is there meanwhile.
    pub fn address(&self) -> usize {
        self.copy.messages()[0].subject().as_ptr().addr()
    }

    /// The message as a batch shows it to this subscription. It points into the copy.
    pub(crate) fn view(&self, subscription_id: u32, tag: u64) -> View {
        let copy = &self.copy.messages()[0];
        View {
            subject: copy.subject,
            payload: copy.payload,
            reply_to: copy.reply_to,
            headers: copy.headers,
            key: copy.key,
            sequence: copy.sequence,
            timestamp_ns: copy.timestamp_ns,
            publisher: copy.publisher,
            flags: copy.flags,
            subscription_id,
            tag,
            ..View::EMPTY
        }
    }
}
