//! Credit: what may be sent, and when to grant more (`docs/protocol.md` §7).

use crate::fault::Fault;
use crate::round_up;

/// The sender's side.
#[derive(Clone, Copy, Debug)]
pub struct Sending {
    sent: u64,
    limit: u64,
}

impl Sending {
    /// Nothing is sent yet; `limit` is the CREDIT of the other side's HELLO or WELCOME.
    pub fn new(limit: u64) -> Self {
        Self { sent: 0, limit }
    }

    /// Uses credit for a frame that occupies `size` bytes. `false`: it has to wait.
    #[inline(always)]
    #[must_use]
    pub fn take(&mut self, size: usize) -> bool {
        let Some(sent) = self.sent.checked_add(size as u64) else {
            return false;
        };
        if sent > self.limit {
            return false;
        }
        self.sent = sent;
        true
    }

    /// A CREDIT has come: a lower limit is ignored.
    pub fn raise(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// Bytes that may be sent now.
    #[inline]
    pub fn left(&self) -> u64 {
        self.limit - self.sent
    }
}

/// The receiver's side: a window that moves on with what was dealt with.
///
/// All sums but those of the frames begin with what is held from before the connection.
#[derive(Clone, Copy, Debug)]
pub struct Receiving {
    before: u64,
    received: u64,
    done: u64,
    limit: u64,
    window: u64,
}

impl Receiving {
    /// A window of `window` bytes, which HELLO or WELCOME has granted. At least what a frame of the
    /// same FRAME_MAX occupies.
    pub fn new(window: u64) -> Self {
        Self::holding(0, window, 0)
    }

    /// The same of a receiver that has `before` bytes of earlier connections to deal with, by
    /// `finish`, too: they take room of the window, but for the first frame of up to `frame_max`.
    /// What HELLO or WELCOME grants then is [`granted`](Self::granted).
    pub fn holding(before: u64, window: u64, frame_max: u32) -> Self {
        let first = before.saturating_add(round_up(frame_max as usize) as u64);
        Self {
            before,
            received: before,
            done: 0,
            limit: window.max(first),
            window,
        }
    }

    /// Bytes that the sender may have sent in all.
    pub fn granted(&self) -> u64 {
        self.limit - self.before
    }

    /// A frame that occupies `size` bytes has come.
    #[inline(always)]
    pub fn receive(&mut self, size: usize) -> Result<(), Fault> {
        let sent = self.received.saturating_add(size as u64);
        if sent > self.limit {
            let (sent, limit) = (sent - self.before, self.granted());
            return Err(Fault::Credit { sent, limit });
        }
        self.received = sent;
        Ok(())
    }

    /// Bytes that may come now.
    #[inline(always)]
    pub fn left(&self) -> u64 {
        self.limit - self.received
    }

    /// `size` bytes of those that have come take no room any more. Gives the limit of a CREDIT
    /// that is due: when half of the window was used since the last one, or nothing is left that
    /// could bring another one while the window is no longer whole enough for a frame of
    /// `frame_max`.
    #[inline(always)]
    #[must_use]
    pub fn finish(&mut self, size: usize, frame_max: u32) -> Option<u64> {
        self.done = (self.done + size as u64).min(self.received);
        let next = self.done.saturating_add(self.window);
        let is_half = next.saturating_sub(self.limit) >= self.window / 2;
        let largest = round_up(frame_max as usize) as u64;
        let is_short = self.done == self.received && self.limit - self.received < largest;
        if next <= self.limit || !(is_half || is_short) {
            return None;
        }
        self.limit = next;
        Some(self.granted())
    }

    /// Bytes that have come and are not done with.
    pub fn held(&self) -> u64 {
        self.received - self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_stops_at_the_limit() {
        let mut sending = Sending::new(100);
        assert!(sending.take(64));
        assert!(!sending.take(40));
        assert!(sending.take(36), "a smaller one still goes");
        assert_eq!(sending.left(), 0);
        sending.raise(50);
        assert_eq!(sending.left(), 0, "a lower limit is ignored");
        sending.raise(u64::MAX);
        assert!(sending.take(64));
        assert!(!sending.take(usize::MAX), "the sum does not wrap");
    }

    #[test]
    fn credit_comes_back_by_halves() {
        let mut receiving = Receiving::new(1024);
        for _ in 0..7 {
            receiving.receive(64).unwrap();
            assert_eq!(receiving.finish(64, 100), None);
        }
        receiving.receive(64).unwrap();
        assert_eq!(receiving.finish(64, 100), Some(512 + 1024));
        assert_eq!(receiving.held(), 0);
    }

    #[test]
    fn what_is_held_from_before_takes_room() {
        let mut receiving = Receiving::holding(1000, 1024, 100);
        assert_eq!(receiving.granted(), 104, "a frame goes in any case");
        receiving.receive(104).unwrap();
        let (sent, limit) = (112, 104);
        assert_eq!(
            receiving.receive(8).unwrap_err(),
            Fault::Credit { sent, limit }
        );
        assert_eq!(receiving.held(), 1104);
        assert_eq!(receiving.finish(80, 100), None, "it still is beyond");
        assert_eq!(receiving.finish(504, 100), None);
        assert_eq!(receiving.finish(8, 100), Some(616));
        assert_eq!(receiving.finish(512, 100), Some(616 + 512));
        assert_eq!(receiving.held(), 0);
        assert_eq!(Receiving::holding(24, 1024, 100).granted(), 1000);
    }

    #[test]
    fn who_goes_beyond_is_seen() {
        let mut receiving = Receiving::new(100);
        receiving.receive(100).unwrap();
        let fault = receiving.receive(8).unwrap_err();
        let (sent, limit) = (108, 100);
        assert_eq!(fault, Fault::Credit { sent, limit });
        assert_eq!(receiving.held(), 100);
    }

    #[test]
    fn a_largest_frame_never_waits_for_ever() {
        // Windows hardly larger than a frame: whatever was used, all of it being done with brings
        // enough for the next, which counts with its rounding.
        for (frame_max, window) in (57..=64).flat_map(|max| (64..200).map(move |to| (max, to))) {
            let mut sending = Sending::new(window);
            let mut receiving = Receiving::new(window);
            for step in 0..1000 {
                let size = 16 + step * 8 % 56;
                assert!(sending.take(size), "window {window}, step {step}");
                receiving.receive(size).unwrap();
                if let Some(limit) = receiving.finish(size, frame_max) {
                    sending.raise(limit);
                }
                assert!(
                    sending.left() >= 64,
                    "window {window}, FRAME_MAX {frame_max}"
                );
            }
        }
    }
}
