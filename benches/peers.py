"""Servers of others that `make bench` compares with, where they are installed.

Each is started with the fewest options that let it listen on a loopback port without keeping
anything, on core 0, where our own server runs too. `PEERS` names directories to look in before
`PATH`, for what is unpacked rather than installed.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

SERVER_CORE = 0
START_SECONDS_MAX = 10
HELLO = {
    # docs/protocol.md: the shortest HELLO, versions 1 to 1.
    "fastmq": bytes.fromhex("2000000010000000464153544d51573101000000080000000100000001000000"),
    "nats": b'CONNECT {"verbose":false}\r\nPING\r\n',
    "redis": b"*1\r\n$4\r\nPING\r\n",
    # CONNECT with a clean session and a name of six digits: two of one name cannot be.
    "mqtt": b"\x10\x12\x00\x04MQTT\x04\x02\x00\x00\x00\x06",
}


class Name(str):
    """A peer as the table calls it."""

    def __new__(cls, name, binary, protocol, package):
        self = super().__new__(cls, name)
        self.binary, self.protocol, self.package = binary, protocol, package
        return self


NATS = Name("nats", "nats-server", "nats", "nats-server")
REDIS = Name("redis", "redis-server", "redis", "redis-server")
MOSQUITTO = Name("mosquitto", "mosquitto", "mqtt", "mosquitto")
NAMES = (NATS, REDIS, MOSQUITTO)


def path_of(name):
    directories = [p for p in os.environ.get("PEERS", "").split(":") if p]
    # Debian puts servers where the path of a user does not lead.
    directories += [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]
    return shutil.which(name.binary, path=":".join(directories))


def version_of(name):
    path = path_of(name)
    if path is None:
        return "not here"
    flag = "-h" if name == MOSQUITTO else "--version"
    done = subprocess.run([path, flag], capture_output=True, text=True, check=False)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else "it does not say"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command_of(name, path, port, directory):
    if name == NATS:
        return [path, "-a", "127.0.0.1", "-p", str(port)]
    if name == REDIS:
        words = f"--bind 127.0.0.1 --port {port} --save --appendonly no --maxclients 20000"
        # A subscriber may be some megabytes behind; redis cuts it off by default.
        limits = ["--client-output-buffer-limit", "pubsub 0 0 0"]
        return [path, *words.replace("--save", '--save ""').split(), *limits]
    if name == MOSQUITTO:
        file = Path(directory) / "mosquitto.conf"
        lines = f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
        file.write_text(f"{lines}set_tcp_nodelay true\nuser root\n", encoding="utf-8")
        return [path, "-c", str(file)]
    return [path, "serve", "--listen", f"tcp://127.0.0.1:{port}", "--shards", "1"]


class Server:
    """A server that runs on core 0 until the end of a `with`."""

    def __init__(self, name, path=None, protocol=None):
        self.protocol = protocol or name.protocol
        self.greeted = 0
        self.port = free_port()
        self.url = f"tcp://127.0.0.1:{self.port}"
        self.directory = tempfile.TemporaryDirectory(prefix="fastmq-bench-")
        command = command_of(name, path or path_of(name), self.port, self.directory.name)
        before = os.sched_getaffinity(0)
        # A child has the cores of its parent, so no program stands between the two.
        os.sched_setaffinity(0, {SERVER_CORE} & before or before)
        self.started = time.monotonic()
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=self.directory.name,
            )
        finally:
            os.sched_setaffinity(0, before)

    def __enter__(self):
        try:
            self.hello().close()
        except OSError:
            self.__exit__()
            raise
        self.start_ms = (time.monotonic() - self.started) * 1000
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.directory.cleanup()

    def hello(self):
        """A connection that was greeted."""
        deadline = self.started + START_SECONDS_MAX
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", self.port))
                break
            except ConnectionRefusedError:
                if self.process.poll() is not None:
                    code = self.process.returncode
                    raise OSError(f"the server has ended with {code}") from None
                if time.monotonic() > deadline:
                    raise
        connection.settimeout(START_SECONDS_MAX)
        self.greeted += 1
        name = f"{self.greeted:06}".encode() if self.protocol == "mqtt" else b""
        connection.sendall(HELLO[self.protocol] + name)
        if not connection.recv(4096):
            raise OSError("the server has ended the connection")
        return connection

    def resident_bytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024
