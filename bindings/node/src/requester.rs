//! A requester as JavaScript holds it.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use fastmq::{Batch, Client, Detached, Error, Fault, Requester, RequesterOptions, Status};
use napi::bindgen_prelude::BufferSlice;
use napi_derive::napi;

use crate::client::Outgoing;
use crate::copy;
use crate::error::{failed, told};
use crate::held::{Handles, Held};
use crate::hub::{Hub, Waiter};
use crate::options::{ManyChoices, ms, ns};
use crate::ports::{CLOSED, Number, Port, SharedRequester};
use crate::queue::TOO_SMALL;

/// A requester.
#[napi]
pub struct NativeRequester {
    requester: SharedRequester,
    number: Number,
    /// Answers that did not fit into a slab.
    kept: RefCell<Option<Detached>>,
    waker: Waker,
}

impl NativeRequester {
    pub(crate) fn open(
        hub: &Hub,
        number: u32,
        client: &Client,
        subject: &str,
        in_flight_max: u32,
        handles: &Handles,
    ) -> fastmq::Result<Self> {
        let options = RequesterOptions {
            in_flight_max,
            subject: subject.as_bytes(),
            wait: None,
        };
        let requester = client.requester(options)?;
        let waiter: Arc<Waiter> = Waiter::new(hub, number);
        let requester: SharedRequester = Rc::new(Held::new(requester, CLOSED));
        handles.add(&requester);
        Ok(Self {
            number: Number::open(Port::Requester(requester.clone()), hub.scratch.clone()),
            requester,
            kept: RefCell::default(),
            waker: waiter.into(),
        })
    }

    /// Writes answers into a slab, or keeps a copy of them until there is one with room.
    fn write(&self, answers: &Batch<'_>, slab: &mut [u8], at: u32) -> i32 {
        let messages = answers.messages();
        if copy::copy(messages, answers.received_ns(), slab, at as usize) {
            return messages.len() as i32;
        }
        *self.kept.borrow_mut() = answers.detach();
        if self.kept.borrow().is_none() {
            return -(failed(&Error::NO_MEMORY) as i32);
        }
        TOO_SMALL
    }

    fn with(&self, body: impl FnOnce(&mut Requester) -> fastmq::Result<()>) -> u32 {
        told(&self.requester.with(body))
    }
}

#[napi]
impl NativeRequester {
    /// What calls by number call it.
    #[napi]
    pub fn number(&self) -> u32 {
        self.number.get()
    }

    /// Sends a request with all its fields; an empty subject is the requester's own.
    #[napi]
    #[allow(clippy::too_many_arguments)]
    pub fn submit_message(
        &self,
        subject: String,
        payload: &[u8],
        key: &[u8],
        headers: &[u8],
        with: Outgoing,
        token: u32,
        timeout: f64,
    ) -> u32 {
        let message = with.message(subject.as_bytes(), payload, key, headers);
        self.with(|requester| requester.submit_message(&message, u64::from(token), ns(timeout)))
    }

    /// Sends a request to which several answers may come.
    #[napi]
    #[allow(clippy::too_many_arguments)]
    pub fn submit_many(
        &self,
        subject: String,
        payload: &[u8],
        key: &[u8],
        headers: &[u8],
        with: Outgoing,
        token: u32,
        timeout: f64,
        many: ManyChoices,
    ) -> u32 {
        let message = with.message(subject.as_bytes(), payload, key, headers);
        let token = u64::from(token);
        self.with(|requester| requester.submit_many(&message, token, ns(timeout), &many.options()))
    }

    /// Sends requests to the requester's own subject, up to the first that is refused; gives their
    /// number. Their payloads stand in `data` one behind the other, with their bounds in `offsets`;
    /// their tokens in `tokens`. Of a refusal `last_status` tells.
    #[napi]
    pub fn submit_batch(&self, data: &[u8], offsets: &[u32], tokens: &[u32], timeout: f64) -> u32 {
        let mut done = 0;
        self.with(|requester| {
            for (bounds, token) in offsets.windows(2).zip(tokens) {
                let Some(payload) = data.get(bounds[0] as usize..bounds[1] as usize) else {
                    const WRONG: Fault =
                        Fault(Status::Invalid, "offsets go up and end inside of data");
                    return Err(Error::new(&WRONG));
                };
                requester.submit(payload, u64::from(*token), ns(timeout))?;
                done += 1;
            }
            Ok(())
        });
        done
    }

    /// Grants more replies to each stream of a request.
    #[napi]
    pub fn grant(&self, token: u32, replies: u32) -> u32 {
        self.with(|requester| requester.grant(u64::from(token), replies))
    }

    /// Ends a request.
    #[napi]
    pub fn cancel(&self, token: u32) -> u32 {
        self.with(|requester| requester.cancel(u64::from(token)))
    }

    /// Receives answers, which are written into `slab` from `at` on; as `NativeQueue.receive`. The
    /// answers are copied, so none stays open.
    #[napi]
    pub fn receive(&self, mut slab: BufferSlice<'_>, at: u32, reply_max: u32, arm: bool) -> i32 {
        let received = self.requester.with(|requester| {
            loop {
                let error = match requester.receive(reply_max as usize, 0) {
                    Ok(batch) => return Ok(self.write(&batch, &mut slab, at)),
                    Err(error) => error,
                };
                // Looks again only if something came while it armed.
                let mut context = Context::from_waker(&self.waker);
                if !arm
                    || error.status() != Status::Again
                    || Pin::new(&mut requester.ready())
                        .poll(&mut context)
                        .is_pending()
                {
                    return Err(error);
                }
            }
        });
        received.unwrap_or_else(|error| -(failed(&error) as i32))
    }

    /// Writes the answers that did not fit into another slab.
    #[napi]
    pub fn copy(&self, mut slab: BufferSlice<'_>, at: u32) -> i32 {
        let mut kept = self.kept.borrow_mut();
        let Some(answers) = &*kept else {
            return -(Status::Internal as i32);
        };
        let messages = answers.messages();
        if !copy::copy(messages, answers.received_ns, &mut slab, at as usize) {
            return TOO_SMALL;
        }
        let count = messages.len() as i32;
        *kept = None;
        count
    }

    /// The bytes that they take in a slab.
    #[napi]
    pub fn needed(&self) -> f64 {
        let kept = self.kept.borrow();
        kept.as_ref()
            .map_or(0.0, |kept| copy::needed(kept.messages()) as f64)
    }

    /// Requests without a final answer.
    #[napi]
    pub fn in_flight(&self) -> u32 {
        let in_flight = self.requester.with(|requester| Ok(requester.in_flight()));
        in_flight.unwrap_or(0)
    }

    /// Milliseconds until a request in flight times out.
    #[napi]
    pub fn next_deadline(&self) -> f64 {
        let next = (self.requester).with(|requester| Ok(ms(requester.next_deadline())));
        next.unwrap_or(f64::INFINITY)
    }

    /// Closes it; requests in flight are given up.
    #[napi]
    pub fn close(&self) {
        drop(self.requester.close());
    }
}
