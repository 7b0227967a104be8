//! Sockets: one suite of promises over every tier, forced, and over the simulated network; then
//! what concerns the choice of a tier, a process without descriptors, and a network with faults.

use std::thread;

use fastmq_driver::sockets::{Config, Tier, Waited, open_movable};

mod children;
mod echo;
mod faults;
mod suite;
mod world;

macro_rules! on_every_tier {
    ($($promise:ident),* $(,)?) => {
        on_every_tier!(@tier uring Uring: $($promise),*);
        on_every_tier!(@tier uring_older UringOlder: $($promise),*);
        on_every_tier!(@tier uring_with_few_buffers UringFew: $($promise),*);
        on_every_tier!(@tier uring_basic UringBasic: $($promise),*);
        on_every_tier!(@tier uring_basic_older UringBasicOlder: $($promise),*);
        on_every_tier!(@tier epoll Epoll: $($promise),*);
        on_every_tier!(@tier simulated Simulated: $($promise),*);
    };
    (@tier $tier:ident $kind:ident: $($promise:ident),*) => {
        mod $tier {
            $(
                #[test]
                fn $promise() {
                    crate::suite::$promise(crate::world::Kind::$kind);
                }
            )*
        }
    };
}

on_every_tier!(
    every_byte_comes_back_whatever_the_chunks,
    a_large_payload_arrives_whole,
    a_half_closed_peer_gets_its_answer,
    a_reset_is_an_error_and_not_the_end_of_the_process,
    closing_lets_go_of_a_send_in_flight,
    receiving_stops_and_goes_on,
    descriptors_come_with_their_bytes,
    descriptors_that_nobody_takes_are_closed,
    a_waker_ends_a_wait_and_no_wake_is_lost,
    eventfds_of_peers_end_waits_and_cannot_be_taken_away,
    a_wait_ends_at_its_deadline_and_not_before,
    a_thousand_connections_are_served,
    a_ring_that_overflows_loses_nothing_and_mixes_nothing,
    one_connection_more_than_the_limit_is_refused,
    a_connect_that_is_refused_says_so,
    an_address_is_used_once,
    a_unix_peer_is_known,
    a_turn_is_bounded,
    what_is_dropped_leaves_nothing_behind,
);

#[test]
fn movable_sockets_go_from_thread_to_thread() {
    let mut sockets = open_movable(&Config::default()).unwrap();
    let waker = sockets.waker();
    let moved = thread::spawn(move || {
        let waited = sockets.wait(0, 0, &mut |_| false).unwrap();
        assert_eq!((sockets.tier(), waited), (Tier::Epoll, Waited::TimedOut));
        sockets
    });
    waker.wake();
    assert!(moved.join().unwrap().next().is_none());
}
