//! Reply streams of responders whose asker is at the server.
//!
//! A request that may be answered by a stream is an *offer*: what its asker has granted, and the
//! stream once there is one. GRANT and CANCEL name it by the server's token.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastmq_memory::allocation::try_arc;
use fastmq_wire::{Control, Draft, Field};

use crate::broker::Broker;
use crate::credit::Credit;
use crate::error::{Error, Result, Status};
use crate::survey::{CREDIT_MAX, NOBODY, ONE_ANSWER, OPEN_ALREADY};

use super::Uplink;
use super::session::Session;
use super::state::{NO_ROOM, Phase, TOO_LARGE, no_memory};
use super::{OUTGOING_BYTES_MAX, TOKENS_MAX};

/// One request that may be answered by a stream.
#[derive(Debug)]
struct Offer {
    /// Our token for it.
    ours: u64,
    granted: u64,
    open: Option<Arc<Credit>>,
}

/// Those of a connection, by the server's token.
#[derive(Debug, Default)]
pub(super) struct Streams {
    offers: HashMap<u64, Offer>,
}

impl Streams {
    /// Enters an offer. Those whose tokens were forgotten make room; without room or memory the
    /// request can be answered once only.
    pub(super) fn offer(&mut self, theirs: u64, ours: u64, credit: u32, oldest: u64) {
        if self.offers.len() >= TOKENS_MAX {
            let is_known = |offer: &Offer| offer.open.is_some() || offer.ours >= oldest;
            self.offers.retain(|_, offer| is_known(offer));
        }
        if self.offers.len() < TOKENS_MAX && self.offers.try_reserve(1).is_ok() {
            let granted = u64::from(credit.min(CREDIT_MAX));
            let offer = Offer {
                ours,
                granted,
                open: None,
            };
            self.offers.insert(theirs, offer);
        }
    }

    /// A request was answered otherwise.
    #[inline(always)]
    pub(super) fn answered(&mut self, theirs: u64) {
        if !self.offers.is_empty() {
            self.offers.remove(&theirs);
        }
    }

    /// The connection has ended, and with it all streams.
    pub(super) fn take_open(&mut self) -> impl Iterator<Item = Arc<Credit>> + use<> {
        let offers = std::mem::take(&mut self.offers);
        offers.into_values().filter_map(|offer| offer.open)
    }

    fn is_it(&self, theirs: u64, credit: &Arc<Credit>) -> bool {
        let open = self
            .offers
            .get(&theirs)
            .and_then(|offer| offer.open.as_ref());
        open.is_some_and(|open| Arc::ptr_eq(open, credit))
    }
}

/// The way of one stream to the server.
#[derive(Debug)]
pub(crate) struct FarStream {
    uplink: Arc<Uplink>,
    theirs: u64,
}

impl FarStream {
    /// Opens the stream of a request. NOT_FOUND, UNSUPPORTED, EXISTS as for any other.
    pub(crate) fn open(uplink: &Arc<Uplink>, token: u64) -> Result<(Self, Arc<Credit>)> {
        let mut state = uplink.state();
        if state.phase != Phase::Online {
            return Err(NOBODY);
        }
        let Some(theirs) = state.tokens.get(token) else {
            let offers = &mut state.streams.offers.values();
            return Err(match offers.any(|offer| offer.ours == token) {
                true => OPEN_ALREADY,
                false => NOBODY,
            });
        };
        let offer = state.streams.offers.get_mut(&theirs).ok_or(ONE_ANSWER)?;
        let credit = try_arc(Credit::new(offer.granted))?;
        offer.open = Some(credit.clone());
        let _ = state.tokens.take(token);
        drop(state);
        let uplink = uplink.clone();
        Ok((Self { uplink, theirs }, credit))
    }

    /// Sends one reply. AGAIN, TOO_LARGE; CANCELLED: nobody waits for it any more.
    pub(crate) fn send(&self, credit: &Arc<Credit>, payload: &[u8], headers: &[u8]) -> Result<()> {
        let mut reply = Draft::reply(self.theirs, 0, payload);
        reply.is_more = true;
        reply.headers = headers;
        let mut state = self.uplink.state();
        if state.phase != Phase::Online || !state.streams.is_it(self.theirs, credit) {
            return Err(Error::new(&crate::reply_stream::GONE));
        }
        if reply.size() > state.agreement.theirs.frame_max as usize {
            return Err(TOO_LARGE);
        }
        if state.out.len() + reply.size() > OUTGOING_BYTES_MAX {
            return Err(NO_ROOM);
        }
        reply.append(&mut state.out).map_err(no_memory)?;
        drop(state);
        self.uplink.nudge();
        Ok(())
    }

    /// Ends it; false: it has ended already.
    pub(crate) fn end(&self, broker: &Broker, credit: &Arc<Credit>, status: Status) -> bool {
        let mut state = self.uplink.state();
        if !state.streams.is_it(self.theirs, credit) {
            return false;
        }
        state.streams.offers.remove(&self.theirs);
        if state.phase == Phase::Online {
            let reply = Draft::reply(self.theirs, status as u8, &[]);
            // Without memory the asker's time-out ends it.
            let _ = reply.append(&mut state.out);
        }
        drop(state);
        credit.close(broker);
        self.uplink.nudge();
        true
    }

    /// Waits for room in what is sent, or until the time has come.
    pub(crate) fn wait_for_room(&self, deadline_ns: u64) {
        self.uplink.wait_for_room(deadline_ns);
    }

    /// Waits until the credit has changed since `seen`, or drives for it. MISUSE: this thread
    /// drives the link.
    pub(crate) fn wait_for_credit(
        &self,
        credit: &Credit,
        seen: u32,
        deadline_ns: u64,
    ) -> Result<()> {
        let uplink = &self.uplink;
        uplink.check_not_here()?;
        if let Some(mut held) = uplink.take_helm(deadline_ns) {
            held.listen();
            if credit.word.load(Ordering::SeqCst) == seen {
                let now_ns = uplink.driver.monotonic_ns();
                held.turn(deadline_ns.saturating_sub(now_ns), 0);
            }
            return Ok(());
        }
        uplink.park(&credit.word, seen, deadline_ns);
        Ok(())
    }
}

impl Session {
    /// The asker of a stream has granted more.
    pub(super) fn on_grant(&mut self, control: &Control<'_>) {
        let replies = control.number(Field::Replies).unwrap_or(0);
        let mut state = self.uplink.state();
        let Some(offer) = state.streams.offers.get_mut(&control.whole()) else {
            return;
        };
        offer.granted = offer.granted.saturating_add(replies);
        let open = offer.open.clone();
        drop(state);
        if let Some(credit) = open {
            credit.grant(self.writer.broker(), replies);
        }
    }

    /// Nobody waits for more of a stream.
    pub(super) fn on_cancel(&mut self, control: &Control<'_>) {
        let offer = self.uplink.state().streams.offers.remove(&control.whole());
        let Some(offer) = offer else { return };
        match offer.open {
            Some(credit) => credit.close(self.writer.broker()),
            None => drop(self.uplink.state().tokens.take(offer.ours)),
        }
    }
}
