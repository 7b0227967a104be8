"""The rows of the table of `make bench` and the bars they are held to: the embedded broker's.

A row says which command of which program measures it. Units follow the programs' lines: rates are
better when higher, everything else when lower. Not here: the rows of the server (server_rows.py),
running and printing (run.py).
"""

from dataclasses import dataclass

FLOOR, FASTMQ, CROSSBEAM, ZMQ = "floor", "fastmq", "crossbeam", "zmq"


@dataclass(frozen=True)
class Bar:
    """`of` is what is compared: value, p99, a program's name (ratio to it in the same round), p50's
    ratio to another row as `row:NAME`."""

    kind: str  # must or reach
    of: str
    relation: str  # >= or <=
    limit: float

    def __str__(self):
        if self.of == "value":
            return f"{self.kind} {self.relation} {self.limit:g}"
        if self.of == "p99":
            return f"{self.kind} p99 {self.relation} {self.limit:g}"
        what = self.of.removeprefix("row:")
        return f"{self.kind} {self.relation} {self.limit:g}× {what}"

    def holds(self, figure):
        return figure >= self.limit if self.relation == ">=" else figure <= self.limit


@dataclass(frozen=True)
class Row:
    name: str
    commands: dict  # program -> its words
    bars: tuple = ()
    crosses_cores: bool = True
    is_quick: bool = False
    unit: str = ""  # in which nanoseconds are shown, if not in themselves: µs


def must(of, relation, limit):
    return Bar("must", of, relation, limit)


def reach(of, relation, limit):
    return Bar("reach", of, relation, limit)


def request_reply_rows():
    bars = {
        ("string", 512): (
            must("value", ">=", 15),
            must(FLOOR, ">=", 0.55),
            reach("value", ">=", 25),
        ),
        ("handle", 512): (must("value", ">=", 25), reach("value", ">=", 50)),
        ("string", 1000): (must(ZMQ, ">=", 4), reach(ZMQ, ">=", 10)),
        ("handle", 1000): (must(ZMQ, ">=", 7), reach(ZMQ, ">=", 10)),
    }
    for how in ("string", "handle"):
        for outstanding in (1, 8, 64, 512, 1000):
            commands = {
                FLOOR: ["request-reply", f"{how}/{outstanding}"],
                CROSSBEAM: ["request-reply", f"{outstanding}"],
                FASTMQ: ["request-reply", f"{how}/{outstanding}"],
            }
            if outstanding == 1000:
                commands[ZMQ] = ["request-reply", "1000"]
            row_bars = bars.get((how, outstanding), ())
            name = f"request-reply, {outstanding} outstanding, by {how}"
            yield Row(name, commands, row_bars, is_quick=outstanding == 512)


def round_trip_rows():
    bars = (
        must(FLOOR, "<=", 1.6),
        must(CROSSBEAM, "<=", 1),
        reach(FLOOR, "<=", 1.2),
        reach("value", "<=", 200),
    )
    for wait in ("busy-poll", "adaptive", "parked"):
        commands = {FASTMQ: ["round-trip", wait]}
        if wait != "parked":
            commands[FLOOR] = ["round-trip", "spin"]
            commands[CROSSBEAM] = ["round-trip", "spin"]
        is_busy = wait == "busy-poll"
        yield Row(f"round trip, {wait}", commands, bars if is_busy else (), is_quick=is_busy)


def one_way_rows():
    bars = {
        "string/16/call": (
            must("value", ">=", 25),
            must(CROSSBEAM, ">=", 1.5),
            reach("value", ">=", 40),
        ),
        "handle/16/call": (must(CROSSBEAM, ">=", 1.5),),
        "handle/16/batch": (
            must("value", ">=", 50),
            must(CROSSBEAM, ">=", 3),
            reach("value", ">=", 80),
        ),
    }
    for size, size_name in ((16, "16 B"), (64, "64 B"), (1024, "1 KiB"), (65536, "64 KiB")):
        for how, call in (("string", "call"), ("handle", "call"), ("handle", "batch")):
            param = f"{how}/{size}/{call}"
            commands = {FLOOR: ["one-way", param], FASTMQ: ["one-way", param]}
            if size == 16:
                commands[CROSSBEAM] = ["one-way", "call"]
            if how == "string":
                commands[ZMQ] = ["one-way", str(size)]
            what = "per call" if call == "call" else "in batches of 64"
            name = f"one-way, {size_name}, by {how}, {what}"
            yield Row(name, commands, bars.get(param, ()), is_quick=size == 16)
    for count in (1, 2, 4):
        commands = {
            FLOOR: ["publishers", str(count)],
            CROSSBEAM: ["publishers", str(count)],
            FASTMQ: ["publishers", str(count)],
        }
        yield Row(f"one-way, 16 B, by handle, {count} publishers", commands)


