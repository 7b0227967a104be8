"""The rows of the server, and the bars they are held to: `make bench ARGS="--set server"`.

The server has one shard on core 0, the load is on core 1, whoever answers in a third process is
there too. "by frames" is loaded by the bench's own frames, "by library" by the client library: the
first shows what the server can do, the second what a user has. Peers get the load "by frames";
libzmq is its own client and has no server, so its two ends talk with one another.
Not here: running and printing (run.py).
"""

from peers import MOSQUITTO, NATS, REDIS
from rows import FASTMQ, FLOOR, ZMQ, Row, must, reach

PEERS = (NATS, REDIS, MOSQUITTO)
CASES = {"broker": "in the broker", "third": "routed to a third process"}


def bench(case, over, *words):
    return ["bench", case, "--over", over, *words]


def request_reply_rows():
    bars = {
        ("unix", "broker", 512): (8.6, 12),
        ("unix", "broker", 4096): (12, 20),
        ("tcp", "broker", 4096): (12, 20),
        ("tcp", "third", 4096): (4, 8.6),
        ("tcp", "third", 16384): (8.6, 13),
    }
    for (over, responder, outstanding), (least, wished) in bars.items():
        for client in ("frames", "library"):
            words = ["--responder", responder, "--client", client]
            words += ["--outstanding", str(outstanding)]
            commands = {FASTMQ: bench("request-reply", over, *words)}
            if responder == "broker":
                commands[FLOOR] = ["socket-echo", f"{over}/{outstanding}/spin"]
            else:
                commands[FLOOR] = ["socket-routed", f"{over}/{outstanding}"]
            row_bars = (must("value", ">=", least), reach("value", ">=", wished))
            name = f"{over}, {CASES[responder]}, {outstanding} outstanding, by {client}"
            is_quick = client == "frames" and outstanding == 4096
            yield Row(name, commands, row_bars, is_quick=is_quick)


def round_trip_rows():
    bars = {"unix": (8, 15, 5.5), "tcp": (15, 30, 10)}
    for over, (p50, p99, wished) in bars.items():
        for client in ("frames", "library"):
            words = ["--responder", "broker", "--client", client]
            busy_bars = (
                must("value", "<=", p50),
                must("p99", "<=", p99),
                reach("value", "<=", wished),
            )
            commands = {
                FLOOR: ["socket-round-trip", f"{over}/spin"],
                FASTMQ: bench("round-trip", over, *words, "--wait", "busy"),
            }
            name = f"{over}, round trip, busy-poll, by {client}"
            yield Row(name, commands, busy_bars, is_quick=client == "frames", unit="µs")
            commands = {
                FLOOR: ["socket-round-trip", f"{over}/sleep"],
                FASTMQ: bench("round-trip", over, *words, "--wait", "parked"),
            }
            parked_bars = (must(FLOOR, "<=", 1.3), reach(FLOOR, "<=", 1.1))
            name = f"{over}, round trip, parked, by {client}"
            yield Row(name, commands, parked_bars, unit="µs")


def shared_memory_rows():
    """By the library: the bench's own frames go over sockets."""
    bars = (must("value", ">=", 8), must(FLOOR, ">=", 0.5), reach("value", ">=", 20))
    words = ["--responder", "broker", "--outstanding", "512"]
    commands = {
        FLOOR: ["request-reply", "string/512"],
        FASTMQ: bench("request-reply", "shm", *words),
    }
    yield Row("shm, in the broker, 512 outstanding", commands, bars, is_quick=True)
    commands = {
        FLOOR: ["round-trip", "spin"],
        FASTMQ: bench("round-trip", "shm", "--responder", "broker", "--wait", "busy"),
    }
    bars = (must(FLOOR, "<=", 1.8), reach(FLOOR, "<=", 1.3))
    yield Row("shm, round trip, busy-poll", commands, bars, is_quick=True, unit="µs")
    bars = (must("value", ">=", 2), reach("value", ">=", 5))
    words = ["--responder", "third", "--outstanding", "4096"]
    name = "shm, routed to a third process, 4096 outstanding"
    yield Row(name, {FASTMQ: bench("request-reply", "shm", *words)}, bars)
    sizes = ((16, "16 B", 25, 50), (64, "64 B", 20, 27), (1024, "1 KiB", 3, 5))
    for size, text, least, wished in sizes:
        bars = (must("value", ">=", least), reach("value", ">=", wished))
        words = ["--responder", "broker", "--size", str(size)]
        commands = {
            FLOOR: ["one-way", f"string/{size}/call"],
            FASTMQ: bench("pub-sub", "shm", *words),
        }
        yield Row(f"shm, one way into the broker, {text}", commands, bars)


