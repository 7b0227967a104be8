"""Many answers to one request: a census that asks everybody, and a search that streams what it
finds for as long as somebody wants to hear it."""

import itertools
import math
import threading
from collections.abc import Iterator

import fastmq


def primes(end: int | None) -> Iterator[int]:
    for number in itertools.count(2):
        if end is not None and number >= end:
            return
        if all(number % by for by in range(2, math.isqrt(number) + 1)):
            yield number


def search(client: fastmq.Client, questions: fastmq.Subscription) -> None:
    """Streams primes to whoever asks; the asker says how many it wants, by taking them."""
    for question in questions:
        end = int(question.payload) if question.payload else None
        with client.reply_stream(question) as stream:
            try:
                for prime in primes(end):
                    # Waits while the asker is behind: its credit is what it can take.
                    stream.send_wait(str(prime), timeout=None)
                stream.end()
            except fastmq.Cancelled:
                print("the search has stopped")  # Nobody wants more.


def take_primes(requester: fastmq.Requester, end: str, wanted: float) -> int:
    """Asks for the primes below `end` and takes `wanted` of them at most; how many came."""
    # As far as the credit may the search be ahead; it hangs if it is silent for the gap.
    requester.submit_many(end, token=1, timeout=None, credit=16, gap=10)
    count, last, is_over = 0, 0, False
    while not is_over:
        for reply in requester.receive(timeout=None):
            if reply.is_end:
                is_over = True
            elif count < wanted:
                last = int(reply.payload)
                count += 1
                if count == wanted:
                    print(f"{count} primes are enough, the last is {last}")
                    requester.cancel(1)
    if count < wanted:
        print(f"{count} primes below {end}, the last is {last}")
    return count


def main() -> None:
    with fastmq.open() as client:

        def report(question: fastmq.Message) -> None:
            client.reply(question, b"here")

        # Everybody who listens gets the question; one call waits for the answers of all.
        members = [
            client.subscribe("census", delivery=fastmq.Delivery.INLINE, on_message=report)
            for _ in range(3)
        ]
        answers = client.request_many("census", b"", timeout=1)
        print(len(answers), "members are here")
        assert len(answers) == len(members)

        questions = client.subscribe("primes")
        searcher = threading.Thread(target=search, args=(client, questions))
        searcher.start()
        with client.requester("primes") as requester:
            # A stream to its end, and one that is cancelled when there is enough.
            assert take_primes(requester, "1000", math.inf) == 168
            assert take_primes(requester, "", 5000) == 5000

        client.drain(timeout=5)
        searcher.join()
        for subscription in (*members, questions):
            subscription.unsubscribe()


if __name__ == "__main__":
    main()