def claim_rows():
    """What a publisher saves that writes its message in place: with the two marks only, so that
    nothing but the library's part is left, and with all of the message made each time."""
    for where in ("one-thread", "two-threads"):
        for what, copied, claimed in (
            ("marks", "copied", "claimed"),
            ("whole", "made and copied", "made in place"),
        ):
            thread = where.replace("-", " ")
            copy = f"{copied}, 1 KiB, {thread}"
            bars = (must(f"row:{copy}", ">=", 1.3), reach(f"row:{copy}", ">=", 2))
            crosses = where == "two-threads"
            copy_row = {FASTMQ: ["claim", f"copy/1024/{what}/{where}"]}
            claim_row = {FASTMQ: ["claim", f"claim/1024/{what}/{where}"]}
            yield Row(copy, copy_row, (), crosses)
            yield Row(
                f"{claimed}, 1 KiB, {thread}", claim_row, bars if what == "marks" else (), crosses
            )


def group_rows():
    """What keeping the messages of a key together costs beside balancing by load."""
    for what in ("keys", "subjects"):
        for members in (4, 64):
            balanced = f"group of {members} by load, messages with {what}"
            command = {FASTMQ: ["group", f"balanced/{members}/{what}"]}
            yield Row(balanced, command, (), False)
            # A rate: at most 1.5 times the cost is at least two thirds of the rate.
            bars = (must(f"row:{balanced}", ">=", 0.667), reach(f"row:{balanced}", ">=", 1))
            command = {FASTMQ: ["group", f"key-shared/{members}/{what}"]}
            yield Row(f"group of {members} by key, messages with {what}", command, bars, False)


def routing_rows():
    for count in (1, 100, 10_000):
        yield Row(f"fan-out to {count} queues", {FASTMQ: ["fan-out", str(count)]}, (), False)
    bars = {
        ("hot", 1_000_000): (must("row:publish, hot subject among 1", "<=", 2),),
        ("random", 1_000_000): (must("value", "<=", 400),),
    }
    for names in ("hot", "sequential", "random"):
        for count in (1, 1000, 1_000_000):
            if names != "hot" and count == 1:
                continue
            name = f"publish, {names} subject{'s' if names != 'hot' else ''} among {count}"
            commands = {FASTMQ: ["routing", f"{names}/{count}"]}
            yield Row(name, commands, bars.get((names, count), ()), False)


def latest_rows():
    """What an update costs whoever makes it; waiting for its pace is not in it."""
    for how in ("string", "handle"):
        for clock, name in (("wall", "wall clock"), ("thread", "thread time")):
            words = ["latest", f"{how}/{clock}"]
            title = f"latest, 1,000 subjects, reader at 60 Hz, by {how}, {name}"
            yield Row(title, {FLOOR: words, FASTMQ: words}, (must("value", "<=", 60),))


def inline_rows():
    for how, least, wished in (("string", 50, 80), ("handle", 60, 120)):
        commands = {FLOOR: ["inline", how], FASTMQ: ["inline", how]}
        bars = (must("value", ">=", least), reach("value", ">=", wished))
        yield Row(f"inline request-reply, by {how}", commands, bars, False, True)


def cost_rows():
    opened = (must("value", "<=", 1_000_000), reach("value", "<=", 256_000))
    subscription = (must("value", "<=", 256),)
    queue = (must("value", "<=", 4096),)
    for what, param, bars in (
        ("resident bytes added by open", "open", opened),
        ("bytes per subscription, 100,000 on one queue", "subscription", subscription),
        ("bytes per idle queue, 10,000 queues", "queue", queue),
    ):
        yield Row(what, {FASTMQ: ["memory", param]}, bars, False)
    start = (must("value", "<=", 1000),)
    yield Row("open to first delivery", {FASTMQ: ["start", "first-delivery"]}, start, False)
    for how, name in (("queue", "one queue and its reader"), ("thread", "callbacks on a thread")):
        for what, most in (("wake-ups", 0), ("bytes", 2_000_000)):
            title = f"idle low-power client, 1,000 subscriptions, {name}: {what}"
            bars = (must("value", "<=", most),)
            yield Row(title, {FASTMQ: ["idle", f"{how}/{what}"]}, bars, False)


ROWS = (
    *request_reply_rows(),
    *inline_rows(),
    *round_trip_rows(),
    *one_way_rows(),
    *claim_rows(),
    *group_rows(),
    *routing_rows(),
    *latest_rows(),
    *cost_rows(),
)
