"""Flights, and what is counted of them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

LATE_MINUTES = 15


@dataclass(frozen=True, slots=True)
class Flight:
    """A line of the file: `2001/01/01 00:47,66,1750,DTW,LAS`."""

    number: int
    """Which line, from 0 on."""
    time: str
    delay_minutes: int
    miles: int
    origin: str
    destination: str

    @staticmethod
    def parse(line: str, number: int) -> Flight:
        time, delay, miles, origin, destination = line.split(",")
        return Flight(number, time, int(delay), int(miles), origin, destination)

    @property
    def hour(self) -> int:
        return int(self.time[11:13])

    def __str__(self) -> str:
        return f"{self.time},{self.delay_minutes},{self.miles},{self.origin},{self.destination}"


def read(path: pathlib.Path) -> list[Flight]:
    """The flights of a file, in its order; its first line is the head of the table."""
    lines = path.read_text(encoding="ascii").splitlines()[1:]
    return [Flight.parse(line, number) for number, line in enumerate(lines)]


@dataclass(slots=True)
class Delays:
    """What is known about the delays of some flights."""

    flights: int = 0
    late: int = 0
    sum_minutes: int = 0
    max_minutes: int = -(10**9)

    def add(self, other: Delays) -> None:
        self.flights += other.flights
        self.late += other.late
        self.sum_minutes += other.sum_minutes
        self.max_minutes = max(self.max_minutes, other.max_minutes)

    @property
    def mean_minutes(self) -> float:
        return self.sum_minutes / self.flights

    @property
    def late_share(self) -> float:
        return self.late / self.flights


class Tally:
    """Delays by airport of origin and by hour of departure."""

    def __init__(self) -> None:
        self.airports: dict[str, Delays] = defaultdict(Delays)
        self.hours: dict[int, Delays] = defaultdict(Delays)

    def count(self, flight: Flight) -> None:
        minutes = flight.delay_minutes
        one = Delays(1, int(minutes >= LATE_MINUTES), minutes, minutes)
        self.airports[flight.origin].add(one)
        self.hours[flight.hour].add(one)

    def add(self, other: Tally) -> None:
        for airport, delays in other.airports.items():
            self.airports[airport].add(delays)
        for hour, delays in other.hours.items():
            self.hours[hour].add(delays)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tally):
            return NotImplemented
        return self.airports == other.airports and self.hours == other.hours

    def to_json(self) -> Any:
        return {
            "airports": [(key, *dataclasses.astuple(at)) for key, at in self.airports.items()],
            "hours": [(key, *dataclasses.astuple(at)) for key, at in self.hours.items()],
        }

    @staticmethod
    def from_json(json: Any) -> Tally:
        tally = Tally()
        tally.airports.update({key: Delays(*figures) for key, *figures in json["airports"]})
        tally.hours.update({key: Delays(*figures) for key, *figures in json["hours"]})
        return tally
