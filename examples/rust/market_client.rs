//! A client in another process: the calls are those of a broker in this one, but for `connect`.
//! Buys three times from `examples/c/market_server.c`, and hears the price rise.
//!
//! `market_client [URL]`

#![forbid(unsafe_code)]

use fastmq::{Client, ConnectOptions, Message};

const SECOND: u64 = 1_000_000_000;

fn main() -> fastmq::Result<()> {
    let url = std::env::args().nth(1);
    let url = url.unwrap_or_else(|| "unix:/tmp/market.sock".to_owned());
    let mq = Client::connect(&url, ConnectOptions::default())?;
    let prices = mq.subscribe("price.*")?;
    let order = Message {
        subject: b"order.buy",
        payload: b"1",
        ..Message::default()
    };
    for _ in 0..3 {
        let paid = mq.request(&order, 5 * SECOND)?;
        let now = prices.receive(1, 5 * SECOND)?;
        println!(
            "bought at {}, the price is {}",
            String::from_utf8_lossy(&paid.payload),
            String::from_utf8_lossy(now.messages()[0].payload()),
        );
    }
    mq.close();
    Ok(())
}
