"""Request and reply: a responder on its own thread, one question at a time, many at a time, and the
ways in which a question ends without an answer."""

import threading

import fastmq
from fastmq import Status

QUESTIONS = 1000


def serve(client: fastmq.Client, questions: fastmq.Subscription) -> None:
    """Answers until the broker is drained."""
    for question in questions:
        try:
            client.reply(question, str(int(question.payload) ** 2))
        except ValueError:
            client.reply(question, b"not a number", status=Status.INVALID)


def ask_many(client: fastmq.Client) -> int:
    """Asks without waiting in between; the answers come in batches."""
    right = 0
    with client.requester("math.square") as requester:
        for number in range(QUESTIONS):
            requester.submit(str(number), token=number, timeout=5)
        while requester.in_flight():
            for answer in requester.receive(timeout=5):
                # The token is the one given with the question; the status says how it ended.
                right += (
                    answer.status is Status.OK and int(answer.payload) == answer.token**2
                )
    return right


def main() -> None:
    with fastmq.open() as client, client.subscribe("math.square") as questions:
        responder = threading.Thread(target=serve, args=(client, questions))
        responder.start()

        print("12 squared is", client.request("math.square", b"12", timeout=5).payload.decode())

        right = ask_many(client)
        print(f"{right} of {QUESTIONS} answers are right")

        # The responder may refuse: its status and its words are in the answer.
        refused = client.request("math.square", b"twelve", timeout=5)
        words = refused.payload.decode()
        print(f"math.square of twelve: FASTMQ_{refused.status.name}, {words}")

        # Nobody listens: the engine says so at once, whatever the time-out.
        try:
            client.request("math.cube", b"12", timeout=None)
            raise AssertionError("somebody has answered")
        except fastmq.NoResponder as error:
            print("math.cube:", error.code)

        # Drain ends the responder's loop.
        client.drain(timeout=5)
        responder.join()
        assert right == QUESTIONS and refused.status is Status.INVALID


if __name__ == "__main__":
    main()
