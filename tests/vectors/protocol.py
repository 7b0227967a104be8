#!/usr/bin/env python3
"""Makes protocol.json, the golden vectors of the native protocol.

Written from docs/protocol.md alone: it shares no code with the library. Output is deterministic.
Where the page leaves a question open there is no vector. `good` frames decode to these values and
are written as these bytes; `ignored` ones hold what a receiver ignores and decode to these values;
`bad` ones are refused with this reason, and have one fault each.

    protocol.py            write the file
    protocol.py --check    exit 1 if the committed file differs
"""

import itertools
import struct

from generate import bytes_of, header_entry, headers_of, round_up, run, text_of

KINDS = dict(MESSAGE=1, REQUEST=2, REPLY=3, SKIP=4, HELLO=16, WELCOME=17, AUTH=18, ERROR=19,
             EVENT=20, ACK=21, SUBSCRIBE=22, UNSUBSCRIBE=23, ALIAS=24, CREDIT=25, GRANT=26,
             CANCEL=27, PING=28, PONG=29, DRAIN=30, CLOSE=31, PRESENCE=32, FRAGMENT=33)
FLAGS = dict(SEQUENCE=0, TOKEN=1, TTL=2, TIMESTAMP=3, LOST=4, SIZES=5, BLOCK=6, ALIAS=7, MORE=8,
             PUBLISHER=9, MANY=10, EXTENSION=11)
FIELDS = dict(VERSIONS=1, VERSION=2, CAPABILITIES=3, REQUIRED=4, NAME=5, TOKEN=6, FRAME_MAX=7,
              PAYLOAD_MAX=8, CREDIT=9, ALIAS_MAX=10, ALIAS_BYTES_MAX=11, SUBSCRIPTIONS_MAX=12,
              PING_NS=13, CLIENT=14, INSTANCE=15, SENTENCE=16, SUBJECT=17, PUBLISHER=18,
              PATTERN=19, GROUP=20, WEIGHT=21, POLICY=22, CAPACITY=23, REPLIES=24, COUNT=25,
              DEADLINE_NS=26, SERVERS=27, ADDRESS=28, RINGS=29)
REASONS = dict(LENGTH=1, KIND=2, FLAGS=3, FIELDS=4, FIELD=5, MAGIC=6, VERSION=7, CAPABILITY=8,
               AUTHENTICATION=9, STATE=10, ALIAS=11, SIZES=12, CREDIT=13, SUBJECT=14, PATTERN=15,
               PAYLOAD=16, LIMIT=17, SUBSCRIPTION=18, PERMISSION=19, TIMEOUT=20, SLOW=21,
               DRAINING=22, FULL=23, STREAM=24, OPTION=25, INTERNAL=26, OPERATION=27)
CAPABILITIES = dict(ACK=0, MANY=1, PRESENCE=2, KEY_SHARED=3, LATEST=4, LAST_VALUE=5, SHM=6)
EVENTS = dict(PRESENT=1, ARRIVED=2, LEFT=3, GONE=4, SLOW=5, GAP=6, LIMIT=7)
MAGIC = int.from_bytes(b"FASTMQW1", "little")
U32_MAX, U64_MAX = (1 << 32) - 1, (1 << 64) - 1
FRAME_MAX = 1_187_840
ALL = (1 << 32) - 1


def pad(data):
    return data + bytes(round_up(len(data)) - len(data))


# What `first` and `second` are called, by kind and by whom the frame goes to.
def names_of(kind, to):
    if kind == "MESSAGE":
        return ("operation" if to == "server" else "subscription",)
    if kind == "REQUEST":
        return ("correlation" if to == "server" else "subscription",)
    if kind in ("REPLY", "GRANT", "CANCEL"):
        whole = (kind == "REPLY") == (to == "server")
        return ("token64",) if whole else ("correlation", "responder" if kind == "REPLY" else None)
    return {
        "HELLO": ("magic64",), "WELCOME": ("magic64",), "AUTH": (None, None),
        "ERROR": ("operation", "reason"), "EVENT": ("subscription", "event"),
        "ACK": ("operation", None), "SUBSCRIBE": ("subscription", "operation"),
        "UNSUBSCRIBE": ("subscription", "operation"), "ALIAS": ("alias", None),
        "CREDIT": ("limit64",), "PING": ("value64",), "PONG": ("value64",),
        "DRAIN": ("subscription", "operation") if to == "server" else (None, None),
        "CLOSE": (None, None), "PRESENCE": (None, "operation"), "FRAGMENT": ("number", "offset"),
    }[kind]


