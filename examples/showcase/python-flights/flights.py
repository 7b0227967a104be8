"""A pipeline over 20,000 real flights: several processes around one `fastmq serve`.

    2 publishers --flight.RUN.AIRPORT--> 4 workers --departure.AIRPORT--> whoever shows them
                                            |------progress.RUN.WORKER--> this program
                                            `------result.RUN-----------> this program

The workers share the flights by their key, the airport: its flights go to one worker, in the order
of the file. The results are compared with a plain count; a difference ends the program with 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pathlib
import sys
import uuid
from collections.abc import Callable
from typing import Any

import fastmq
import pipeline
import plot
from fastmq import Policy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from tally import LATE_MINUTES, Delays, Flight, Tally, read

DATA = pathlib.Path(__file__).parents[2] / "data" / "flights.csv"
PUBLISHERS, WORKERS = 2, 4
ROWS = 12


class Processes:
    """Publishers and workers."""

    def __init__(self) -> None:
        # No fork: a client is of the process that has opened it.
        self.context = multiprocessing.get_context("spawn")
        self.all: list[Any] = []

    def start(self, target: Callable[..., None], *arguments: object) -> None:
        process = self.context.Process(target=target, args=arguments, daemon=True)
        process.start()
        self.all.append(process)

    def check(self) -> None:
        for process in self.all:
            if process.exitcode:
                raise RuntimeError(f"{process.name} has ended with {process.exitcode}")


class Line:
    """One run of the pipeline."""

    def __init__(self, client: fastmq.Client, options: argparse.Namespace, total: int) -> None:
        self.client, self.options, self.total = client, options, total
        self.run = uuid.uuid4().hex[:8]  # in the subjects, so that two runs do not mix
        self.processes = Processes()
        self.handled: dict[str, int] = {}
        # However often the workers say how far they are, a look shows the newest of each.
        self.progress = client.subscribe(f"progress.{self.run}.*", policy=Policy.LATEST)
        self.results = client.subscribe(f"result.{self.run}")

    def start_publishers(self) -> None:
        for part in range(PUBLISHERS):
            path, seconds = self.options.file, self.options.seconds
            parts = (part, PUBLISHERS)
            self.processes.start(
                pipeline.publish, self.options.url, self.run, path, parts, seconds
            )

    def start_worker(self, number: int) -> None:
        self.processes.start(pipeline.work, self.options.url, self.run, f"worker-{number}")

    def look(self) -> int:
        """Waits for a worker to say how far it is; gives how many flights were handled."""
        quiet = 0.0
        while True:
            try:
                batch = self.progress.receive(timeout=0.5)
                break
            except fastmq.Timeout:
                self.processes.check()
                quiet += 0.5
                if quiet > pipeline.PATIENCE + self.options.seconds:
                    raise
        for message in batch:
            self.handled[message.subject.rsplit(".", 1)[1]] = int(message.payload)
        return sum(self.handled.values())

    def end(self) -> list[dict[str, Any]]:
        """Tells the workers to stop, and gives the results of all."""
        self.client.publish_wait(f"stop.{self.run}", b"", pipeline.PATIENCE)
        results: list[dict[str, Any]] = []
        while len(results) < WORKERS:
            batch = self.results.receive(timeout=pipeline.PATIENCE)
            results += [json.loads(message.payload) for message in batch]
        for process in self.processes.all:
            process.join()
        self.processes.check()
        return results


def process(line: Line, console: Console) -> list[dict[str, Any]]:
    """Runs the pipeline, with a bar for all flights and one for each worker."""
    total = line.total
    with Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        console=console,
    ) as progress:
        bars = {"all flights": progress.add_task("all flights", total=total)}
        for number in range(1, WORKERS + 1):
            line.start_worker(number)
        while len(line.handled) < WORKERS:
            line.look()  # until all are there
        for worker in sorted(line.handled):
            bars[worker] = progress.add_task(worker, total=total)
        line.start_publishers()
        done = 0
        while done < total:
            done = line.look()
            progress.update(bars["all flights"], completed=done)
            for worker, handled in line.handled.items():
                progress.update(bars[worker], completed=handled)
    return line.end()


def check(results: list[dict[str, Any]], flights: list[Flight]) -> list[str]:
    """What is wrong with how the flights were handled."""
    # By the clock, which all processes share: (when, which flight, who).
    handled = sorted(
        (when, number, result["name"]) for result in results for when, number in result["handled"]
    )
    wrong = []
    numbers = sorted(number for _, number, _ in handled)
    if numbers != list(range(len(flights))):
        wrong.append(f"{len(numbers)} flights were handled, {len(set(numbers))} different ones")
    last: dict[str, tuple[int, str]] = {}
    for _, number, worker in handled:
        airport = flights[number].origin
        before, who = last.get(airport, (-1, worker))
        if number <= before:
            wrong.append(f"flight {number} from {airport} was handled after flight {before}")
        if worker != who:
            wrong.append(f"flights from {airport} were handled by {who} and {worker}")
        last[airport] = number, worker
    return wrong


def table(tally: Tally) -> Table:
    rows = Table(title=f"Delays of the {ROWS} largest airports, in minutes")
    rows.add_column("from")
    for column in ("flights", f"late ({LATE_MINUTES}+)", "share", "mean", "worst"):
        rows.add_column(column, justify="right")
    largest = sorted(tally.airports.items(), key=lambda item: (-item[1].flights, item[0]))

    def add(name: str, delays: Delays, **style: Any) -> None:
        rows.add_row(
            name,
            f"{delays.flights:,}",
            f"{delays.late:,}",
            f"{delays.late_share:.1%}",
            f"{delays.mean_minutes:.1f}",
            str(delays.max_minutes),
            **style,
        )

    for airport, delays in largest[:ROWS]:
        add(airport, delays, end_section=airport == largest[ROWS - 1][0])
    everywhere = Delays()
    for delays in tally.airports.values():
        everywhere.add(delays)
    add(f"all {len(largest)}", everywhere)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="Counts flights in several processes.")
    parser.add_argument("--url", default="tcp://127.0.0.1:4860", help="the server; %(default)s")
    parser.add_argument("--file", type=pathlib.Path, default=DATA, help="flights.csv")
    parser.add_argument("--plot", type=pathlib.Path, default="flights.svg", help="%(default)s")
    parser.add_argument(
        "--seconds", type=float, default=5, help="to publish in; 0: at once; %(default)s"
    )
    options = parser.parse_args()

    flights = read(options.file)
    console = Console()
    try:
        with fastmq.connect(options.url, name="flights") as client:
            results = process(Line(client, options, len(flights)), console)
    except (fastmq.Error, RuntimeError) as failure:
        print(f"flights: {failure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130

    tally, plain = Tally(), Tally()
    for result in results:
        tally.add(Tally.from_json(result["tally"]))
    for flight in flights:
        plain.count(flight)
    wrong = check(results, flights)
    if tally != plain:
        wrong.append("the figures are not those of a plain count over the file")
    for sentence in wrong[:ROWS]:
        print(f"flights: {sentence}", file=sys.stderr)
    if wrong:
        return 1
    options.plot.write_text(plot.draw(tally), encoding="utf-8")
    console.print(table(tally))
    print(f"plotted  {options.plot}")
    print("checked  every flight was handled once, those of an airport by one worker and in order;")
    print("         all figures are those of a plain count")
    return 0


if __name__ == "__main__":
    sys.exit(main())
