#!/usr/bin/env python3
"""`make bench`: the programs in turn, one table, the bars, and the raw lines on disk.

Every round runs, for each row, floor, FAST MQ and its peers one after the other, so that each
comparison is between neighbours in time, and a short cache-line ping-pong before and after. One
run at a time on a machine: a lock file. Not here: what is measured (rows.py, server_rows.py,
binding_rows.py), how (programs.py, languages.py, floor/, c/), building (benches/Makefile).
"""

import argparse
import datetime
import fcntl
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import peers
from binding_rows import BINDING_ROWS
from programs import BUILD, PROGRAMS, ROOT, left_out, measure, ping_pong
from rows import FASTMQ, FLOOR, ROWS
from server_rows import SERVER_ROWS

LOCK_FILE = "/tmp/fastmq-bench.lock"
NEAR_NS_MAX = 130
SETS = {"engine": ROWS, "server": SERVER_ROWS, "bindings": BINDING_ROWS}


class Results:
    """Everything measured: samples by row and program, one slot per round."""

    def __init__(self):
        self.samples = {}
        self.near = {}
        self.units = {}
        self.failures = []
        self.raw = ["round,row,program,case,param,unit,value,p50,p99,p999,ping_pong_ns"]

    def add(self, round_index, row, program, result, ping_pong_ns):
        if isinstance(result, str):
            self.failures.append(f"{row.name}: {program}: {result}")
            return
        unit, value, rest = result
        self.units[row.name] = unit
        self.samples.setdefault((row.name, program), {})[round_index] = (value, rest)
        is_near = not row.crosses_cores or ping_pong_ns <= NEAR_NS_MAX
        self.near.setdefault(row.name, {})[round_index] = is_near
        case, *words = row.commands[program]
        rest = (rest + ["", "", ""])[:3]
        param = f'"{" ".join(words)}"'
        line = [str(round_index + 1), f'"{row.name}"', program, case, param, unit, f"{value:g}"]
        self.raw.append(",".join([*line, *rest, f"{ping_pong_ns:.1f}"]))

    def rounds(self, row_name):
        """The rounds that count: the near ones, or all when none is."""
        near = self.near.get(row_name, {})
        return [r for r, is_near in near.items() if is_near] or list(near)

    def values(self, row_name, program):
        samples = self.samples.get((row_name, program), {})
        return [samples[r][0] for r in self.rounds(row_name) if r in samples]

    def ratio(self, row_name, program):
        """Median of FAST MQ against `program`, each pair from one round."""
        ours = self.samples.get((row_name, FASTMQ), {})
        theirs = self.samples.get((row_name, program), {})
        both = [r for r in self.rounds(row_name) if r in ours and r in theirs and theirs[r][0] > 0]
        return statistics.median(ours[r][0] / theirs[r][0] for r in both) if both else None

    def bar_figure(self, row, of):
        if of.startswith("row:"):
            ours = self.values(row.name, FASTMQ)
            theirs = self.values(of.removeprefix("row:"), FASTMQ)
            if not ours or not theirs:
                return None
            return statistics.median(ours) / statistics.median(theirs)
        if of == "value":
            ours = self.values(row.name, FASTMQ)
            return statistics.median(ours) if ours else None
        if of == "p99":
            samples = self.samples.get((row.name, FASTMQ), {})
            tails = [samples[r][1] for r in self.rounds(row.name) if r in samples]
            return statistics.median(float(tail[1]) for tail in tails) if tails else None
        return self.ratio(row.name, of)


def short(value):
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cell(results, row, program):
    values = results.values(row.name, program)
    if not values:
        return "–"
    text = f"{short(statistics.median(values))} [{short(min(values))}–{short(max(values))}]"
    samples = results.samples[(row.name, program)]
    tails = [samples[r][1] for r in results.rounds(row.name) if r in samples]
    if tails and len(tails[0]) == 3:
        p99, p999 = (statistics.median(float(tail[i]) for tail in tails) for i in (1, 2))
        text += f" p99 {short(p99)}, p99.9 {short(p999)}"
    return text