def message(kind, to, f):
    """Section 2."""
    flags, words, extension = 0, b"", b""

    def word(name, data):
        nonlocal flags, words
        flags |= 1 << FLAGS[name]
        words += data

    for name in ("sequence", "token", "ttl_ns", "timestamp_ns", "lost"):
        if name in f and not (kind == "REPLY" and name == "token"):
            word(name.removesuffix("_ns").upper(), struct.pack("<Q", f[name]))
    reply_to = f.get("reply_to", "").encode()
    key, headers = f.get("key", b""), f.get("headers", b"")
    if reply_to or key or headers:
        word("SIZES", struct.pack("<HHI", len(reply_to), len(key), len(headers)))
    if "publisher" in f:
        word("PUBLISHER", struct.pack("<Q", f["publisher"]))
    if "many" in f:
        word("MANY", struct.pack("<II", f["many"]["answers"], f["many"]["credit"]))
    if "extension" in f:
        extension = f["extension"]["data"]
        word("EXTENSION", struct.pack("<II", f["extension"]["bits"], len(extension)))
    if f.get("more"):
        flags |= 1 << FLAGS["MORE"]
    text = b""
    if kind == "REPLY":
        if to == "server":
            second = struct.pack("<Q", f["token"])
        else:
            second = struct.pack("<II", f["correlation"], f["responder"])
    else:
        if "alias" in f:
            flags |= 1 << FLAGS["ALIAS"]
            subject = f["alias"]
        else:
            text = f["subject"].encode()
            subject = len(text)
        second = struct.pack("<II", f[names_of(kind, to)[0]], subject)
    body = words + extension + f.get("payload", b"") + text + reply_to + key + headers
    code = f.get("status", 0) if kind == "REPLY" else f.get("priority", 0)
    return head(kind, code, flags, second, len(body)) + body


def head(kind, code, flags, eight, size, length=None):
    number = KINDS.get(kind, kind)
    return struct.pack("<IBBH", 16 + size if length is None else length, number, code, flags) + eight


def field(number, value, reserved=0):
    if isinstance(value, int):
        value = struct.pack("<Q", value)
    elif isinstance(value, str):
        value = value.encode()
    return struct.pack("<HHI", number, reserved, len(value)) + pad(value)


def fields_of(fields):
    ordered = sorted(fields, key=FIELDS.get)
    return b"".join(field(FIELDS[name], fields[name]) for name in ordered)


def control(kind, to, f):
    """Section 3."""
    names = names_of(kind, to)
    if len(names) == 1:
        eight = struct.pack("<Q", MAGIC if names[0] == "magic64" else f[names[0][:-2]])
    else:
        eight = struct.pack("<II", *(f[name] if name else 0 for name in names))
    body = fields_of(f.get("fields", {}))
    return head(kind, f.get("status", 0), f.get("flags", 0), eight, len(body)) + body


def frame(kind, to, f):
    return (message if KINDS[kind] <= 3 else control)(kind, to, f)


def shown(value, name=""):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: shown(item, key) for key, item in value.items()}
    big = ("sequence", "token", "ttl_ns", "timestamp_ns", "lost", "publisher", "limit", "value")
    return str(value) if name in big or (name.isupper() and isinstance(value, int)) else value


WORDS = dict(sequence=0x0102030405060708, ttl_ns=0x1112131415161718,
             timestamp_ns=1_700_000_000_000_000_000, publisher=0x2122232425262728)
TEXTS = dict(reply_to="answers.here", key=b"key-7",
             headers=headers_of([("trace", b"abc"), ("empty", b"")]))
TRACE = dict(bits=1, data=bytes_of(24, 9))
HELLO = dict(VERSIONS=1 << 32 | 1, CAPABILITIES=0x7F, NAME="gate 4", TOKEN=b"s3cret",
             FRAME_MAX=FRAME_MAX, CREDIT=1 << 23, ALIAS_MAX=65_536, ALIAS_BYTES_MAX=4 << 20,
             PING_NS=30_000_000_000)
