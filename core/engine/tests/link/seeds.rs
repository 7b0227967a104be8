//! Many runs that a seed decides, over a network that delays, cuts to pieces and resets.
//!
//! What must hold whatever happens: no message comes twice or out of order, each request ends once,
//! the client never breaks the protocol, and once the network is well everything works again.

use std::collections::HashMap;

use fastmq_engine::driver::sockets::Faults;
use fastmq_engine::{Publisher, Requester, RequesterOptions, Status};

use crate::steps::{Dice, MILLISECOND, number_of, queue_of, subscribe, take_all};
use crate::world::{Told, World, options};

fn run(seed: u64) {
    let mut dice = Dice(seed);
    let faults = Faults {
        delay_ns_max: dice.below(3) * MILLISECOND,
        chunk_bytes_max: 1 + dice.below(4000) as usize,
        capacity_bytes: 256 + dice.below(64 * 1024) as usize,
        resets_per_million: dice.below(3) * 5000,
    };
    let peers = 1 + dice.below(2) as usize;
    let mut world = World::with(seed, faults, options(), peers);
    let broker = world.broker.clone();
    let mut publisher = Publisher::open(&broker, b"numbers").unwrap();
    let mut asker = Requester::open(&broker, RequesterOptions::default()).unwrap();
    let subscription = subscribe(&broker, "in.>");
    let (mut accepted, mut asked, mut delivered) = (0_u64, 0_u64, 0_u64);
    let mut ended: HashMap<u64, u32> = HashMap::new();
    let mut last_seen = None;
    for _ in 0..600 {
        match dice.below(12) {
            0..=3 => {
                for _ in 0..1 + dice.below(40) {
                    let mut payload = vec![0; 8 + dice.below(600) as usize];
                    payload[..8].copy_from_slice(&accepted.to_le_bytes());
                    match publisher.publish(&payload) {
                        Ok(()) => accepted += 1,
                        Err(error) => assert_eq!(error.status(), Status::Again, "{error}"),
                    }
                }
            }
            4 | 5 => {
                match asker.submit_to(b"echo", &asked.to_le_bytes(), asked, 20_000 * MILLISECOND) {
                    Ok(()) => asked += 1,
                    Err(error) => {
                        let status = error.status();
                        assert!(
                            matches!(status, Status::Unavailable | Status::Again),
                            "{error}"
                        );
                    }
                }
            }
            6 | 7 => {
                let at = dice.below(peers as u64) as usize;
                let peer = &mut world.peers[at];
                if let Some(number) = peer.number_of("in.>")
                    && peer.deliver(number, "in.x", &delivered.to_le_bytes())
                {
                    delivered += 1;
                }
            }
            8 if dice.below(12) == 0 => {
                let at = dice.below(peers as u64) as usize;
                world.peers[at].cut();
            }
            9 => take_answers(&mut asker, &mut ended),
            10 => {
                for one in take_all(&broker, queue_of(&subscription)) {
                    assert!(
                        last_seen < Some(one.number()),
                        "seed {seed}: doubled or out of order"
                    );
                    last_seen = Some(one.number());
                }
            }
            _ => {}
        }
        world.step_on();
    }
    // What is open ends, by an answer, by the break, or by its time.
    for _ in 0..500 {
        world.step_on();
        world.driver.advance(50 * MILLISECOND);
        take_answers(&mut asker, &mut ended);
    }
    assert_eq!(ended.len() as u64, asked, "seed {seed}");
    assert!(
        ended.values().all(|times| *times == 1),
        "seed {seed}: {ended:?}"
    );
    for peer in &world.peers {
        assert_eq!(peer.faults, Vec::<String>::new(), "seed {seed}");
        let numbers: Vec<u64> = peer
            .published
            .iter()
            .map(|one| number_of(&one.payload))
            .collect();
        assert!(
            numbers.is_sorted_by(|one, next| one < next),
            "seed {seed}: {numbers:?}"
        );
        for one in &peer.published {
            assert_eq!(
                one.sequence,
                Some(number_of(&one.payload) + 1),
                "seed {seed}"
            );
        }
    }
    let all: usize = world.peers.iter().map(|peer| peer.published.len()).sum();
    let unsent: u64 = world.told().iter().map(Told::unsent).sum();
    assert!(
        all as u64 + unsent <= accepted,
        "seed {seed}: doubled, or told as lost"
    );
    let accepts: u64 = world.peers.iter().map(|peer| peer.accepted).sum();
    if accepts == 1 {
        assert_eq!(all as u64, accepted, "seed {seed}: lost without a break");
    }
}

fn take_answers(asker: &mut Requester, ended: &mut HashMap<u64, u32>) {
    while let Ok(batch) = asker.receive(64, 0) {
        for answer in batch.messages() {
            *ended.entry(answer.token).or_default() += 1;
            if answer.status == 0 {
                assert_eq!(number_of(answer.payload()), answer.token);
            }
        }
    }
}

#[test]
fn nothing_is_doubled_and_every_request_ends_once_whatever_the_network_does() {
    for seed in 0..150 {
        run(seed);
    }
}
