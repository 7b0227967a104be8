"""Batches and columns: in place while they are held, as copies afterwards."""

from __future__ import annotations

import unittest

import fastmq

from steps import SECONDS, Broker, collect

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]


class Batches(Broker):
    def setUp(self) -> None:
        super().setUp()
        self.subscription = self.client.subscribe("a.*")

    def publish(self, *payloads: bytes) -> None:
        for number, payload in enumerate(payloads):
            self.client.publish(f"a.{number}", payload)

    def test_a_batch_is_a_sequence(self) -> None:
        self.publish(b"x", b"y", b"z")
        batch = self.subscription.receive(timeout=SECONDS)
        self.assertEqual(len(batch), 3)
        self.assertEqual([m.payload for m in batch], [b"x", b"y", b"z"])
        self.assertEqual((batch[0].payload, batch[-1].payload), (b"x", b"z"))
        self.assertRaises(IndexError, lambda: batch[3])
        self.assertRaises(IndexError, lambda: batch[-4])

    def test_message_max_limits_and_the_rest_waits(self) -> None:
        self.publish(b"x", b"y", b"z")
        self.assertEqual(len(self.subscription.receive(2, timeout=SECONDS)), 2)
        self.assertEqual(self.subscription.receive(2, timeout=SECONDS).payloads(), [b"z"])

    def test_messages_outlive_their_batch_and_client(self) -> None:
        self.publish(b"x" * 100)
        batch = self.subscription.receive(timeout=SECONDS)
        message = batch[0]
        batch.close()
        self.client.close()
        del batch
        collect()
        self.assertEqual((message.subject, message.payload), ("a.0", b"x" * 100))

    def test_a_batch_left_open_is_copied_out_by_the_next_receive(self) -> None:
        self.publish(b"first")
        first = self.subscription.receive(timeout=SECONDS)
        self.publish(b"second")
        second = self.subscription.receive(timeout=SECONDS)
        self.assertEqual((first.payloads(), second.payloads()), ([b"first"], [b"second"]))

    def test_a_batch_outlives_its_subscription_and_client(self) -> None:
        self.publish(b"kept")
        batch = self.subscription.receive(timeout=SECONDS)
        self.subscription.unsubscribe()
        self.client.close()
        self.assertEqual(batch.payloads(), [b"kept"])
        batch.close()

    def test_a_closed_batch_is_misuse(self) -> None:
        self.publish(b"x")
        batch = self.subscription.receive(timeout=SECONDS)
        batch.close()
        batch.close()
        self.assertTrue(batch.closed)
        for call in (batch.messages, batch.payloads, batch.columns, lambda: batch[0], batch.__enter__):
            self.assertRaises(fastmq.Misuse, call)

    def test_payloads_are_read_in_place_while_with_holds_them(self) -> None:
        self.publish(b"in place", b"")
        with self.subscription.receive(timeout=SECONDS) as batch:
            view = batch.view(0)
            self.assertEqual((bytes(view), view.readonly), (b"in place", True))
            self.assertEqual(bytes(batch.view(-1)), b"")
            self.assertRaises(IndexError, batch.view, 2)
            with self.assertRaises(TypeError):
                view[0] = 1
            # The queue has one open batch.
            self.assertRaises(fastmq.Misuse, self.subscription.receive, timeout=0)

    def test_a_view_kept_after_its_batch_has_ended(self) -> None:
        self.publish(b"in place")
        with self.subscription.receive(timeout=SECONDS) as batch:
            view = batch.view(0)
        self.assertRaises(ValueError, lambda: view[0])
        self.publish(b"next")
        self.assertEqual(self.subscription.receive(timeout=SECONDS).payloads(), [b"next"])

    def test_a_slice_of_a_view_keeps_its_batch_open(self) -> None:
        self.publish(b"in place")
        with self.assertRaisesRegex(fastmq.Misuse, "a slice or an array"):
            with self.subscription.receive(timeout=SECONDS) as batch:
                part = batch.view(0)[3:]
        self.assertEqual(bytes(part), b"place")
        self.publish(b"next")
        self.assertRaises(fastmq.Misuse, self.subscription.receive, timeout=0)
        part.release()
        self.assertEqual(self.subscription.receive(timeout=SECONDS).payloads(), [b"next"])

    def test_views_are_for_with_alone(self) -> None:
        self.publish(b"x")
        batch = self.subscription.receive(timeout=SECONDS)
        self.assertRaises(fastmq.Misuse, batch.view, 0)

    def test_an_iteration_that_is_left_has_taken_what_it_gave(self) -> None:
        self.publish(b"x", b"y", b"z")
        for message in self.subscription:
            if message.payload == b"y":
                break
        self.assertEqual(self.subscription.receive(timeout=SECONDS).payloads(), [b"z"])

    def test_an_iteration_gives_each_message_its_own_subject(self) -> None:
        subjects = ["a.x", "a.x", "a.y", "a.größe", "a.größ", "a.x"]
        with self.client.subscribe("a.*") as subscription:
            for subject in subjects:
                self.client.publish(subject, subject)
            taken = [next(subscription) for _ in subjects]
        self.assertEqual([message.subject for message in taken], subjects)
        self.assertEqual([message.payload.decode() for message in taken], subjects)

    def test_an_iteration_ends_with_its_queue(self) -> None:
        self.publish(b"x")
        taken = []
        for message in self.subscription.queue:
            taken.append(message.payload)
            self.subscription.unsubscribe()
        self.assertEqual(taken, [b"x"])