WELCOME = dict(VERSION=1, CAPABILITIES=0x3F, FRAME_MAX=FRAME_MAX, PAYLOAD_MAX=1 << 20,
               CREDIT=1 << 23, ALIAS_MAX=4096, ALIAS_BYTES_MAX=1 << 18, SUBSCRIPTIONS_MAX=65_536,
               PING_NS=30_000_000_000, CLIENT=7, INSTANCE=0xFFEEDDCCBBAA9988, NAME="tower")


def subsets(names):
    for count in range(len(names) + 1):
        yield from itertools.combinations(names, count)


def good():
    cases = []

    def add(name, to, kind, occupies=None, **f):
        data = frame(kind, to, f)
        length = struct.unpack_from("<I", data)[0]
        assert length == len(data) <= FRAME_MAX, name
        assert occupies in (None, round_up(length)), (name, length)
        cases.append(dict(name=name, to=to, kind=kind, values=shown(f), length=length,
                          hex=pad(data).hex()))

    small = bytes_of(16, 1)
    add("the example of the page", "server", "REQUEST", 24, correlation=7, alias=3, payload=b"ping")
    add("a publish of 16 bytes", "server", "MESSAGE", 32, operation=0, alias=3, payload=small)
    add("a publish with its sequence", "server", "MESSAGE", 40, operation=0, alias=3,
        sequence=1, payload=small)
    add("a publish by text, to be acknowledged", "server", "MESSAGE", operation=5,
        subject="flight.LAX.JFK", payload=small)
    add("the smallest message", "server", "MESSAGE", 24, operation=0, subject="a")
    add("an empty message by alias", "client", "MESSAGE", 16, subscription=1, alias=0)
    add("a delivery", "client", "MESSAGE", 32, subscription=9, alias=0, payload=small)
    add("a request of 16 bytes", "server", "REQUEST", 32, correlation=1, alias=0, payload=small)
    add("the same to its responder", "client", "REQUEST", 40, subscription=3, alias=5,
        token=0xFFEEDDCCBBAA9988, payload=small)
    add("its reply", "server", "REPLY", 32, token=0xFFEEDDCCBBAA9988, payload=small)
    add("its reply to the asker", "client", "REPLY", 32, correlation=1, responder=0, payload=small)
    for number, name in ((2, "TIMEOUT"), (3, "END"), (4, "CANCELLED"), (22, "NO_RESPONDER"),
                         (23, "BUSY")):
        add(f"a reply that says {name}", "client", "REPLY", 16, correlation=8, responder=0,
            status=number)
    for chosen in subsets(["sequence", "ttl_ns", "timestamp_ns", "publisher", "texts"]):
        words = {name: WORDS[name] for name in chosen if name != "texts"}
        if "texts" in chosen:
            words.update(TEXTS)
        label = " + ".join(chosen) or "no word"
        add(f"publish, {label}", "server", "MESSAGE", operation=2, subject="a.b",
            payload=small, **words)
        add(f"delivery, lost + {label}", "client", "MESSAGE", subscription=4, alias=U32_MAX,
            lost=3, payload=b"seven b", **words)
        add(f"request, many + extension + {label}", "server", "REQUEST", correlation=2,
            subject="a.b", many=dict(answers=ALL, credit=16), extension=TRACE, payload=small,
            **words)
        add(f"request to the responder, {label}", "client", "REQUEST", subscription=2,
            subject="a.b", token=1, payload=small, **words)
    for chosen in subsets(["reply_to", "key", "headers"]):
        if chosen:
            add(f"publish with {' + '.join(chosen)} only", "server", "MESSAGE", operation=0,
                alias=1, payload=small, **{name: TEXTS[name] for name in chosen})
    add("a request that takes a stream", "client", "REQUEST", subscription=2, alias=1, token=77,
        many=dict(answers=0, credit=1_048_576))
    add("a reply of a stream", "server", "REPLY", token=77, more=True, payload=small)
    add("the end of a stream", "server", "REPLY", 16, token=77, status=3)
    add("a reply with headers", "server", "REPLY", token=78, headers=TEXTS["headers"],
        payload=b"x")
    add("a reply with sequence, time and extension", "client", "REPLY", correlation=5,
        responder=9, more=True, sequence=4, timestamp_ns=WORDS["timestamp_ns"], extension=TRACE,
        payload=small)
    add("trace and origin", "server", "MESSAGE", operation=0, alias=1,
        extension=dict(bits=3, data=bytes_of(32, 3)), payload=small)
    add("an empty extension", "server", "MESSAGE", operation=0, alias=1,
        extension=dict(bits=0, data=b""), payload=small)
    for size in (1, 7, 8, 9, 15, 63, 64, 65, 255, 256, 1000):
        add(f"payload of {size}", "client", "MESSAGE", subscription=1, subject="size",
            payload=bytes_of(size, size))
    add("the longest subject", "server", "MESSAGE", operation=0, subject=text_of(1024))
    add("a subject outside ASCII", "server", "MESSAGE", operation=0, subject="Zürich.東京",
        payload=b"x")
    most = headers_of([("h", bytes_of(65_000, 5))])
    most += header_entry("p", bytes_of(65_536 - len(most) - 5, 6))
    add("64 KiB of headers", "client", "MESSAGE", subscription=1, subject="h", headers=most)
    add("the longest reply address", "server", "REQUEST", correlation=0, alias=0,
        reply_to=text_of(1024))
    add("the largest numbers", "client", "REQUEST", subscription=U32_MAX, alias=U32_MAX,
        sequence=U64_MAX, token=U64_MAX, ttl_ns=U64_MAX, timestamp_ns=U64_MAX, lost=U64_MAX,
        publisher=U64_MAX, many=dict(answers=ALL, credit=ALL))

    add("hello", "server", "HELLO", fields=HELLO)
    add("the shortest hello", "server", "HELLO", 32, fields=dict(VERSIONS=1 << 32 | 1))
    add("hello, versions 1 to 3, a capability required", "server", "HELLO",
        fields=dict(VERSIONS=3 << 32 | 1, CAPABILITIES=2, REQUIRED=2))
    add("the longest token", "server", "HELLO",
        fields=dict(VERSIONS=1 << 32 | 1, TOKEN=bytes_of(4096, 2)))
    add("welcome", "client", "WELCOME", fields=WELCOME)
    add("the shortest welcome", "client", "WELCOME", fields=dict(VERSION=1))
    add("welcome with rings", "client", "WELCOME", fields=dict(
        WELCOME, CAPABILITIES=0x7F, RINGS=struct.pack("<QQ", 1 << 22, 1 << 23),
        SERVERS="tcp://a:7077,tcp://b:7077"))
    add("an operation failed", "client", "ERROR", operation=12, reason=REASONS["PERMISSION"],
        status=40, fields=dict(SENTENCE="not allowed to publish to tower.secret"))
    add("no version in common", "client", "ERROR", operation=0, reason=REASONS["VERSION"],
        status=13, flags=1, fields=dict(VERSIONS=1 << 32 | 1, SENTENCE="versions 1 to 1"))
    add("a publish without an operation was refused", "client", "ERROR", operation=0,
        reason=REASONS["FULL"], status=1, fields=dict(SUBJECT="busy.one"))
    add("a client's fatal error", "server", "ERROR", operation=0, reason=REASONS["KIND"],
        status=13, flags=1, fields=dict(SENTENCE="kind 200 is unknown"))
    for name, number in EVENTS.items():
        some = {
            "SLOW": dict(COUNT=5_000_000), "GAP": dict(COUNT=3, SUBJECT="a.b"),
            "LIMIT": dict(SENTENCE="memory"),
        }.get(name, dict(CLIENT=9, NAME="gate 5", ADDRESS="unix"))
        add(f"event {name}", "client", "EVENT", subscription=6 if name == "GAP" else 0,
            event=number, fields=some)
    add("ack", "client", "ACK", 16, operation=5)
    add("subscribe", "server", "SUBSCRIBE", subscription=1, operation=1,
        fields=dict(PATTERN="flight.*.>"))
    add("subscribe with everything", "server", "SUBSCRIBE", subscription=U32_MAX,
        operation=U32_MAX, flags=3, fields=dict(PATTERN=text_of(1024), GROUP="g" * 255,
                                                WEIGHT=65_535, POLICY=2, CAPACITY=1 << 20))
    add("unsubscribe", "server", "UNSUBSCRIBE", 16, subscription=1, operation=2)
    add("alias", "server", "ALIAS", alias=3, fields=dict(SUBJECT="flight.LAX.JFK"))
    add("alias of a publisher", "client", "ALIAS", alias=4095,
        fields=dict(SUBJECT=text_of(1024), PUBLISHER=8))
    add("an alias forgotten", "server", "ALIAS", alias=3, fields=dict(SUBJECT=""))
    for to in ("server", "client"):
        add(f"credit to the {to}", to, "CREDIT", 16, limit=1 << 40)
        add(f"ping to the {to}", to, "PING", 16, value=0x0123456789ABCDEF)
        add(f"pong to the {to}", to, "PONG", 16, value=U64_MAX)
        add(f"close to the {to}", to, "CLOSE", 16)
        add(f"close with a reason to the {to}", to, "CLOSE", status=30,
            fields=dict(SENTENCE="the tower moves"))
    add("grant by the asker", "server", "GRANT", 32, correlation=9, fields=dict(REPLIES=8))
    add("grant to the responder", "client", "GRANT", 32, token=77, fields=dict(REPLIES=1_048_576))
    add("cancel by the asker", "server", "CANCEL", 16, correlation=9)
    add("cancel to the responder", "client", "CANCEL", 16, token=77)
    add("drain one", "server", "DRAIN", 16, subscription=4, operation=8)
    add("drain all", "server", "DRAIN", 16, subscription=0, operation=9)
    add("the server drains", "client", "DRAIN",
        fields=dict(DEADLINE_NS=30_000_000_000, SERVERS="tcp://b:7077"))
    add("watch who is there", "server", "PRESENCE", operation=3, flags=1,
        fields=dict(NAME="gate.*"))
    add("watch no more", "server", "PRESENCE", 16, operation=4)
    return cases


