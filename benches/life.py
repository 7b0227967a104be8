"""What a server costs that does nothing: its start, its memory, that of idle connections, its size.

Memory is the resident set, the program's pages included. "idle" is a server that has greeted one
connection; "connection" is what each of many greeted ones adds. The start is the time until the
first of them is greeted.
"""

import resource
import subprocess
import tempfile
from pathlib import Path

import peers
from rows import FASTMQ

CONNECTIONS = 10_000
ROOT = Path(__file__).resolve().parent.parent
COMMAND = ROOT / "build" / "bin" / "fastmq"


def path_of(program):
    return str(COMMAND) if program == FASTMQ else peers.path_of(program)


def server(program):
    protocol = FASTMQ if program == FASTMQ else program.protocol
    return peers.Server(program, path_of(program), protocol)


def connection_bytes(program):
    """Resident bytes that each of many idle connections adds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 512
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise OSError(f"{CONNECTIONS} connections need {wanted} descriptors (ulimit -n)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    with server(program) as running:
        before = running.resident_bytes()
        held = [running.hello() for _ in range(CONNECTIONS)]
        after = running.resident_bytes()
        for connection in held:
            connection.close()
    return (after - before) / CONNECTIONS


def size(program):
    """Bytes of the program without its symbols."""
    with tempfile.NamedTemporaryFile() as copy:
        subprocess.run(["strip", "-o", copy.name, path_of(program)], check=True)
        return Path(copy.name).stat().st_size


def measure(program, what):
    """One figure: (unit, value, nothing more)."""
    if what == "size":
        return "MB", size(program) / 1e6, []
    if what == "connection":
        return "bytes", connection_bytes(program), []
    with server(program) as running:
        if what == "start":
            return "ms", running.start_ms, []
        return "MB", running.resident_bytes() / 1e6, []