def many_rows():
    for over, least, wished in (("unix", 8, 12), ("tcp", 1.8, 2.5)):
        words = ["--connections", "1000", "--burst", "16", "--size", "64"]
        bars = (must("value", ">=", least), reach("value", ">=", wished))
        name = f"{over}, fan-out to 1000 connections, 64 B, 16 messages a tick"
        floor = ["socket-fan-out", f"{over}/1000/16"]
        yield Row(name, {FLOOR: floor, FASTMQ: bench("fan-out", over, *words)}, bars)
    words = ["--players", "2000", "--rooms", "100", "--ticks", "20"]
    bars = (must("p99", "<=", 15_000), reach("p99", "<=", 5_000))
    for responder, place in (("third", "a third process"), ("broker", "the broker")):
        name = f"tcp, game of 2000 players in 100 rooms at 20 Hz, rooms in {place}"
        commands = {
            FLOOR: ["socket-game", "2000/20"],
            FASTMQ: bench("game", "tcp", *words, "--responder", responder),
        }
        yield Row(name, commands, bars, unit="µs")


def peer_rows():
    for outstanding in (1000, 4096):
        words = ["--responder", "third", "--outstanding", str(outstanding)]
        commands = {FASTMQ: bench("request-reply", "tcp", *words, "--client", "frames")}
        commands |= {peer: ["request-reply", *words] for peer in PEERS}
        if outstanding == 1000:
            # Two ends and no server between them.
            commands[ZMQ] = ["request-reply", "1000", "tcp"]
        bars = (must(NATS, ">=", 4), reach(NATS, ">=", 8))
        name = f"tcp, routed to a third process, {outstanding} outstanding, beside peers"
        yield Row(name, commands, bars, is_quick=outstanding == 1000)
    for size, bars in ((16, (must(NATS, ">=", 5), reach(NATS, ">=", 10))), (1024, ())):
        words = ["--responder", "load", "--outstanding", "4096", "--size", str(size)]
        commands = {FASTMQ: bench("pub-sub", "tcp", *words, "--client", "frames")}
        commands |= {peer: ["pub-sub", *words] for peer in PEERS}
        commands[ZMQ] = ["one-way", str(size), "tcp"]
        name = f"tcp, pub/sub through the server, {size} B"
        yield Row(name, commands, bars, is_quick=size == 16)
    words = ["--responder", "third"]
    commands = {FASTMQ: bench("round-trip", "tcp", *words, "--client", "frames")}
    commands |= {peer: ["round-trip", *words] for peer in PEERS}
    yield Row("tcp, round trip routed to a third process", commands)


def tier_rows():
    """The tiers below io_uring as it is now, each against it."""
    cases = (
        ("tcp, in the broker, 4096 outstanding", (0.5, 0.8), "request-reply", "tcp"),
        ("unix, in the broker, 4096 outstanding", (0.5, 0.8), "request-reply", "unix"),
        ("tcp, fan-out to 1000 connections", (0.5, 0.55), "fan-out", "tcp"),
        ("unix, fan-out to 1000 connections", (0.5, 0.55), "fan-out", "unix"),
    )
    for title, (basic, epoll), case, over in cases:
        if case == "fan-out":
            words = ["--connections", "1000", "--burst", "16", "--size", "64"]
        else:
            words = ["--responder", "broker", "--client", "frames", "--outstanding", "4096"]
        first = f"{title}, on uring"
        for tier, least in (("uring", None), ("uring-basic", basic), ("epoll", epoll)):
            bars = (must(f"row:{first}", ">=", least),) if least else ()
            commands = {FASTMQ: bench(case, over, *words, "--driver", tier)}
            yield Row(f"{title}, on {tier}", commands, bars)


def life_rows():
    rows = (
        ("idle server, resident", "idle", 6, 2),
        ("idle connection, resident, of 10,000", "connection", 2048, 512),
        ("start to the first greeted connection", "start", 20, 5),
        ("size of the program, stripped", "size", 6, 4),
    )
    for name, what, most, wished in rows:
        commands = {program: ["life", what] for program in (FASTMQ, *PEERS)}
        bars = (must("value", "<=", most), reach("value", "<=", wished))
        yield Row(name, commands, bars, crosses_cores=False, is_quick=what != "connection")


SERVER_ROWS = (
    *request_reply_rows(),
    *round_trip_rows(),
    *shared_memory_rows(),
    *many_rows(),
    *peer_rows(),
    *tier_rows(),
    *life_rows(),
)