def ignored():
    """What a receiver ignores; `values` are what it sees, and what it writes may differ."""
    cases = []

    def add(name, to, kind, data, **f):
        cases.append(dict(name=name, to=to, kind=kind, values=shown(f), hex=pad(data).hex()))

    def patched(data, at, new):
        return data[:at] + new + data[at + len(new):]

    plain = dict(operation=0, alias=3, payload=b"ping")
    data = message("MESSAGE", "server", plain)
    for bit in (12, 13):
        flags = struct.pack("<H", 1 << 7 | 1 << bit)
        add(f"frame priority, bit {bit}", "server", "MESSAGE", patched(data, 6, flags), **plain)
    for priority in (1, 9, 15, 0x10, 0xFF):
        add(f"priority {priority:#x}", "server", "MESSAGE", patched(data, 5, bytes([priority])),
            **plain)
    add("rounding that is not 0", "server", "MESSAGE", data + b"\xff" * 4, **plain)
    add("a publish with TOKEN, LOST, MORE and MANY", "server", "MESSAGE",
        head("MESSAGE", 0, 1 << 1 | 1 << 4 | 1 << 7 | 1 << 8 | 1 << 10, struct.pack("<II", 0, 3),
             28) + b"\xee" * 24 + b"ping", **plain)
    add("extension bit 15", "server", "MESSAGE", message("MESSAGE", "server", dict(
        plain, extension=dict(bits=1 << 15, data=bytes_of(8, 1)))), **plain)
    add("all extension bits that may be ignored", "server", "MESSAGE",
        message("MESSAGE", "server", dict(plain, extension=dict(bits=0xFFFF,
                                                               data=bytes_of(512, 1)))), **plain)
    ping = control("PING", "server", dict(value=5))
    add("the code of a control frame", "server", "PING", patched(ping, 5, b"\xff"), value=5)
    for bit in (0, 7, 8, 13):
        add(f"flag bit {bit} of a control frame", "server", "PING",
            patched(ping, 6, struct.pack("<H", 1 << bit)), value=5)
    ack = control("ACK", "client", dict(operation=5))
    add("the second number of an ACK", "client", "ACK", patched(ack, 12, b"\xff" * 4), operation=5)
    credit = head("CREDIT", 0, 0, struct.pack("<Q", 9), 0)
    body = field(30, b"session") + field(39, b"salt") + field(0x7FFF, b"") + field(0, b"x")
    add("reserved and unknown fields", "server", "CREDIT",
        patched(credit, 0, struct.pack("<I", 16 + len(body))) + body, limit=9)
    hello = dict(VERSIONS=1 << 32 | 1, NAME="gate 4")
    body = field(1, hello["VERSIONS"]) + field(31, b"resume") + field(32, "account") \
        + field(33, bytes(24)) + field(5, hello["NAME"])
    magic = struct.pack("<Q", MAGIC)
    add("session, account and trace in a hello", "server", "HELLO",
        head("HELLO", 0, 0, magic, len(body)) + body, fields=hello)
    body = field(1, hello["VERSIONS"], reserved=0xFFFF) + field(5, hello["NAME"])[:-2] + b"\xff\xff"
    add("a field's reserved number and rounding", "server", "HELLO",
        head("HELLO", 0, 0, magic, len(body)) + body, fields=hello)
    for kind in (64, 100, 127):
        add(f"kind {kind}", "server", "none", head(kind, 255, 0, b"\xff" * 8, 5) + b"later")
    return cases


