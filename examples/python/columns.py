"""Payloads in place, and by columns for NumPy."""

import fastmq
import numpy


def in_place(subscription: fastmq.Subscription) -> int:
    with subscription.receive(timeout=1) as batch:
        header = batch.view(0)[:8]  # a memoryview into the queue, no copy
        number = int.from_bytes(header, "little")
        header.release()
    return number


def by_columns(client: fastmq.Client, subscription: fastmq.Subscription) -> float:
    sent = numpy.linspace(10, 20, 1000)
    offsets = numpy.arange(0, sent.nbytes + 1, sent.itemsize)
    total, left = 0.0, len(sent)
    with client.publisher("price.ACME") as publisher:
        publisher.publish_columns(sent, offsets)
    while left:
        columns = subscription.receive(timeout=1).columns()
        prices = numpy.frombuffer(columns.data, numpy.float64)  # no copy, and it outlives the batch
        total += float(prices.sum())
        left -= len(columns)
    return total / len(sent)


def main() -> None:
    with fastmq.open() as client, client.subscribe("price.*") as subscription:
        client.publish("price.FIRST", (42).to_bytes(8, "little") + b"and more")
        number, mean = in_place(subscription), by_columns(client, subscription)
        print(f"in place: {number}; the mean of a column: {mean:.2f}")
        assert number == 42 and abs(mean - 15) < 1e-9


if __name__ == "__main__":
    main()
