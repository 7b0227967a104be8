"""Many answers to one request: a census that asks everybody, and a search that streams what it
finds for as long as somebody wants to hear it."""

import threading

import fastmq


def search(client: fastmq.Client, searches: fastmq.Subscription) -> None:
    for request in searches:
        with client.reply_stream(request) as stream:
            number = 0
            try:
                while True:
                    # Waits for credit: the asker says how many replies it can take.
                    stream.send_wait(f"{request.payload.decode()} {number}", timeout=5)
                    number += 1
            except fastmq.Cancelled:
                print(f"the asker has heard enough after {number} results")


def main() -> None:
    with fastmq.open() as client:
        houses = []
        for people in (2, 3, 1):
            houses.append(
                client.subscribe(
                    "census",
                    delivery=fastmq.Delivery.INLINE,
                    on_message=lambda request, people=people: client.reply(request, str(people)),  # type: ignore[misc]
                )
            )
        answers = client.request_many("census", b"how many are you?", timeout=5)
        total = sum(int(answer.payload) for answer in answers)
        print(f"{len(answers)} houses, {total} people")
        assert (len(answers), total) == (3, 6)

        searches = client.subscribe("search")
        searcher = threading.Thread(target=search, args=(client, searches))
        searcher.start()
        with client.requester("search") as asker:
            asker.submit_many(b"result", token=1, timeout=None, credit=8)
            heard = 0
            while heard < 100:
                for reply in asker.receive(timeout=5):
                    assert reply.payload == f"result {heard}".encode() or heard >= 100
                    heard += 1
            asker.cancel(1)
            last = None
            while last is None or not last.is_end:
                for last in asker.receive(timeout=5):
                    pass
        print("the stream ended with", last.status.name)
        searches.unsubscribe()
        searcher.join()


if __name__ == "__main__":
    main()