def bad():
    cases = []

    def add(name, to, reason, data, status, frame_max=FRAME_MAX):
        cases.append(dict(name=name, to=to, reason=reason, number=REASONS[reason], status=status,
                          frame_max=frame_max, hex=pad(data).hex()))

    both = ("server", "client")
    eight = struct.pack("<II", 1, 3)
    alias = 1 << FLAGS["ALIAS"]
    flag = lambda *names: sum(1 << FLAGS[name] for name in names)
    word = lambda value: struct.pack("<Q", value)
    for length in (0, 1, 7, 8, 15):
        add(f"length {length}", "server", "LENGTH", head("MESSAGE", 0, alias, eight, 0, length), 10)
    for length in (FRAME_MAX + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF):
        add(f"length {length}", "client", "LENGTH", head("MESSAGE", 0, alias, eight, 0, length), 12)
    add("a message one byte above FRAME_MAX", "client", "LENGTH",
        head("MESSAGE", 0, alias, eight, 8193 - 16) + bytes(8177), 12, 8192)
    add("a control frame of 8,193", "server", "LENGTH", head("PING", 0, 0, eight, 0, 8193), 12)
    add("an unknown kind of 4 GiB", "server", "LENGTH", head(64, 0, 0, eight, 0, U32_MAX), 12)
    for kind in (0, 4, 5, 15, 34, 63, 128, 255):
        for to in both:
            add(f"kind {kind} to the {to}", to, "KIND", head(kind, 0, 0, eight, 0), 13)
    for kind in ("HELLO", "WELCOME", "AUTH", "ACK", "EVENT", "SUBSCRIBE", "UNSUBSCRIBE",
                 "PRESENCE", "FRAGMENT"):
        for to in both:
            goes = {"ACK": "client", "EVENT": "client", "SUBSCRIBE": "server",
                    "UNSUBSCRIBE": "server", "PRESENCE": "server"}.get(kind)
            if goes != to:
                add(f"{kind} to a {to} that is ready", to, "STATE", head(kind, 0, 0, eight, 0), 11)
    for bit in (6, 14, 15):
        add(f"flag bit {bit} of a message", "server", "FLAGS",
            head("MESSAGE", 0, alias | 1 << bit, eight, 0), 13)
    for bit in (14, 15):
        add(f"flag bit {bit} of a control frame", "client", "FLAGS",
            head("PING", 0, 1 << bit, eight, 0), 13)
    add("ALIAS in a reply", "client", "FLAGS", head("REPLY", 0, alias, eight, 0), 13)
    for bit in (16, 31):
        add(f"extension bit {bit}", "server", "FLAGS",
            head("MESSAGE", 0, alias | flag("EXTENSION"), eight, 16)
            + struct.pack("<II", 1 << bit, 8) + bytes(8), 13)

    for name in ("SEQUENCE", "TTL", "TIMESTAMP", "LOST", "SIZES", "PUBLISHER", "MANY",
                 "EXTENSION"):
        add(f"no room for the word of {name}", "server", "SIZES",
            head("MESSAGE", 0, alias | flag(name), eight, 0), 10)
    add("half a word", "server", "SIZES",
        head("MESSAGE", 0, alias | flag("SEQUENCE"), eight, 4) + bytes(4), 10)
    add("room for two of three words", "client", "SIZES",
        head("MESSAGE", 0, alias | flag("SEQUENCE", "TTL", "LOST"), eight, 16) + bytes(16), 10)
    add("a request to its responder without TOKEN", "client", "SIZES",
        head("REQUEST", 0, alias, eight, 4) + b"ping", 10)
    for size in (0, 1025, U32_MAX):
        add(f"a subject of {size}", "server", "SIZES",
            head("MESSAGE", 0, 0, struct.pack("<II", 0, size), 1032) + b"a" * 1032, 10)
    add("a subject longer than its frame", "server", "SIZES",
        head("REQUEST", 0, 0, struct.pack("<II", 0, 9), 8) + b"a" * 8, 10)
    for name, counts in (("reply_to", (9, 0, 0)), ("key", (0, 9, 0)), ("headers", (0, 0, 9)),
                         ("all three", (3, 3, 3)), ("the largest", (0xFFFF, 0xFFFF, U32_MAX))):
        add(f"sizes beyond the frame: {name}", "client", "SIZES",
            head("MESSAGE", 0, alias | flag("SIZES"), eight, 16)
            + struct.pack("<HHI", *counts) + bytes(8), 10)
    add("a reply address of 1,025", "server", "SIZES",
        head("MESSAGE", 0, alias | flag("SIZES"), eight, 8 + 1025)
        + struct.pack("<HHI", 1025, 0, 0) + b"a" * 1025, 10)
    add("headers of 65,537", "server", "SIZES",
        head("MESSAGE", 0, alias | flag("SIZES"), eight, 8 + 65_537)
        + struct.pack("<HHI", 0, 0, 65_537) + bytes(65_537), 10)
    add("an extension beyond the frame", "server", "SIZES",
        head("MESSAGE", 0, alias | flag("EXTENSION"), eight, 16)
        + struct.pack("<II", 1, 24) + bytes(8), 10)
    add("an extension of 4 GiB", "server", "SIZES",
        head("MESSAGE", 0, alias | flag("EXTENSION"), eight, 16)
        + struct.pack("<II", 1, 0xFFFFFFF8) + bytes(8), 10)
    add("an extension of 12", "server", "SIZES",
        head("MESSAGE", 0, alias | flag("EXTENSION"), eight, 24)
        + struct.pack("<II", 1, 12) + bytes(16), 10)

    def fields(name, kind, to, body, reason="FIELDS", status=10):
        add(name, to, reason, head(kind, 0, 0, eight, len(body)) + body, status)

    fields("half a field", "PING", "server", bytes(4))
    fields("bytes behind the last field", "PING", "server", field(25, 1) + bytes(4))
    fields("a field beyond its frame", "PING", "server", struct.pack("<HHI", 16, 0, 9) + bytes(8))
    fields("a last field without its rounding", "CLOSE", "client",
           struct.pack("<HHI", 16, 0, 5) + b"tower")
    fields("a field of 4 GiB", "PING", "server", struct.pack("<HHI", 16, 0, U32_MAX) + bytes(8))
    fields("a number of 4", "GRANT", "server", field(24, b"1234"))
    fields("a number of 16", "GRANT", "client", field(24, bytes_of(16, 1)))
    fields("a field twice", "GRANT", "server", field(24, 1) + field(24, 1))
    fields("an alias without SUBJECT", "ALIAS", "server", b"")
    fields("a grant without REPLIES", "GRANT", "server", b"")
    fields("a grant of 0", "GRANT", "server", field(24, 0))
    fields("a grant above 1,048,576", "GRANT", "server", field(24, 1_048_577))
    fields("a subscribe without PATTERN", "SUBSCRIBE", "server", field(20, "group"))
    fields("an empty pattern", "SUBSCRIBE", "server", field(19, ""))
    fields("a pattern of 1,025", "SUBSCRIBE", "server", field(19, "a" * 1025))
    fields("an empty group", "SUBSCRIBE", "server", field(19, "a") + field(20, ""))
    fields("a group of 256", "SUBSCRIBE", "server", field(19, "a") + field(20, "g" * 256))
    fields("a subject of 1,025", "ALIAS", "client", field(17, "a" * 1025))
    fields("publisher 0", "ALIAS", "client", field(17, "a") + field(18, 0))
    fields("a sentence of 1,025", "CLOSE", "client", field(16, "a" * 1025))
    fields("a name of 256", "PRESENCE", "server", field(5, "a" * 256))
    fields("rings of 8", "PING", "client", field(29, b"12345678"))
    for number in (0x8000, 0xFFFF):
        fields(f"field {number:#x}", "PING", "client", field(number, b""), "FIELD", 13)
    add("a subscribe with operation 0", "server", "OPERATION",
        control("SUBSCRIBE", "server", dict(subscription=1, operation=0,
                                            fields=dict(PATTERN="a"))), 10)
    for kind in ("UNSUBSCRIBE", "DRAIN"):
        add(f"{kind} with operation 0", "server", "OPERATION",
            control(kind, "server", dict(subscription=1, operation=0)), 10)
    add("PRESENCE with operation 0", "server", "OPERATION",
        control("PRESENCE", "server", dict(operation=0)), 10)
    return cases


