//! Whether the other side of a connection still lives: when to send it a PING, and when to give it
//! up. Both sides of the native protocol use it; it says and sends nothing itself.
//!
//! Silence alone proves nothing: this process may have stood still (a stopped process, a frozen
//! virtual machine), and what the other side has said meanwhile still waits to be read. So
//! whoever is silent for five sixths of the longest silence is asked once more and then has the
//! last sixth, in which this process runs.

use fastmq_driver::FOREVER_NS;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Nothing,
    /// A PING is to be sent now.
    Ping,
    /// There was none for too long.
    Dead,
}

/// The times of one connection.
#[derive(Debug)]
pub(crate) struct Liveness {
    ping_every_ns: u64,
    silence_ns_max: Option<u64>,
    heard_ns: u64,
    pinged_ns: u64,
    /// When the silence was long enough to ask once more.
    suspected_ns: Option<u64>,
}

impl Liveness {
    /// Of a connection that begins. `ping_every_ns`: silence after which a PING is sent;
    /// `silence_ns_max`: the longest, `None` for ever.
    pub(crate) fn new(now_ns: u64, ping_every_ns: u64, silence_ns_max: Option<u64>) -> Self {
        Self {
            ping_every_ns,
            silence_ns_max,
            heard_ns: now_ns,
            pinged_ns: now_ns,
            suspected_ns: None,
        }
    }

    /// Bytes have come.
    pub(crate) fn hear(&mut self, now_ns: u64) {
        self.heard_ns = now_ns;
        self.suspected_ns = None;
    }

    /// When [`on_time`](Self::on_time) has something to say.
    pub(crate) fn deadline_ns(&self) -> u64 {
        self.ping_at_ns().min(self.doubt_at_ns())
    }

    /// What is due at `now_ns`.
    pub(crate) fn on_time(&mut self, now_ns: u64) -> Sign {
        if now_ns >= self.doubt_at_ns() {
            if self.suspected_ns.is_some() {
                return Sign::Dead;
            }
            self.suspected_ns = Some(now_ns);
        } else if now_ns < self.ping_at_ns() {
            return Sign::Nothing;
        }
        self.pinged_ns = now_ns;
        Sign::Ping
    }

    fn ping_at_ns(&self) -> u64 {
        let last_ns = self.heard_ns.max(self.pinged_ns);
        last_ns.saturating_add(self.ping_every_ns)
    }

    /// When the silence is suspected, or after that given up.
    fn doubt_at_ns(&self) -> u64 {
        let Some(max_ns) = self.silence_ns_max else {
            return FOREVER_NS;
        };
        let sixth_ns = max_ns / 6;
        match self.suspected_ns {
            Some(suspected_ns) => suspected_ns.saturating_add(sixth_ns),
            None => self.heard_ns.saturating_add(max_ns - sixth_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_silent_side_is_pinged_suspected_and_given_up() {
        let mut liveness = Liveness::new(0, 30 * S, Some(60 * S));
        assert_eq!(liveness.deadline_ns(), 30 * S);
        assert_eq!(liveness.on_time(30 * S - 1), Sign::Nothing);
        assert_eq!(liveness.on_time(30 * S), Sign::Ping);
        assert_eq!(liveness.deadline_ns(), 50 * S);
        assert_eq!(liveness.on_time(50 * S), Sign::Ping);
        assert_eq!(liveness.deadline_ns(), 60 * S);
        assert_eq!(liveness.on_time(60 * S - 1), Sign::Nothing);
        assert_eq!(liveness.on_time(60 * S), Sign::Dead);
    }

    #[test]
    fn who_stood_still_asks_before_it_gives_up() {
        let mut liveness = Liveness::new(0, 30 * S, Some(60 * S));
        assert_eq!(liveness.on_time(500 * S), Sign::Ping);
        assert_eq!(liveness.deadline_ns(), 510 * S);
        liveness.hear(501 * S);
        assert_eq!(liveness.on_time(510 * S), Sign::Nothing);
        assert_eq!(liveness.deadline_ns(), 531 * S);
    }

    #[test]
    fn without_a_longest_silence_it_is_pinged_for_ever() {
        let mut liveness = Liveness::new(0, 30 * S, None);
        for round in 1..100 {
            assert_eq!(liveness.on_time(round * 30 * S), Sign::Ping);
        }
        let mute = Liveness::new(0, FOREVER_NS, None);
        assert_eq!(mute.deadline_ns(), FOREVER_NS);
    }
}
