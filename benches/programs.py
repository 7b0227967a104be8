"""The programs of `make bench`, and how one figure is got out of each.

A floor or a C program prints one line, `program,case,param,unit,value[,p50,p99,p999]`; `fastmq
bench` prints JSON; other servers are started here and loaded by `fastmq bench`, so that every
server meets the same client (peers.py). Not here: what is measured (rows.py, server_rows.py,
binding_rows.py), the programs of the bindings (languages.py).
"""

import json
import subprocess
from pathlib import Path

import binding_rows
import languages
import life
import peers
from rows import CROSSBEAM, FASTMQ, FLOOR, ZMQ

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "benches"
COMMAND = ROOT / "build" / "bin" / "fastmq"
PROGRAMS = (FLOOR, CROSSBEAM, FASTMQ, ZMQ, *peers.NAMES, *binding_rows.PEERS)
RUN_SECONDS_MAX = 120
# A game needs some ticks, and latencies some thousand of them, to have a 99th percentile.
GAME_SECONDS, LATENCY_SECONDS = 2.0, 0.5
MISSING = {
    FASTMQ: "build/lib is not built; run `make build`, then `make -C benches`",
    ZMQ: "libzmq was not there (Debian: libzmq3-dev, pkg-config); then `make -C benches`",
    **{name: f"not installed (Debian: {name.package})" for name in peers.NAMES},
    **languages.MISSING,
}


def command_of(program, words, options):
    """The argument list of one measured run, or None when the program is not built."""
    binary = {FASTMQ: "fastmq-bench", ZMQ: "zmq-pair"}.get(program, "fastmq-floor")
    path = BUILD / binary
    if not path.exists():
        return None
    prefix = [program] if binary == "fastmq-floor" else []
    return [str(path), *options, *prefix, *words]


def is_here(program, words):
    if words and words[0] in languages.NAMES:
        return languages.is_here(program, words[0])
    if program in peers.NAMES:
        return peers.path_of(program) is not None
    if words and words[0] in ("bench", "life"):
        return COMMAND.exists()
    return command_of(program, [], []) is not None


def left_out(programs, rows):
    """A line for each program that the rows ask for and that is not there."""
    lines = []
    for program in programs:
        wanted = [row.commands[program] for row in rows if program in row.commands]
        for words in wanted:
            if not is_here(program, words):
                of_language = program == FASTMQ and words[0] in languages.NAMES
                reason = MISSING.get(words[0] if of_language else program)
                lines.append(f"left out: {program}: {reason or 'run `make -C benches`'}")
    return list(dict.fromkeys(lines))


def run(command, environment=None):
    """What a command prints, or the reason why there is nothing."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS_MAX,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {RUN_SECONDS_MAX} s"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        return None, next((line for line in lines[::-1] if "Error" in line), lines[-1])
    return done.stdout, None


def bench(words, ms):
    """One round of `fastmq bench`: (unit, value, percentiles), or what went wrong."""
    case = words[0]
    least = {"game": GAME_SECONDS, "round-trip": LATENCY_SECONDS, "latency": LATENCY_SECONDS}
    seconds = max(ms / 1000, least.get(case, 0))
    options = ["--json", "--rounds", "1", "--seconds", f"{seconds:g}"]
    text, fault = run([str(COMMAND), "bench", *words, *options])
    if fault:
        return fault
    rows = json.loads(text)["rows"]
    if len(rows) != 1:
        return f"{len(rows)} rows instead of one: fastmq bench {' '.join(words)}"
    row = rows[0]
    lost = {name: row[name] for name in ("missed", "not delivered", "not heard") if row.get(name)}
    if lost:
        return f"lost: {lost}"
    rest = [f"{row[name]:g}" for name in ("p50", "p99", "p99.9") if name in row]
    return row["unit"], row["median"], rest


def measure(program, words, ms):
    """One run: (unit, value, rest of the line), the reason why there is none, or None when the
    program is not there."""
    if not is_here(program, words):
        return None
    try:
        if words[0] in languages.NAMES:
            return languages.measure(program, words, ms, run)
        if program in peers.NAMES:
            if words[0] == "life":
                return life.measure(program, words[1])
            with peers.Server(program) as server:
                options = ["--server", server.url, "--protocol", program.protocol]
                return bench([*words, *options, "--client", "frames"], ms)
        if words[0] == "life":
            return life.measure(program, words[1])
    except OSError as error:
        return str(error)
    if words[0] == "bench":
        return bench(words[1:], ms)
    if words[0] == "socket-game":
        ms = max(ms, int(GAME_SECONDS * 1000))
    options = ["--ms", str(ms), "--warm-up-ms", str(max(ms // 4, 10))]
    text, fault = run(command_of(program, words, options))
    if fault:
        return fault
    lines = text.strip().splitlines()
    fields = lines[0].split(",") if len(lines) == 1 else []
    try:
        unit, value, rest = fields[3], float(fields[4]), fields[5:]
    except (IndexError, ValueError):
        return f"not one line of results: {text[:200]}"
    return unit, value, rest


def ping_pong():
    """Nanoseconds for a cache line to the other core and back, infinite when unknown."""
    result = measure(FLOOR, ["ping-pong", "line"], 60)
    return result[1] if isinstance(result, tuple) else float("inf")
