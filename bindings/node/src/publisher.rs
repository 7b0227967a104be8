//! A publisher as JavaScript holds it.

use std::rc::Rc;
use std::sync::{Arc, Mutex};

use fastmq::{Error, Fault, Publisher, Status};
use napi::Env;
use napi::bindgen_prelude::ArrayBuffer;
use napi_derive::napi;

use crate::client::Outgoing;
use crate::error::{Thrown, failed, thrown, told};
use crate::held::{Handles, Held, LetGo};
use crate::hub::lock;
use crate::ports::{Number, Port, Scratch};
use crate::view::{SharedPublisher, claimed};

const NO_LOAN: Error = Error::new(&Fault(
    Status::NoMemory,
    "the runtime refuses memory that it does not own; publish a payload instead of a claim",
));

const MOVED: Error = Error::new(&Fault(
    Status::Misuse,
    "the claim's bytes were transferred or detached; this publisher cannot be used any more",
));

const CLOSED: &Fault = &Fault(Status::Misuse, "the publisher is closed");

struct Open {
    publisher: Held<SharedPublisher>,
    number: Number,
}

impl LetGo for Open {
    fn let_go(&self) {
        self.number.end();
        self.publisher.let_go();
    }
}

/// A publisher.
#[napi]
pub struct NativePublisher {
    open: Rc<Open>,
}

impl NativePublisher {
    pub(crate) fn new(publisher: Publisher, scratch: Scratch, handles: &Handles) -> Self {
        // A lock, as bytes that it has lent may be dropped on another thread.
        let publisher = Arc::new(Mutex::new(publisher));
        let open = Rc::new(Open {
            number: Number::open(Port::Publisher(publisher.clone()), scratch),
            publisher: Held::new(publisher, CLOSED),
        });
        handles.add(&open);
        Self { open }
    }

    /// Runs `body`; the number of its result.
    fn with(&self, body: impl FnOnce(&mut Publisher) -> fastmq::Result<()>) -> u32 {
        told(&(self.open.publisher).with(|publisher| body(&mut lock(publisher))))
    }
}

#[napi]
impl NativePublisher {
    /// What calls by number call it.
    #[napi]
    pub fn number(&self) -> u32 {
        self.open.number.get()
    }

    /// Publishes a payload that is no small one.
    #[napi]
    pub fn publish_bytes(&self, payload: &[u8]) -> u32 {
        self.with(|publisher| publisher.publish(payload))
    }

    /// Publishes a message with all its fields but a subject.
    #[napi]
    pub fn publish_message(
        &self,
        payload: &[u8],
        key: &[u8],
        headers: &[u8],
        with: Outgoing,
    ) -> u32 {
        let message = with.message(b"", payload, key, headers);
        self.with(|publisher| publisher.publish_message(&message))
    }

    /// Publishes payloads that stand in `data` one behind the other; `offsets` has their bounds,
    /// one more than there are. Gives how many were accepted; of a refusal `last_status` and
    /// `last_error` tell.
    #[napi]
    pub fn publish_batch(&self, data: &[u8], offsets: &[u32]) -> Result<u32, Thrown> {
        let is_inside = offsets.windows(2).all(|bounds| bounds[0] <= bounds[1])
            && offsets.last().is_none_or(|end| *end as usize <= data.len());
        if !is_inside {
            return Err(thrown(Error::new(&Fault(
                Status::Invalid,
                "offsets go up and end inside of data",
            ))));
        }
        let payloads = offsets
            .windows(2)
            .map(|bounds| &data[bounds[0] as usize..bounds[1] as usize]);
        let publishing = (self.open.publisher)
            .with(|publisher| Ok(lock(publisher).publish_batch(payloads)))
            .map_err(thrown)?;
        let (accepted, result) = publishing;
        told(&result);
        Ok(accepted as u32)
    }

    /// Claims `size` bytes, which are lent to JavaScript.
    #[napi]
    pub fn claim<'e>(&self, env: &'e Env, size: u32) -> Result<ArrayBuffer<'e>, Thrown> {
        let lent =
            (self.open.publisher).with(|publisher| claimed::lend(env, publisher, size as usize));
        match lent {
            Ok(Some(lent)) => Ok(lent),
            Ok(None) => Err(thrown(NO_LOAN)),
            Err(error) => Err(thrown(error)),
        }
    }

    /// Publishes the first `size` bytes of what was lent; a claim that is refused is gone.
    #[napi]
    pub fn commit(&self, env: &Env, lent: ArrayBuffer<'_>, claimed: u32, size: u32) -> u32 {
        if !claimed::take_back(env, &lent, claimed as usize) {
            return failed(&MOVED);
        }
        self.with(|publisher| {
            let committed = publisher.commit(size as usize);
            if committed.is_err() {
                publisher.abandon();
            }
            committed
        })
    }

    /// Gives the claim back.
    #[napi]
    pub fn abandon(&self, env: &Env, lent: ArrayBuffer<'_>, claimed: u32) -> u32 {
        if !claimed::take_back(env, &lent, claimed as usize) {
            return failed(&MOVED);
        }
        // Without a publisher there is no claim either.
        let _ = (self.open.publisher).with(|publisher| {
            lock(publisher).abandon();
            Ok(())
        });
        0
    }

    /// Closes it. JavaScript has ended an open claim before.
    #[napi]
    pub fn close(&self) {
        self.open.number.end();
        drop(self.open.publisher.close());
    }
}
