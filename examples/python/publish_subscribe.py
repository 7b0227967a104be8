"""Publish and subscribe: patterns, a shared queue, a publisher handle, headers and a callback.

Everything happens on one thread: the messages wait in a queue between publish and receive, and the
callback runs inside publish.
"""

import fastmq

KITCHEN, ALARM = 1, 2


def main() -> None:
    with fastmq.open() as client:
        # One queue for two subscriptions, so that one loop reads both; the tag says which it was.
        queue = client.queue()
        kitchen = client.subscribe("house.kitchen.*", queue=queue, tag=KITCHEN)
        alarms = client.subscribe("house.*.smoke", queue=queue, tag=ALARM)

        # A callback instead of a queue, here on the publishing thread.
        in_house: list[str] = []
        counter = client.subscribe(
            "house.>",
            delivery=fastmq.Delivery.INLINE,
            on_message=lambda message: in_house.append(message.subject),
        )

        # By subject, by handle (checked and routed once), and with more to it than a payload.
        client.publish("house.kitchen.light", b"on")
        client.publish("house.cellar.light", b"nobody listens")
        with client.publisher("house.kitchen.smoke") as smoke:
            smoke.publish(b"none")
        client.publish("house.kitchen.temperature", b"21.5", headers={"unit": "celsius"})

        tags = {KITCHEN: 0, ALARM: 0}
        while sum(tags.values()) < 4:
            for message in queue.receive(timeout=5):
                tags[message.tag] += 1
                whose = "alarm" if message.tag == ALARM else "kitchen"
                units = [value for name, value in message.headers if name == "unit"]
                text = b" ".join([message.payload, *units]).decode()
                print(f"{whose:8} {message.subject}: {text}")
        print(len(in_house), "messages in the house")

        # kitchen.smoke matches both patterns, so each of the two subscriptions has it.
        assert tags == {KITCHEN: 3, ALARM: 1} and len(in_house) == 4
        for subscription in (kitchen, alarms, counter):
            subscription.unsubscribe()


if __name__ == "__main__":
    main()