class Columns(Broker):
    def test_columns_have_what_the_messages_have(self) -> None:
        subscription = self.client.subscribe("a.>", tag=3)
        rows = [("a.x", b"12"), ("a.long.subject", b""), ("a.y", b"345")]
        self.client.publish_batch(rows)
        batch = subscription.receive(timeout=SECONDS)
        columns = batch.columns()
        batch.close()
        self.assertEqual(len(columns), 3)
        self.assertEqual(columns.offsets.tolist(), [0, 2, 2, 5])
        self.assertEqual((bytes(columns.data), columns.data.readonly), (b"12345", True))
        self.assertEqual(columns.subject_offsets.tolist(), [0, 3, 17, 20])
        self.assertEqual(bytes(columns.subject_data), b"a.xa.long.subjecta.y")
        self.assertEqual(columns.tags.tolist(), [3, 3, 3])
        self.assertEqual(columns.subscription_ids.tolist(), [subscription.id] * 3)
        for name in ("tokens", "sequences", "timestamps_ns", "statuses"):
            self.assertEqual(getattr(columns, name).tolist(), [0, 0, 0], name)
        formats = (columns.offsets.format, columns.tokens.format, columns.statuses.format)
        self.assertEqual(formats, ("q", "Q", "I"))

    def test_what_came_by_columns_can_go_by_columns(self) -> None:
        first = self.client.subscribe("a.>")
        self.client.publish_batch([("a.1", b"x"), ("a.2", b"yz")])
        columns = first.receive(timeout=SECONDS).columns()
        with fastmq.open() as other:
            second = other.subscribe("a.>")
            count = other.publish_columns(
                columns.subject_data, columns.subject_offsets, columns.data, columns.offsets
            )
            self.assertEqual(count, 2)
            batch = second.receive(timeout=SECONDS)
            self.assertEqual(batch.subjects(), ["a.1", "a.2"])
            self.assertEqual(batch.payloads(), [b"x", b"yz"])

    def test_a_publisher_sends_the_rows_of_a_column(self) -> None:
        from array import array

        subscription = self.client.subscribe("a")
        with self.client.publisher("a") as publisher:
            for code in "iIqQ":
                self.assertEqual(publisher.publish_columns(b"abcdef", array(code, [1, 3, 3, 6])), 3)
                self.assertEqual(subscription.receive(timeout=SECONDS).payloads(), [b"bc", b"", b"def"])
            self.assertEqual(publisher.publish_columns(b"", array("q", [0])), 0)

    def test_bad_offsets_are_refused_before_anything_is_sent(self) -> None:
        from array import array

        subscription = self.client.subscribe("a")
        with self.client.publisher("a") as publisher:
            for offsets in (
                array("q", []),
                array("q", [0, 2, 1]),
                array("q", [0, 4]),
                array("q", [-1, 2]),
                array("i", [-1, 2]),
                array("H", [0, 1]),
                array("d", [0.0, 1.0]),
            ):
                with self.assertRaises(fastmq.Invalid):
                    publisher.publish_columns(b"abc", offsets)
            self.assertRaises(TypeError, publisher.publish_columns, b"abc", [0, 1])
        with self.assertRaisesRegex(fastmq.Invalid, "1 subjects for 2 payloads"):
            two, one = array("q", [0, 1, 2]), array("q", [0, 1])
            self.client.publish_columns(b"a", one, b"xy", two)
        self.assertRaises(fastmq.Again, subscription.receive, timeout=0)

    def test_answers_go_by_columns(self) -> None:
        workers = self.client.subscribe("work")
        with self.client.requester("work") as asker:
            from array import array

            self.assertEqual(asker.submit_columns(b"aabb", array("q", [0, 2, 4]), 10), 2)
            asked = workers.receive(timeout=SECONDS).columns()
            self.assertEqual(self.client.reply_columns(asked.tokens, asked.data, asked.offsets), 2)
            answers = asker.receive(timeout=SECONDS).columns()
            self.assertEqual(answers.tokens.tolist(), [10, 11])
            self.assertEqual(answers.statuses.tolist(), [0, 0])
            self.assertEqual(bytes(answers.data), b"aabb")
            with self.assertRaises(fastmq.Invalid):
                self.client.reply_columns(asked.tokens[:1], asked.data, asked.offsets)

    @unittest.skipIf(numpy is None, "NumPy is not installed")
    def test_numpy_reads_columns_in_place_and_they_outlive_all_else(self) -> None:
        subscription = self.client.subscribe("a")
        sent = numpy.arange(10, dtype=numpy.float64)
        with self.client.publisher("a") as publisher:
            offsets = numpy.arange(0, 88, 8)
            self.assertEqual(publisher.publish_columns(sent, offsets), 10)
        columns = subscription.receive(timeout=SECONDS).columns()
        got, ends = numpy.frombuffer(columns.data, numpy.float64), numpy.asarray(columns.offsets)
        del columns
        self.client.close()
        collect()
        numpy.testing.assert_array_equal(got, sent)
        numpy.testing.assert_array_equal(ends, offsets)
        self.assertFalse(got.flags.writeable)


