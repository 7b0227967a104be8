#!/usr/bin/env python3
"""A stranger's client at a server that runs: written from docs/protocol.md, frames by stranger.py.

visitor.py PORT TOKEN. Connects twice over TCP, publishes, subscribes, asks and answers; exits 1 at
what the protocol does not say.
"""

import os
import socket
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import stranger  # noqa: E402

ACK, MANY = 1, 2


def frame(kind, first, second, body=b"", code=0, flags=0):
    length = 16 + len(body)
    head = struct.pack("<IBBHII", length, kind, code, flags, first, second)
    return head + body + bytes(-length % 8)


def field(name, value):
    if isinstance(value, int):
        value = struct.pack("<Q", value)
    head = struct.pack("<HHI", stranger.IDS[name], 0, len(value))
    return head + value + bytes(-len(value) % 8)


class Visitor:
    def __init__(self, port, token):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.received, self.state, self.aliases = b"", "WAITING", {}
        magic = struct.unpack("<II", stranger.MAGIC)
        fields = field("VERSIONS", 1 | 1 << 32) + field("CAPABILITIES", ACK)
        fields += field("ALIAS_MAX", 8) + field("ALIAS_BYTES_MAX", 512)
        self.say(frame(16, *magic, fields + field("TOKEN", token)))

    def say(self, data):
        self.socket.sendall(data)

    def hear(self):
        """The next frame that is no ALIAS: kind, values, subject."""
        while True:
            if len(self.received) >= 16:
                length = struct.unpack_from("<I", self.received)[0]
                size = length + -length % 8
                if len(self.received) >= size:
                    data, self.received = self.received[:size], self.received[size:]
                    kind, values, _ = stranger.decode(data[:length], "client", self.state)
                    if self.state == "WAITING":
                        self.state = "READY"
                    if kind != 24:
                        return kind, values, data[:length]
                    self.aliases[values["alias"]] = data
                    continue
            more = self.socket.recv(65536)
            assert more, "the server has closed"
            self.received += more


def main(port, token):
    wrong = Visitor(port, b"wrong")
    kind, values, data = wrong.hear()
    assert kind == 19 and data[5] == 40 and values["reason"] == 9, (kind, values)
    assert wrong.socket.recv(100) == b"", "it closes behind a fatal ERROR"
    asker, responder = Visitor(port, token), Visitor(port, token)
    for visitor in (asker, responder):
        kind, values, _ = visitor.hear()
        assert kind == 17, (kind, values)
    responder.say(frame(22, 1, 10, field("PATTERN", b"add")))
    responder.say(frame(22, 2, 11, field("PATTERN", b"news.>")))
    assert [responder.hear()[1]["operation"] for _ in range(2)] == [10, 11]
    asker.say(frame(1, 5, 6, b"hello" + b"news.a"))
    assert asker.hear()[0:2] == (21, {"operation": 5})
    kind, values, data = responder.hear()
    assert kind == 1 and values["subscription"] == 2 and b"hello" in data, values
    asker.say(frame(2, 77, 3, b"1+1" + b"add"))
    kind, values, data = responder.hear()
    assert kind == 2 and values["subscription"] == 1, values
    token = struct.pack("<Q", values["token"])
    responder.say(frame(3, *struct.unpack("<II", token), b"2"))
    kind, values, data = asker.hear()
    assert kind == 3 and values["correlation"] == 77 and data[5] == 0 and data[16:] == b"2", values
    asker.say(frame(2, 78, 6, b"nobody"))
    kind, values, data = asker.hear()
    assert kind == 3 and values["correlation"] == 78 and data[5] == 22, values
    asker.say(frame(28, 1, 2))
    assert asker.hear()[0] == 29
    asker.say(frame(31, 0, 0))
    assert asker.hear()[0] == 31
    assert asker.socket.recv(100) == b"", "both have said CLOSE"


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2].encode())
    print("visitor: served as the protocol says")
