"""What runs in processes of its own: publishers and workers."""

from __future__ import annotations

import json
import pathlib
import signal
import time
import zlib

import fastmq
from fastmq import GroupMode
from tally import Flight, Tally, read

PATIENCE = 30.0
"""Seconds that a publisher waits for room, and that anything else may take."""
STOP = 1
"""The tag of the message that ends a worker."""


def publish(url: str, run: str, path: pathlib.Path, parts: tuple[int, int], seconds: float) -> None:
    """Publishes the flights of some of the airports, in the order of the file.

    An airport has one publisher, since that is whose order is kept: `parts` says which it is, and
    of how many.
    """
    part, part_count = parts
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that started it ends it
    flights = read(path)
    with fastmq.connect(url, name=f"flights publisher {part + 1}") as client:
        start = time.monotonic()
        for flight in flights:
            airport = flight.origin
            if zlib.crc32(airport.encode()) % part_count != part:
                continue
            early = start + seconds * flight.number / len(flights) - time.monotonic()
            if early > 0:
                time.sleep(early)
            line = f"{flight.number} {flight}"
            client.publish_wait(f"flight.{run}.{airport}", line, PATIENCE, key=airport)
        client.drain(PATIENCE)


def work(url: str, run: str, name: str) -> None:
    """Counts the flights that it gets, until it is told to stop.

    It says what it does in three ways: each departure, to whoever shows them; after each batch how
    many there were; and at the end the result.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tally = Tally()
    handled: list[tuple[int, int]] = []
    with fastmq.connect(url, name=f"flights {name}") as client:
        queue = client.queue()
        stop = client.subscribe(f"stop.{run}", queue=queue, tag=STOP)
        flights = client.subscribe(
            f"flight.{run}.*", group="workers", group_mode=GroupMode.KEY_SHARED, queue=queue
        )
        progress = client.publisher(f"progress.{run}.{name}")
        progress.publish_wait("0", PATIENCE)
        is_told_to_stop = False
        while not is_told_to_stop:
            with queue.receive(message_max=64) as batch:
                for message in batch:
                    if message.tag == STOP:
                        is_told_to_stop = True
                        continue
                    number, line = message.payload.decode().split(" ", 1)
                    flight = Flight.parse(line, int(number))
                    # The clock is the same in all processes: it shows who came first.
                    handled.append((time.monotonic_ns(), flight.number))
                    tally.count(flight)
                    client.publish_wait(f"departure.{flight.origin}", departure(flight), PATIENCE)
            progress.publish_wait(str(len(handled)), PATIENCE)
        result = {"name": name, "tally": tally.to_json(), "handled": handled}
        client.publish_wait(f"result.{run}", json.dumps(result), PATIENCE)
        flights.unsubscribe()
        stop.unsubscribe()
        client.drain(PATIENCE)


def departure(flight: Flight) -> str:
    """What a departure board is told."""
    return json.dumps(
        {
            "time": flight.time,
            "to": flight.destination,
            "delay": flight.delay_minutes,
            "miles": flight.miles,
        }
    )
