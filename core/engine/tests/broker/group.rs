//! Groups: each message to one member, less to a slow one, none lost when a member is full or goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::steps::*;
use fastmq_engine::memory::Policy;
use fastmq_engine::{Broker, Delivery, Place, Publisher, Status, Subscription};

fn members(
    broker: &Arc<Broker>,
    group: &str,
    capacities: &[u64],
) -> Vec<(Arc<Place>, Subscription)> {
    let member = |capacity: &u64| {
        let queue = queue(broker, Policy::Backpressure, *capacity);
        let subscription = subscribe_on(broker, "work.*", group, &queue, 0);
        (queue, subscription)
    };
    capacities.iter().map(member).collect()
}

#[test]
fn each_message_goes_to_one_member_of_each_group_and_to_every_plain_one() {
    let broker = open();
    let a = members(&broker, "a", &[0; 4]);
    let b = members(&broker, "b", &[0; 2]);
    let plain = subscribe(&broker, "work.>");
    let mut publisher = Publisher::open(&broker, b"work.handle").unwrap();
    for number in 0..2000u64 {
        match number % 2 {
            0 => publish_number(&broker, "work.string", number).unwrap(),
            _ => publisher.publish(&number.to_le_bytes()).unwrap(),
        }
    }
    let expected: Vec<u64> = (0..2000).collect();
    let collect = |members: &[(Arc<Place>, Subscription)]| {
        let mut all = Vec::new();
        for (queue, subscription) in members {
            let mine = take_all(&broker, queue);
            for subject in ["work.string", "work.handle"] {
                let mut of: Vec<u64> = Vec::new();
                of.extend(
                    mine.iter()
                        .filter(|one| one.subject == subject)
                        .map(Seen::number),
                );
                assert!(of.is_sorted(), "a member gets its messages in order");
            }
            assert!(mine.iter().all(|one| one.id == subscription.id()));
            all.extend(mine.iter().map(Seen::number));
        }
        all.sort_unstable();
        all
    };
    assert_eq!(collect(&a), expected);
    assert_eq!(collect(&b), expected);
    let mut numbers = take_numbers(&broker, queue_of(&plain));
    numbers.sort_unstable();
    assert_eq!(numbers, expected);
}

#[test]
fn idle_members_share_the_work() {
    let broker = open();
    let group = members(&broker, "a", &[0; 4]);
    let mut counts = [0u64; 4];
    for number in 0..20_000 {
        publish_number(&broker, "work.x", number).unwrap();
        if number % 8 == 7 {
            for (count, (queue, _)) in counts.iter_mut().zip(&group) {
                *count += take_all(&broker, queue).len() as u64;
            }
        }
    }
    assert_eq!(counts.iter().sum::<u64>(), 20_000);
    // Random runs: a fair share is 5,000, and an eighth of it would be no sharing.
    assert!(counts.iter().all(|count| *count > 600), "{counts:?}");
}

#[test]
fn a_member_that_stalls_gets_less_and_none_is_lost() {
    let broker = open();
    let group = members(&broker, "a", &[0; 3]);
    let mut counts = [0u64; 3];
    for number in 0..30_000 {
        publish_number(&broker, "work.x", number).unwrap();
        if number % 4 == 3 {
            for (count, (queue, _)) in counts.iter_mut().zip(&group).skip(1) {
                *count += take_all(&broker, queue).len() as u64;
            }
        }
    }
    let stalled = take_all(&broker, &group[0].0).len() as u64;
    assert_eq!(counts[1] + counts[2] + stalled, 30_000);
    assert!(stalled < 30_000 / 10, "the stalled member got {stalled}");
}

#[test]
fn a_member_that_is_full_is_passed_over() {
    let broker = open();
    let group = members(&broker, "a", &[SMALL, 0]);
    for number in 0..2000 {
        publish(&broker, "work.x", &wide(number)).unwrap();
    }
    let mut numbers = take_numbers(&broker, &group[0].0);
    // Two lanes of 4 KiB: the shared one, and its writer's own.
    assert!(numbers.len() <= 40);
    numbers.extend(take_numbers(&broker, &group[1].0));
    numbers.sort_unstable();
    assert_eq!(numbers, (0..2000).collect::<Vec<_>>());
}

