"""Publish and subscribe: patterns, a shared queue, a publisher handle, headers and a handler.

Everything happens on one thread: the messages wait in a queue between publish and receive, and the
handler runs inside publish.
"""

import fastmq

KITCHEN, ALARM = 1, 2


def main() -> None:
    with fastmq.open() as client:
        # One queue for two subscriptions, so that one loop reads both; the tag says which it was.
        queue = client.queue()
        client_subscriptions = [
            client.subscribe("home.kitchen.*", queue=queue, tag=KITCHEN),
            client.subscribe("home.*.smoke", queue=queue, tag=ALARM),
        ]
        alarms: list[bytes] = []
        siren = client.subscribe(
            "home.*.smoke",
            delivery=fastmq.Delivery.INLINE,
            on_message=lambda message: alarms.append(message.payload),
        )

        client.publish("home.kitchen.temperature", b"21.5", headers={"unit": "C"})
        client.publish("home.attic.smoke", b"a little")
        with client.publisher("home.kitchen.humidity") as humidity:
            for percent in (40, 41, 43):
                humidity.publish(str(percent))

        tags = {KITCHEN: 0, ALARM: 0}
        while sum(tags.values()) < 5:
            for message in queue.receive(timeout=5):
                tags[message.tag] += 1
                units = [value for name, value in message.headers if name == "unit"]
                unit = units[0].decode() if units else ""
                print(f"{message.subject}: {message.payload.decode()}{unit}")
        assert tags == {KITCHEN: 4, ALARM: 1} and alarms == [b"a little"]
        for subscription in (*client_subscriptions, siren):
            subscription.unsubscribe()


if __name__ == "__main__":
    main()