class Claims(Broker):
    def setUp(self) -> None:
        super().setUp()
        self.subscription = self.client.subscribe("gate")
        self.publisher = self.client.publisher("gate")

    def test_a_claim_is_written_in_place_and_committed(self) -> None:
        for size in (16, 100_000):
            with self.publisher.claim(size) as claim:
                self.assertEqual(bytes(claim.view), bytes(size))
                claim.view[:8] = b"boarding"
                claim.commit(8)
            (message,) = self.subscription.receive(timeout=SECONDS)
            self.assertEqual(message.payload, b"boarding")

    def test_one_that_is_not_committed_is_abandoned(self) -> None:
        with self.publisher.claim(16) as claim:
            claim.view[:] = b"never seen......"
        claim.abandon()
        self.assertRaises(fastmq.Misuse, claim.commit, 1)
        self.assertRaises(BufferError, lambda: claim.view)
        self.publisher.publish(b"next")
        self.assertEqual(self.subscription.receive(timeout=SECONDS).payloads(), [b"next"])

    def test_a_publisher_has_one_claim_and_publishes_nothing_meanwhile(self) -> None:
        with self.publisher.claim(16) as claim:
            self.assertRaises(fastmq.Misuse, self.publisher.claim, 16)
            self.assertRaises(fastmq.Misuse, self.publisher.publish, b"x")
            self.assertRaises(fastmq.Invalid, claim.commit, 17)
            # It was refused, so its bytes may stand elsewhere: they are sent, not written.
            self.assertRaises(BufferError, lambda: claim.view)
            claim.commit(16)

    def test_nobody_writes_to_what_was_committed(self) -> None:
        claim = self.publisher.claim(16)
        view = claim.view
        part = view[4:]
        with self.assertRaisesRegex(fastmq.Misuse, "slice or an array"):
            claim.commit(16)
        self.assertRaises(fastmq.Misuse, self.publisher.close)
        self.assertRaises(fastmq.Misuse, claim.abandon)
        part[:] = b"twelve bytes"
        part.release()
        claim.commit(16)
        with self.assertRaises(ValueError):
            view[0] = 1
        (message,) = self.subscription.receive(timeout=SECONDS)
        self.assertEqual(message.payload, bytes(4) + b"twelve bytes")

    def test_a_claim_outlives_its_publisher_and_client(self) -> None:
        claim = self.publisher.claim(16)
        view = claim.view
        self.client.close()
        del self.publisher
        collect()
        view[:] = b"to nobody at all"
        self.assertRaises(fastmq.Closed, claim.commit, 16)
        claim.abandon()

    def test_a_claim_that_is_forgotten_is_abandoned(self) -> None:
        self.publisher.claim(16).view[:4] = b"lost"
        collect()
        self.publisher.publish(b"next")
        self.assertEqual(self.subscription.receive(timeout=SECONDS).payloads(), [b"next"])
        view = self.publisher.claim(16).view
        collect()
        self.assertRaises(fastmq.Misuse, self.publisher.publish, b"x")
        view.release()
        self.publisher.publish(b"last")

    def test_a_closed_publisher_has_ended_its_claim(self) -> None:
        claim = self.publisher.claim(16)
        self.publisher.close()
        claim.abandon()
        self.assertRaises(fastmq.Closed, claim.commit, 1)
