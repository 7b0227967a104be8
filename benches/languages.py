"""The programs of the bindings' rows: python/bench.py and node/rows.mjs, one row a run.

FASTMQ_PYTHON is the interpreter that has the package and its peers (default: that of the tests,
build/python/venv); FASTMQ_NODE the Node package (default: bindings/node, once it is built), and
PEERS also names the folders whose node_modules have the peers. Rows over TCP go to servers in
processes of their own, `fastmq serve` and nats-server. Not here: what is measured
(binding_rows.py).
"""

import json
import os
import re
import shutil
from pathlib import Path

import peers
from binding_rows import NATS_JS, NATS_PY, PYZMQ, ZEROMQ_JS
from rows import FASTMQ

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / "build" / "python" / "venv" / "bin" / "python"
PYTHON = os.environ.get("FASTMQ_PYTHON", str(VENV))
NODE = Path(os.environ.get("FASTMQ_NODE", ROOT / "bindings" / "node"))
COMMAND = ROOT / "build" / "bin" / "fastmq"
PACKAGES = {PYZMQ: "zmq", NATS_PY: "nats", ZEROMQ_JS: "zeromq", NATS_JS: "nats"}
NAMES = ("python", "node")
MISSING = {
    "python": "no Python has the package; `make test STAGES=python` makes one, or FASTMQ_PYTHON",
    "node": "the package is not built; `npm install` in bindings/node, or FASTMQ_NODE",
    PYZMQ: "not installed beside the package (pip install pyzmq)",
    NATS_PY: "not installed beside the package (pip install nats-py), or no nats-server",
    ZEROMQ_JS: "not installed (npm install zeromq, in a folder that PEERS names)",
    NATS_JS: "not installed (npm install nats, in a folder that PEERS names), or no nats-server",
}


def node_folder():
    """The folder whose node_modules have the peers."""
    folders = [p for p in os.environ.get("PEERS", "").split(":") if p]
    return next((p for p in folders if (Path(p) / "node_modules").is_dir()), None)


def is_here(program, language):
    needs_server = program in (NATS_PY, NATS_JS)
    if needs_server and peers.path_of(peers.NATS) is None:
        return False
    if language == "node":
        if shutil.which("node") is None or not any(NODE.glob("prebuilt/*/*.node")):
            return False
        folder, package = node_folder(), PACKAGES.get(program)
        if package is None:
            return True
        return folder is not None and (Path(folder) / "node_modules" / package).is_dir()
    library = Path(PYTHON).parent.parent / "lib"
    package = PACKAGES.get(program, "fastmq")
    return any(library.glob(f"python3*/site-packages/{package}"))


def command_of(program, language, name, ms):
    only = f"^{re.escape(name)}$"
    if language == "node":
        rows = [shutil.which("node"), str(ROOT / "benches" / "node" / "rows.mjs")]
        rows += ["--peers"] if program in PACKAGES else []
        return [*rows, "--runs", "1", "--ms", str(ms), "--only", only]
    rows = [PYTHON, str(ROOT / "benches" / "python" / "bench.py"), "--json"]
    return [*rows, "--runs", "1", "--seconds", f"{ms / 1000:g}", "--only", only]


def measure(program, words, ms, run):
    """One row of one language: (unit, value, nothing more), or what went wrong. `run` runs a
    command and gives what it prints."""
    language, name = words
    command = command_of(program, language, name, ms)
    if program == FASTMQ and "over tcp" in name.lower():
        with peers.Server(program, str(COMMAND), program) as server:
            return one(command, {"FASTMQ_URL": server.url}, run)
    if program in (NATS_PY, NATS_JS):
        with peers.Server(peers.NATS) as server:
            return one(command, {"NATS_URL": server.url.replace("tcp:", "nats:")}, run)
    return one(command, {}, run)


def one(command, more, run):
    environment = {**os.environ, **more, "FASTMQ_NODE": str(NODE)}
    if folder := node_folder():
        environment["PEERS"] = folder
    text, fault = run(command, environment)
    if fault:
        return fault
    try:
        row = json.loads(text)
        return row["unit"], row["median"], []
    except (ValueError, KeyError):
        return f"not one line of results: {text[:200]}"