def bar_cell(results, row):
    texts = []
    near = results.near.get(row.name, {})
    is_far = bool(near) and not any(near.values())
    for bar in row.bars:
        figure = results.bar_figure(row, bar.of)
        if figure is None:
            verdict = "not measured"
        elif is_far:
            verdict = "not judged: far placement"
        else:
            verdict = "met" if bar.holds(figure) else "MISSED"
        is_plain = bar.of in ("value", "p99") or figure is None
        texts.append(f"{bar}: {verdict}" if is_plain else f"{bar}: {verdict} ({figure:.2f})")
    return "; ".join(texts)


def table(results, rows):
    others = [p for p in PROGRAMS if any(p in row.commands for row in rows)]
    others = [p for p in others if p not in (FASTMQ, FLOOR)]
    headings = ("case", "unit", "FAST MQ", "floor", "ratio", *others, "near", "bars")
    lines = [headings]
    for row in rows:
        ratio = results.ratio(row.name, FLOOR)
        near = results.near.get(row.name, {})
        near_text = f"{sum(near.values())}/{len(near)}" if row.crosses_cores and near else ""
        lines.append(
            (
                row.name,
                results.units.get(row.name, "–"),
                cell(results, row, FASTMQ),
                cell(results, row, FLOOR),
                f"{ratio:.2f}×" if ratio else "–",
                *(cell(results, row, program) for program in others),
                near_text,
                bar_cell(results, row),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    texts = [" | ".join(t.ljust(w) for t, w in zip(line, widths)) for line in lines]
    texts = [f"| {text} |" for text in texts]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(texts)


def first_line(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    except OSError:
        return "not here"
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines and done.returncode == 0 else "not here"


def cpu_model():
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def environment(command):
    memory = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()[0].split()[1]
    facts = {
        "command": command,
        "commit": first_line(["git", "describe", "--always", "--dirty", "--abbrev=12"]),
        "cpu": cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory) // 1024} MiB",
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "rustc": first_line(["rustc", "--version"]),
        "cc": first_line(["cc", "--version"]),
        "libzmq": first_line(["pkg-config", "--modversion", "libzmq"]),
        **{name: peers.version_of(name) for name in peers.NAMES},
        "load average at the start": " ".join(f"{x:.2f}" for x in os.getloadavg()),
    }
    return "".join(f"{name}: {value}\n" for name, value in facts.items())


def result_directory(is_partial):
    """A new directory: under benches/results for a whole run, under build for a partial one."""
    slug = re.sub(r"[^a-z0-9]+", "-", cpu_model().lower()).strip("-")
    kernel = re.match(r"[0-9.]*[0-9]", platform.release()).group()
    base = BUILD / "results" if is_partial else ROOT / "benches" / "results"
    name = f"{datetime.date.today().isoformat()}-{slug}-{kernel}"
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        path = base / (name + suffix)
        if not path.exists():
            path.mkdir(parents=True)
            return path
    sys.exit(f"run.py: {base} holds 999 results of this day; move some away")


def parse_arguments():
    parser = argparse.ArgumentParser(description="Runs the benches and prints one table.")
    parser.add_argument("--runs", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--ms", type=int, help="length of one run (default 300, quick 100)")
    parser.add_argument("--quick", action="store_true", help="few rows, short runs, 3 rounds")
    parser.add_argument("--set", choices=SETS, help="rows of the engine, server or bindings")
    parser.add_argument("--only", type=re.compile, help="rows whose name matches this expression")
    parser.add_argument(
        "--patience", type=int, default=5, help="ping-pongs to wait for near before a row (5)"
    )
    parser.add_argument("--keep", action="store_true", help="a partial run, too, is kept for good")
    parser.add_argument("--programs", default=",".join(PROGRAMS), help="which programs to run")
    arguments = parser.parse_args()
    if not 1 <= arguments.runs <= 1000:
        parser.error(f"--runs is {arguments.runs}; from 1 to 1000")
    if arguments.ms is None:
        arguments.ms = 100 if arguments.quick else 300
    if not 1 <= arguments.ms <= 10_000:
        parser.error(f"--ms is {arguments.ms}; from 1 to 10000")
    if arguments.quick:
        arguments.runs = min(arguments.runs, 3)
    unknown = set(arguments.programs.split(",")) - set(PROGRAMS)
    if unknown:
        parser.error(f"--programs: {unknown.pop()} is none of {', '.join(PROGRAMS)}")
    return arguments


def run_rounds(arguments, rows, programs):
    results = Results()
    for round_index in range(arguments.runs):
        round_ns = []
        before_ns = ping_pong()
        for number, row in enumerate(rows):
            progress = f"round {round_index + 1}/{arguments.runs}, row {number + 1}/{len(rows)}"
            if sys.stderr.isatty():
                print(f"\r\x1b[K{progress}: {row.name}", end="", file=sys.stderr, flush=True)
            for _ in range(arguments.patience):
                if not row.crosses_cores or before_ns <= NEAR_NS_MAX:
                    break
                before_ns = ping_pong()
            measured = []
            for program in programs:
                if program in row.commands:
                    result = measure(program, row.commands[program], arguments.ms)
                    if isinstance(result, tuple) and (result[0], row.unit) == ("ns", "µs"):
                        result = "µs", result[1] / 1000, [f"{float(x) / 1000:g}" for x in result[2]]
                    measured.append((program, result))
            after_ns = ping_pong() if row.crosses_cores else before_ns
            if row.crosses_cores:
                round_ns.append(after_ns)
            for program, result in measured:
                if result is not None:
                    results.add(round_index, row, program, result, max(before_ns, after_ns))
            before_ns = after_ns
        if round_ns:
            middle = statistics.median(round_ns)
            place = "near" if middle <= NEAR_NS_MAX else "far"
            text = f"median {middle:.0f} ns [{min(round_ns):.0f}–{max(round_ns):.0f}]: {place}"
            clear = "\r\x1b[K" if sys.stderr.isatty() else ""
            print(f"{clear}round {round_index + 1}: cache-line ping-pong {text}", flush=True)
    return results


def main():
    arguments = parse_arguments()
    programs = [p for p in PROGRAMS if p in arguments.programs.split(",")]
    sets = [SETS[arguments.set]] if arguments.set else SETS.values()
    rows = [r for rows in sets for r in rows if any(p in r.commands for p in programs)]
    if arguments.quick:
        rows = [r for r in rows if r.is_quick]
    if arguments.only:
        rows = [r for r in rows if arguments.only.search(r.name)]
    if not rows:
        sys.exit("run.py: no row matches; the names are in benches/*rows.py")
    if not (BUILD / "fastmq-floor").exists():
        sys.exit("run.py: build/benches/fastmq-floor is missing; run `make -C benches`")
    is_part = arguments.only or arguments.set or len(programs) < len(PROGRAMS)
    is_partial = bool(arguments.quick or is_part)
    with open(LOCK_FILE, "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("waiting for another bench run to end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        command = shlex.join(["python3", "benches/run.py", *sys.argv[1:]])
        facts = environment(command)
        results = run_rounds(arguments, rows, programs)
    text = table(results, rows)
    notes = "".join(f"{line}\n" for line in left_out(programs, rows))
    notes += (
        f"Median [min–max] of {arguments.runs} rounds of {arguments.ms} ms. Near: rounds whose "
        f"ping-pong before and after the row was at most {NEAR_NS_MAX} ns; a row's figures are of "
        "those rounds, or of all if none was (then no bar is judged). Ratio: median over the "
        "rounds of FAST MQ ÷ floor. One message of request-reply is one request and its checked "
        "answer."
    )
    print(f"\n{text}\n\n{notes}")
    failures = sorted(set(results.failures))
    for failure in failures:
        print(f"failed: {failure}")
    directory = result_directory(is_partial and not arguments.keep)
    (directory / "environment.txt").write_text(facts, encoding="utf-8")
    (directory / "raw.csv").write_text("\n".join(results.raw) + "\n", encoding="utf-8")
    failed = "".join(f"- failed: {failure}\n" for failure in failures)
    summary = f"# {directory.name}\n\n`{command}`\n\n{text}\n\n{notes}\n{failed}"
    (directory / "summary.md").write_text(summary, encoding="utf-8")
    print(f"written: {directory.relative_to(ROOT)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
