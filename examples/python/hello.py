"""The shortest program: publish and receive in one process."""

import fastmq

with fastmq.open() as client, client.subscribe("flight.*.JFK") as flights:
    client.publish("flight.LAX.JFK", b"delayed 12 minutes")
    for message in flights.receive(timeout=1):
        print(message.subject, message.payload)