#[test]
fn when_all_members_are_full_the_publish_is_refused_and_then_goes_on() {
    let broker = open();
    let group = members(&broker, "a", &[SMALL, SMALL]);
    let mut expected = 0;
    for _ in 0..20 {
        let accepted = fill(&broker, "work.x");
        check(publish(&broker, "work.x", &wide(0)), Status::Again);
        let mut received = 0;
        for (queue, _) in &group {
            received += take_all(&broker, queue).len() as u64;
        }
        assert_eq!(received, accepted);
        expected += accepted;
    }
    assert_eq!(broker.statistics().published, expected);
}

#[test]
fn members_come_and_go_and_every_message_finds_one() {
    let broker = open();
    let keep = members(&broker, "a", &[0]);
    let mut received = 0;
    for round in 0..200 {
        let mut guests = members(&broker, "a", &[0, SMALL]);
        for number in 0..50 {
            publish_number(&broker, "work.x", number).unwrap();
        }
        let (queue, subscription) = guests.remove(round % 2);
        received += take_all(&broker, &queue).len();
        subscription.unsubscribe();
        for number in 0..50 {
            publish_number(&broker, "work.x", number).unwrap();
        }
        for (queue, _) in keep.iter().chain(&guests) {
            received += take_all(&broker, queue).len();
        }
        assert_eq!(take_all(&broker, &queue), []);
        for (queue, _) in guests {
            broker.close_queue(&queue);
        }
        assert_eq!(received, 100 * (round + 1));
    }
}

#[test]
fn an_inline_member_and_a_queue_share_a_group_and_blocks_return() {
    let broker = open();
    let calls = Arc::new(AtomicU64::new(0));
    let calls_in = calls.clone();
    let on_message = Box::new(move |view: &fastmq_engine::memory::View| {
        assert_eq!(view.payload().len(), 50_000);
        calls_in.fetch_add(1, Ordering::SeqCst);
    });
    let _inline = broker
        .subscribe(b"work.*", b"a", Delivery::Inline, None, 0, Some(on_message))
        .unwrap();
    let group = members(&broker, "a", &[0]);
    let plain = subscribe(&broker, "work.*");
    let payload = vec![3; 50_000];
    let mut queued = 0;
    for _ in 0..500 {
        publish(&broker, "work.x", &payload).unwrap();
        assert_eq!(take_all(&broker, queue_of(&plain)).len(), 1);
        queued += take_all(&broker, &group[0].0).len() as u64;
    }
    assert_eq!(calls.load(Ordering::SeqCst) + queued, 500);
    // One block at a time was in use: no reference was left behind.
    assert!(
        broker.statistics().memory < 1 << 20,
        "{}",
        broker.statistics().memory
    );
}

#[test]
fn a_dropping_member_never_refuses_and_counts() {
    let broker = open();
    let queue = queue(&broker, Policy::DropNewest, SMALL);
    let subscription = subscribe_on(&broker, "work.*", "a", &queue, 0);
    for number in 0..500 {
        publish(&broker, "work.x", &wide(number)).unwrap();
    }
    let received = take_all(&broker, &queue).len() as u64;
    assert_eq!(subscription.counts(), (received, 500 - received));
}

/// A member that drops a large message holds no reference to its block.
#[test]
fn what_a_member_drops_leaves_no_memory_behind() {
    let broker = open();
    let member = queue(&broker, Policy::DropNewest, SMALL);
    let _member = subscribe_on(&broker, "large", "group", &member, 0);
    let _other = subscribe_on(
        &broker,
        "large",
        "",
        &queue(&broker, Policy::DropNewest, SMALL),
        0,
    );
    for _ in 0..5_000 {
        publish(&broker, "large", &[1; 9_000]).unwrap();
    }
    assert!(member.statistics().dropped > 4_000);
    assert!(
        broker.statistics().memory <= 10 << 20,
        "{:?}",
        broker.statistics()
    );
}

#[test]
fn idle_members_share_the_work_by_weight() {
    use fastmq_engine::SubscribeOptions;
    let broker = open();
    let group: Vec<_> = [1, 0, 6]
        .into_iter()
        .map(|weight| {
            let options = SubscribeOptions {
                group: b"a",
                weight,
                ..SubscribeOptions::default()
            };
            broker.subscribe_with(b"work.*", options).unwrap()
        })
        .collect();
    let mut counts = [0u64; 3];
    for number in 0..80_000 {
        publish_number(&broker, "work.x", number).unwrap();
        for (count, member) in counts.iter_mut().zip(&group) {
            *count += take_all(&broker, queue_of(member)).len() as u64;
        }
    }
    for (count, due) in counts.iter().zip([10_000, 10_000, 60_000]) {
        assert!(count.abs_diff(due) < due / 4, "{counts:?}");
    }
}
