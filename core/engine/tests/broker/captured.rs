//! What a handler owns: it is dropped some time after its subscription has ended, where it may use
//! the client as any other code may.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak, mpsc};

use crate::steps::*;
use fastmq_engine::{Broker, Delivery, Subscription, with_thread_client};

const DELIVERIES: [Delivery; 3] = [Delivery::Inline, Delivery::Thread, Delivery::Dispatch];

/// Uses the client as it goes.
struct Owned {
    broker: Weak<Broker>,
    inner: Option<Subscription>,
    is_gone: Arc<AtomicBool>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(inner) = &self.inner {
            inner.unsubscribe();
        }
        if let Some(broker) = self.broker.upgrade() {
            // Closed or not.
            let late = broker.subscribe(b"captured.late", b"", Delivery::Queue, None, 0, None);
            let find = || Some(broker.clone());
            let _ = with_thread_client(broker.id(), find, |client| {
                client.writer.publish(b"captured.late", b"bye")
            });
            let _ = late.map(|late| late.unsubscribe());
        }
        self.is_gone.store(true, Ordering::SeqCst);
    }
}

/// A subscription whose handler owns another one.
fn owning(broker: &Arc<Broker>, delivery: Delivery) -> (Subscription, Arc<AtomicBool>) {
    let is_gone = Arc::new(AtomicBool::new(false));
    let owned = Owned {
        broker: Arc::downgrade(broker),
        inner: Some(subscribe(broker, "captured.inner")),
        is_gone: is_gone.clone(),
    };
    let handler = move |_: &fastmq_engine::memory::View| {
        let _ = &owned;
    };
    (handle(broker, "captured.outer", delivery, handler), is_gone)
}

/// Publishes on a thread that ends, so that no lane and no cached route holds the handlers.
fn publish_elsewhere(broker: &Arc<Broker>) {
    let broker = broker.clone();
    let publish = move || publish_number(&broker, "captured.outer", 1).unwrap();
    std::thread::spawn(publish).join().unwrap();
}

/// Runs `body` on a thread that must come to its end.
fn ends(body: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        body();
        done.send(()).unwrap();
    });
    is_done.recv_timeout(PATIENCE).expect("it waits for itself");
    thread.join().unwrap();
}

#[test]
fn what_a_handler_owns_may_use_the_client_when_it_goes() {
    for delivery in DELIVERIES {
        ends(move || {
            let broker = open();
            let (subscription, is_gone) = owning(&broker, delivery);
            publish_elsewhere(&broker);
            subscription.unsubscribe();
            drop(subscription);
            until("what the handler owned is dropped", || {
                subscribe(&broker, "captured.other").unsubscribe();
                is_gone.load(Ordering::SeqCst)
            });
        });
    }
}

#[test]
fn closing_a_client_whose_handlers_own_subscriptions_comes_to_its_end() {
    for delivery in DELIVERIES {
        ends(move || {
            let broker = open();
            let owners: Vec<_> = (0..20).map(|_| owning(&broker, delivery)).collect();
            publish_elsewhere(&broker);
            broker.close();
            drop(broker);
            let mut gone = Vec::new();
            for (subscription, is_gone) in owners {
                drop(subscription);
                gone.push(is_gone);
            }
            until("what the handlers owned is dropped", || {
                let other = open();
                subscribe(&other, "captured.other").unsubscribe();
                gone.iter().all(|is_gone| is_gone.load(Ordering::SeqCst))
            });
        });
    }
}