def handshakes():
    """First frames: what the other side makes of them. A server has versions 1 to 1."""
    cases = []

    def add(name, to, data, outcome, **more):
        cases.append(dict(name=name, to=to, hex=pad(data).hex(), outcome=outcome, **more))

    magic = struct.pack("<Q", MAGIC)
    hello = lambda **fields: control("HELLO", "server", dict(fields=fields))
    welcome = lambda **fields: control("WELCOME", "client", dict(fields=fields))
    one = 1 << 32 | 1
    add("the shortest hello", "server", hello(VERSIONS=one), "WELCOME", version=1)
    add("versions 1 to 9", "server", hello(VERSIONS=9 << 32 | 1), "WELCOME", version=1)
    add("versions 2 to 9", "server", hello(VERSIONS=9 << 32 | 2), "VERSION")
    add("versions 0 to 0", "server", hello(VERSIONS=0), "VERSION")
    add("versions 1 to 0", "server", hello(VERSIONS=1), "VERSION")
    add("every capability", "server", hello(VERSIONS=one, CAPABILITIES=U64_MAX), "WELCOME",
        version=1)
    add("a capability that nobody has", "server", hello(VERSIONS=one, REQUIRED=1 << 63),
        "CAPABILITY")
    add("no versions", "server", head("HELLO", 0, 0, magic, 0), "FIELDS")
    add("a token of 4,097", "server", hello(VERSIONS=one, TOKEN=bytes(4097)), "FIELDS")
    add("FRAME_MAX of 8,191", "server", hello(VERSIONS=one, FRAME_MAX=8191), "FIELDS")
    add("CREDIT below FRAME_MAX", "server", hello(VERSIONS=one, FRAME_MAX=16_384, CREDIT=16_383),
        "FIELDS")
    add("a field that must not be ignored", "server",
        head("HELLO", 0, 0, magic, 24) + field(1, one) + field(0x8001, b""), "FIELD")
    add("another magic", "server", head("HELLO", 0, 0, b"FASTMQW2", 16) + field(1, one), "MAGIC")
    add("a line of NATS", "server", b'CONNECT {"verbose":false}\r\nPING\r\n', "MAGIC")
    add("a line of HTTP", "server", b"GET / HTTP/1.1\r\nHost: tower\r\n\r\n", "MAGIC")
    add("TLS", "server", bytes.fromhex("160301020001000001fc0303") + bytes_of(500, 1), "MAGIC")
    add("MQTT", "server", bytes.fromhex("101000044d5154540402003c0004676174") + b"e", "MAGIC")
    add("zeros", "server", bytes(32), "MAGIC")
    add("a ping first", "server", control("PING", "server", dict(value=1)), "MAGIC")
    add("a hello of 8,193", "server", head("HELLO", 0, 0, magic, 0, 8193), "LENGTH")
    add("a welcome", "client", welcome(VERSION=1), "WELCOME", version=1)
    add("a welcome to version 2", "client", welcome(VERSION=2), "VERSION")
    add("a welcome without version", "client", head("WELCOME", 0, 0, magic, 0), "FIELDS")
    add("a welcome with another magic", "client",
        head("WELCOME", 0, 0, b"FASTMQW2", 16) + field(2, 1), "MAGIC")
    add("a message in place of the welcome", "client",
        message("MESSAGE", "client", dict(subscription=1, alias=0)), "STATE")
    add("a challenge", "client", head("AUTH", 0, 0, bytes(8), 0), "STATE")
    add("a refusal", "client", control("ERROR", "client", dict(
        operation=0, reason=9, status=40, flags=1, fields=dict(SENTENCE="no token"))), "ERROR")
    return cases


def protocol_file():
    return {
        "from": "docs/protocol.md",
        "magic_hex": struct.pack("<Q", MAGIC).hex(),
        "kinds": KINDS, "flags": FLAGS, "fields": FIELDS, "reasons": REASONS,
        "capabilities": CAPABILITIES, "events": EVENTS,
        "good": good(), "ignored": ignored(), "bad": bad(), "handshakes": handshakes(),
    }


if __name__ == "__main__":
    run("protocol.py", {"protocol.json": protocol_file})
