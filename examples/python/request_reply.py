"""Requests and replies, between two clients of a server: one at a time, then many in flight."""

import tempfile
import threading

import fastmq
from fastmq import Status


def answer(url: str, ready: threading.Event) -> None:
    """A responder: it squares numbers until the server is gone."""
    with fastmq.connect(url) as client, client.subscribe("square") as requests:
        ready.set()
        for request in requests:
            try:
                client.reply(request, str(int(request.payload) ** 2))
            except ValueError:
                client.reply(request, b"not a number", status=Status.INVALID)


def main() -> None:
    directory = tempfile.TemporaryDirectory(prefix="fastmq-")
    with directory, fastmq.open() as broker:
        server = broker.listen(f"unix:{directory.name}/example")
        ready = threading.Event()
        responder = threading.Thread(target=answer, args=(server.urls[0], ready), daemon=True)
        responder.start()
        ready.wait()

        with fastmq.connect(server.urls[0]) as client:
            print("7 * 7 =", client.request("square", b"7", timeout=5).payload.decode())

            refused = client.request("square", b"seven", timeout=5)
            print("seven:", refused.status.name, refused.payload.decode())
            assert refused.status is Status.INVALID

            try:
                client.request("cube", b"7", timeout=5)
            except fastmq.NoResponder as error:
                print("cube:", error)

            with client.requester("square") as asker:
                for number in range(100):
                    asker.submit(str(number), token=number)
                squares: dict[int, int] = {}
                while asker.in_flight():
                    for reply in asker.receive(timeout=5):
                        squares[reply.token] = int(reply.payload)
            assert squares == {number: number**2 for number in range(100)}
            print("100 squares, the largest is", max(squares.values()))


if __name__ == "__main__":
    main()
