"""Groups, keys, latest and last values, presence: the engine's, by the words of Python."""

from __future__ import annotations

import threading

import fastmq
from fastmq import GroupMode, Policy

from steps import SECONDS, Broker


class Subscriptions(Broker):
    def test_members_of_a_group_share_its_messages(self) -> None:
        members = [self.client.subscribe("job", group="workers", weight=1) for _ in range(2)]
        for number in range(100):
            self.client.publish("job", str(number))
        taken: list[bytes] = []
        while len(taken) < 100:
            ready = fastmq.wait_any(list(members), SECONDS)
            taken += members[ready].receive(timeout=0).payloads()
        self.assertEqual(sorted(taken), sorted(str(n).encode() for n in range(100)))
        with self.assertRaises(fastmq.Conflict):
            self.client.subscribe("job", group="workers", group_mode=GroupMode.KEY_SHARED)

    def test_messages_of_a_key_go_to_one_member_in_order(self) -> None:
        members = [
            self.client.subscribe("job", group="workers", group_mode=GroupMode.KEY_SHARED)
            for _ in range(2)
        ]
        with self.client.publisher("job") as publisher:
            for number in range(100):
                publisher.publish(str(number), key=f"key {number % 10}")
        owners: dict[bytes, int] = {}
        for index, member in enumerate(members):
            last: dict[bytes, int] = {}
            taken = 0
            while taken < member.queue.statistics()["published"]:
                for message in member.receive(timeout=SECONDS):
                    taken += 1
                    number = int(message.payload)
                    self.assertGreater(number, last.get(message.key, -1))
                    last[message.key] = number
                    self.assertEqual(owners.setdefault(message.key, index), index)
        self.assertEqual(len(owners), 10)

    def test_a_latest_queue_has_the_newest_of_each_subject(self) -> None:
        board = self.client.queue(policy=Policy.LATEST)
        subscription = self.client.subscribe("flight.*", queue=board)
        for number in range(10):
            self.client.publish("flight.1", str(number))
            self.client.publish("flight.2", str(-number))
        rows = [(m.subject, m.payload, m.lost_before) for m in board.receive(timeout=SECONDS)]
        self.assertEqual(rows, [("flight.1", b"9", 9), ("flight.2", b"-9", 9)])
        self.assertEqual(board.statistics()["replaced"], 18)
        self.assertEqual(subscription.queue.statistics()["replaced"], 18)
        self.assertEqual(subscription.statistics()["dropped"], 0)

    def test_last_values_come_to_whoever_subscribes_later(self) -> None:
        self.client.publish("gate.1", b"open", keep_last=True)
        with self.client.publisher("gate.2") as publisher:
            publisher.publish(b"closed", keep_last=True)
        late = self.client.subscribe("gate.*", replay_last=True)
        values = {m.subject: m.payload for m in late.receive(timeout=SECONDS)}
        self.assertEqual(values, {"gate.1": b"open", "gate.2": b"closed"})
        self.client.forget_last("gate.1")
        self.assertRaises(fastmq.NotFound, self.client.forget_last, "gate.1")
        self.assertEqual(self.client.statistics()["last_values"], 1)

    def test_who_is_there_and_who_leaves_is_told(self) -> None:
        player = self.client.subscribe("room.1")
        joined = self.client.subscribe(f"{fastmq.SUBJECT_JOINED}.room.>", replay_last=True)
        left = self.client.subscribe(f"{fastmq.SUBJECT_LEFT}.room.>")
        (told,) = joined.receive(timeout=SECONDS)
        self.assertEqual(told.payload, b"room.1")
        self.assertEqual(told.header(fastmq.HEADER_SUBSCRIPTION), str(player.id).encode())
        player.unsubscribe()
        self.assertEqual(left.receive(timeout=SECONDS).payloads(), [b"room.1"])

    def test_several_subscriptions_feed_one_queue(self) -> None:
        queue = self.client.queue()
        first = self.client.subscribe("a", queue=queue, tag=1)
        second = self.client.subscribe("b", queue=queue, tag=2)
        self.client.publish("b", b"")
        self.client.publish("a", b"")
        tags = [message.tag for message in queue.receive(timeout=SECONDS)]
        self.assertEqual(tags, [2, 1])
        queue.close()
        self.assertRaises(fastmq.Closed, queue.receive)
        self.assertRaises(fastmq.Closed, first.receive)
        second.unsubscribe()
        with fastmq.open() as other, self.assertRaisesRegex(fastmq.Invalid, "another client"):
            other.subscribe("a", queue=self.client.queue())

    def test_a_lent_queue_is_closed_by_its_subscription(self) -> None:
        subscription = self.client.subscribe("größe.*")
        self.assertEqual(subscription.pattern, "größe.*")
        self.assertIn("größe", repr(subscription))
        self.assertRaises(fastmq.Misuse, subscription.queue.close)
        queue = subscription.queue
        subscription.unsubscribe()
        subscription.unsubscribe()
        self.assertRaises(fastmq.Closed, queue.receive)

    def test_a_subscription_that_nobody_holds_has_ended(self) -> None:
        self.client.subscribe("a")
        self.assertEqual(self.client.statistics()["subscriptions"], 0)

    def test_draining_ends_iterations(self) -> None:
        subscription = self.client.subscribe("a")
        self.client.publish("a", b"x")
        self.assertRaises(fastmq.Timeout, self.client.drain, 0.01)
        draining = threading.Thread(target=self.client.drain, args=(SECONDS,))
        draining.start()
        self.assertEqual([message.payload for message in subscription], [b"x"])
        draining.join()
        self.assertRaises(fastmq.End, subscription.receive)
        self.assertRaises(fastmq.Closed, self.client.publish, "a", b"")
