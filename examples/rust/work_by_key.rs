//! Work by key: the orders of a customer are handled in order, while workers come and go.
//!
//! Three workers share the orders of 100 customers. The messages of one key, here the customer, go
//! to one worker at a time. A fourth joins in the middle, and one leaves with orders unread: its
//! customers go to the others, whose next order of each is the one that comes next.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use fastmq::{
    Client, FOREVER_NS, GroupMode, Message, Options, Result, SubscribeOptions, Subscription,
};

const CUSTOMERS: u32 = 100;
const ORDERS: u32 = 40;
const SECOND: u64 = 1_000_000_000;

/// What the workers have done. A customer is handled by one of them at a time, so that each entry
/// of `next` has one writer at a time.
struct Books {
    next: Vec<AtomicU32>,
    handled: AtomicU32,
    mistakes: AtomicU32,
}

/// The payload of an order: whose it is, and its number, from 0, of this customer.
fn parse(payload: &[u8]) -> Option<(usize, u32)> {
    let (customer, number) = payload.split_first_chunk::<4>()?;
    let customer = u32::from_le_bytes(*customer) as usize;
    Some((customer, u32::from_le_bytes(number.try_into().ok()?)))
}

/// Takes `order_max` orders, or all until the broker is drained.
fn work(orders: Subscription, books: &Books, order_max: usize) {
    let mut taken = 0;
    while taken < order_max {
        // When the batch ends its orders are handled: the keys that are to move may move.
        let Ok(batch) = orders.receive(32, FOREVER_NS) else {
            break;
        };
        for order in batch.messages() {
            let (customer, number) = parse(order.payload()).expect("no order");
            let expected = books.next[customer].swap(number + 1, Ordering::Relaxed);
            let is_mistake = u32::from(number != expected);
            books.mistakes.fetch_add(is_mistake, Ordering::Relaxed);
            books.handled.fetch_add(1, Ordering::Relaxed);
        }
        taken += batch.messages().len();
    }
    // Here its subscription ends, and its queue; what is in it goes to the others.
}

fn join_workers(mq: &Client) -> Result<Subscription> {
    let options = SubscribeOptions {
        group: b"warehouse",
        group_mode: GroupMode::KeyShared,
        ..SubscribeOptions::default()
    };
    mq.subscribe_with("order.*", options)
}

fn main() -> Result<()> {
    let mq = Client::open(Options::default())?;
    let books = &Books {
        next: (0..CUSTOMERS).map(|_| AtomicU32::new(0)).collect(),
        handled: AtomicU32::new(0),
        mistakes: AtomicU32::new(0),
    };
    thread::scope(|scope| {
        let start = |order_max| -> Result<()> {
            let orders = join_workers(&mq)?;
            scope.spawn(move || work(orders, books, order_max));
            Ok(())
        };
        start((CUSTOMERS * ORDERS / 10) as usize)?;
        start(usize::MAX)?;
        start(usize::MAX)?;
        for number in 0..ORDERS {
            if number == ORDERS / 2 {
                start(usize::MAX)?;
            }
            for customer in 0..CUSTOMERS {
                let payload = [customer.to_le_bytes(), number.to_le_bytes()].concat();
                let order = Message {
                    subject: b"order.new",
                    key: &customer.to_le_bytes(),
                    payload: &payload,
                    ..Message::default()
                };
                // Waits while the customer is on the way to another worker.
                mq.publish_wait(&order, 10 * SECOND)?;
            }
        }
        mq.drain(10 * SECOND)
    })?;
    let handled = books.handled.load(Ordering::Relaxed);
    let mistakes = books.mistakes.load(Ordering::Relaxed);
    println!(
        "{handled} orders of {CUSTOMERS} customers were handled, {mistakes} of them out of order"
    );
    assert_eq!((handled, mistakes), (CUSTOMERS * ORDERS, 0));
    Ok(())
}
