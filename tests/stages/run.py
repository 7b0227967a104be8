#!/usr/bin/env python3
"""Runs the stages of `make test` in order and counts what they say.

A stage is an executable NN-name.sh beside this file. Two comment lines in it are read here:
`# budget: core|c|server|bindings` says which budget its seconds count against, `# timeout: SECONDS` ends it.
It needs no terminal and no stdin. Output of a stage goes to build/logs/; the console gets a line
when it starts, its failures, and at the end of a failed stage the last lines of its log.

    run.py [NAME...]     only the stages whose names contain one of NAME
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
LOGS = os.path.join(ROOT, "build", "logs")
BUDGETS = {
    "core": ("core", 480),
    "c": ("C and install", 180),
    "server": ("server", 360),
    "bindings": ("bindings", 360),
}
TIMEOUT_SECONDS = 900
TAIL_LINES = 60
FAILURES_SHOWN = 20

CARGO = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")
TAP = re.compile(r"^(not )?ok\b(.*)$")
SKIP = re.compile(r"# skip\b\s*(.*)$", re.IGNORECASE)
CARGO_FAILED = re.compile(r"^test .* \.\.\. FAILED$")


class Counts:
    """What one stage, or all of them, said."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []
        self.skips = []

    def read(self, line):
        """Counts one line of output."""
        if match := CARGO.match(line):
            passed, failed, ignored = (int(number) for number in match.groups())
            self.passed += passed
            self.failed += failed
            self.skipped += ignored
            if ignored:
                self.skips.append(f"{ignored} Rust tests marked #[ignore]")
        elif match := TAP.match(line):
            name = match.group(2).strip().lstrip("-").strip()
            if match.group(1):
                self.failed += 1
                self.failures.append(name)
            elif SKIP.search(name):
                self.skipped += 1
                self.skips.append(name.replace("# skip", "-", 1))
            else:
                self.passed += 1
        elif CARGO_FAILED.match(line):
            self.failures.append(line)

    def total(self):
        return self.passed + self.failed + self.skipped


def setting(text, key, default):
    match = re.search(rf"^# {key}: (\S+)", text, re.MULTILINE)
    return match.group(1) if match else default


def stage(path):
    """Runs one stage; returns its counts, seconds and budget."""
    name = os.path.basename(path).removesuffix(".sh")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    timeout = int(setting(text, "timeout", TIMEOUT_SECONDS))
    counts = Counts()
    started = time.monotonic()
    print(f"== {name}", flush=True)
    timed_out = threading.Event()
    with open(os.path.join(LOGS, name + ".log"), "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            ["bash", path],
            cwd=ROOT,
            env={**os.environ, "TERM": "dumb"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            encoding="utf-8",
            errors="replace",
        )

        def end():
            timed_out.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(timeout, end)
        timer.start()
        tail = []
        for line in process.stdout:
            log.write(line)
            tail = tail[-TAIL_LINES:] + [line]
            counts.read(line.rstrip("\n"))
        process.stdout.close()
        code = process.wait()
        timer.cancel()
    if timed_out.is_set():
        counts.failed += 1
        counts.failures.append(f"{name}: ended after its {timeout} s")
    elif code != 0 and counts.failed == 0:
        counts.failed += 1
        counts.failures.append(f"{name}: exit code {code}")
    elif counts.total() == 0:
        counts.failed += 1
        counts.failures.append(f"{name}: no result; a stage without input says that it skips")
    seconds = time.monotonic() - started
    if counts.failed:
        print(f"-- the last lines of build/logs/{name}.log")
        sys.stdout.writelines(tail)
        print("--")
    for failure in counts.failures[:FAILURES_SHOWN]:
        print(f"   FAILED {failure}")
    for skipped in counts.skips:
        print(f"   skipped {skipped}")
    return name, counts, seconds, setting(text, "budget", "core")


def main():
    wanted = sys.argv[1:]
    paths = sorted(
        os.path.join(HERE, entry)
        for entry in os.listdir(HERE)
        if re.fullmatch(r"\d\d-[a-z-]+\.sh", entry)
        and (not wanted or any(part in entry for part in wanted))
    )
    if not paths:
        sys.exit(f"no stage is named like {' '.join(wanted)}")
    os.makedirs(LOGS, exist_ok=True)
    rows = [stage(path) for path in paths]

    print()
    print(f"{'stage':<14} {'seconds':>8} {'passed':>7} {'failed':>7} {'skipped':>8}")
    for name, counts, seconds, _ in rows:
        print(
            f"{name:<14} {seconds:>8.1f} {counts.passed:>7} {counts.failed:>7} {counts.skipped:>8}"
        )
    for key, (label, budget) in BUDGETS.items():
        spent = sum(row[2] for row in rows if row[3] == key)
        note = "" if spent <= budget else "  over budget"
        print(f"{label}: {spent:.0f} s of {budget} s{note}")
    passed, failed, skipped = (
        sum(getattr(row[1], kind) for row in rows) for kind in ("passed", "failed", "skipped")
    )
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
