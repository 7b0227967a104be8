#!/usr/bin/env python3
"""Makes the golden vectors of this directory.

Written from docs/formats.md alone: it shares no code with the library, so that a mistake in one is
seen by the other. Output is deterministic. Where formats.md leaves a question open there is no
vector: a vector is a promise.

    generate.py            write the files
    generate.py --check    exit 1 if a committed file differs
"""

import itertools
import json
import os
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

KINDS = {"MESSAGE": 1, "REQUEST": 2, "REPLY": 3, "SKIP": 4}
SEQUENCE, TOKEN, EXPIRY, TIMESTAMP, LOST, SIZES, BLOCK, SUBJECT_ID, MORE, PUBLISHER = (
    1 << bit for bit in range(10)
)
FLAG_NAMES = {
    "SEQUENCE": SEQUENCE,
    "TOKEN": TOKEN,
    "EXPIRY": EXPIRY,
    "TIMESTAMP": TIMESTAMP,
    "LOST": LOST,
    "SIZES": SIZES,
    "BLOCK": BLOCK,
    "SUBJECT_ID": SUBJECT_ID,
    "MORE": MORE,
    "PUBLISHER": PUBLISHER,
}
HEADER_BYTES = 16
HEADERS_BYTES_MAX = 64 * 1024
SUBJECT_BYTES_MAX = 1024
CAPACITY_MIN = 4096
U64_MAX = (1 << 64) - 1


def bytes_of(size, seed):
    """Bytes that differ from place to place, the same in every run."""
    return bytes((seed * 31 + index * 7 + index // 256) & 0xFF for index in range(size))


def text_of(size, token="abcdefg"):
    """A valid subject of exactly `size` bytes, of tokens of seven letters."""
    text = (token + ".") * (size // (len(token) + 1) + 1)
    text = text[:size]
    return text[:-1] + "z" if text.endswith(".") else text


def round_up(length):
    return (length + 7) & ~7


def header_entry(name, value):
    name = name.encode("utf-8")
    return struct.pack("<HH", len(name), len(value)) + name + value


def headers_of(entries):
    return b"".join(header_entry(name, value) for name, value in entries)


def block_of(block):
    return struct.pack(
        "<IIQQQ", block["pool"], block["index"], block["generation"], block["size"], 0
    )


def pack(fields):
    """The record of these fields, as section 1 has it: header, words, payload, texts."""
    kind = fields["kind"]
    if kind == "SKIP":
        return struct.pack("<IBBH", fields["length"], KINDS[kind], 0, 0), 0
    flags = 0
    words = b""
    for name, flag in (
        ("sequence", SEQUENCE),
        ("token", TOKEN),
        ("expiry_ns", EXPIRY),
        ("timestamp_ns", TIMESTAMP),
        ("lost", LOST),
    ):
        if name in fields:
            flags |= flag
            words += struct.pack("<Q", fields[name])
    reply_to = fields.get("reply_to", "").encode("utf-8")
    key = fields.get("key", b"")
    headers = fields.get("headers", b"")
    if reply_to or key or headers:
        flags |= SIZES
        words += struct.pack("<HHI", len(reply_to), len(key), len(headers))
    if "publisher" in fields:
        flags |= PUBLISHER
        words += struct.pack("<Q", fields["publisher"])
    payload = fields.get("payload", b"")
    if "block" in fields:
        flags |= BLOCK
        payload = block_of(fields["block"])
    subject_text = b""
    if kind == "REPLY":
        subject = fields["status"]
    elif "subject_id" in fields:
        flags |= SUBJECT_ID
        subject = fields["subject_id"]
    else:
        subject_text = fields["subject"].encode("utf-8")
        subject = len(subject_text)
    if fields.get("more"):
        flags |= MORE
    tail = payload + subject_text + reply_to + key + headers
    length = HEADER_BYTES + len(words) + len(tail)
    start = struct.pack(
        "<IBBHII", length, KINDS[kind], 0, flags, fields.get("subscription", 0), subject
    )
    return start + words + tail, flags


def json_fields(fields):
    """Bytes become hex, 64-bit numbers decimal strings (JSON numbers are doubles to many)."""
    out = {}
    for name, value in fields.items():
        if isinstance(value, bytes):
            out[name] = value.hex()
        elif name in ("sequence", "token", "expiry_ns", "timestamp_ns", "lost", "publisher"):
            out[name] = str(value)
        elif name == "block":
            out[name] = {
                "pool": value["pool"],
                "index": value["index"],
                "generation": str(value["generation"]),
                "size": str(value["size"]),
            }
        else:
            out[name] = value
    return out


def capacity_for(length):
    capacity = CAPACITY_MIN
    while capacity // 2 < length:
        capacity *= 2
    return capacity


WORDS = {
    "sequence": 0x0102030405060708,
    "expiry_ns": 0x1112131415161718,
    "timestamp_ns": 1_700_000_000_000_000_000,
    "lost": 3,
}
TEXTS = {
    "reply_to": "answers.here",
    "key": b"key-7",
    "headers": headers_of([("trace", b"abc"), ("empty", b"")]),
}


def subsets(names):
    for count in range(len(names) + 1):
        yield from itertools.combinations(names, count)


def good_records():
    cases = []

    def add(name, capacity=None, **fields):
        data, flags = pack(fields)
        length = struct.unpack_from("<I", data)[0]
        if fields["kind"] != "SKIP":
            assert length == len(data), name
            assert length <= (capacity or capacity_for(length)) // 2, name
        cases.append(
            {
                "name": name,
                "capacity": capacity or capacity_for(length),
                "position": capacity - length if fields["kind"] == "SKIP" else 0,
                "fields": json_fields(fields),
                "flags": flags,
                "length": length,
                "occupies": round_up(length),
                "hex": data.hex(),
            }
        )

    plain = dict(subscription=7, subject="flight.LAX.JFK", payload=bytes_of(16, 1))
    add("the smallest message", kind="MESSAGE", subject="a")
    add("the smallest message by id", kind="MESSAGE", subject_id=0)
    add("48 bytes: payload 16, subject 16", kind="MESSAGE", subscription=1,
        subject="flight.LAX.JFK.1", payload=bytes_of(16, 2))
    add("40 bytes: payload 16 through a handle", kind="MESSAGE", subscription=1, sequence=1,
        subject_id=0, payload=bytes_of(16, 2))

    # Every subset of the optional words, subject as text and as an id.
    for chosen in subsets(["sequence", "expiry_ns", "timestamp_ns", "lost", "texts"]):
        words = {name: WORDS[name] for name in chosen if name != "texts"}
        if "texts" in chosen:
            words.update(TEXTS)
        label = " + ".join(chosen) or "no optional word"
        add(f"message, {label}", kind="MESSAGE", **words, **plain)
        by_id = dict(plain)
        del by_id["subject"]
        add(f"message by id, {label}", kind="MESSAGE", subject_id=0x01020304, **words, **by_id)
        add(f"request, {label}", kind="REQUEST", token=0xFFEEDDCCBBAA9988, **words, **plain)

    # The publisher behind every other word.
    for chosen in subsets(["expiry_ns", "timestamp_ns", "lost", "texts"]):
        words = {name: WORDS[name] for name in chosen if name != "texts"}
        if "texts" in chosen:
            words.update(TEXTS)
        add(f"message, sequence + publisher{''.join(' + ' + name for name in chosen)}",
            kind="MESSAGE", sequence=9, publisher=0x2122232425262728, **words, **plain)
    add("the largest publisher", kind="MESSAGE", sequence=1, publisher=U64_MAX, subject_id=0,
        payload=b"x")
    add("a publisher and a block", kind="MESSAGE", sequence=2, publisher=3, subject="big.of",
        block=dict(pool=1, index=2, generation=3, size=9000))

    for chosen in subsets(["reply_to", "key", "headers"]):
        if chosen:
            add(f"message with {' + '.join(chosen)} only", kind="MESSAGE",
                **{name: TEXTS[name] for name in chosen}, **plain)

    block = dict(pool=3, index=0xFFFFFFFE, generation=0x0A0B0C0D0E0F1011, size=1 << 20)
    for chosen in subsets(["sequence", "expiry_ns", "lost", "texts"]):
        words = {name: WORDS[name] for name in chosen if name != "texts"}
        if "texts" in chosen:
            words.update(TEXTS)
        label = " + ".join(chosen) or "no optional word"
        add(f"message in a block, {label}", kind="MESSAGE", block=block, **words,
            subscription=9, subject="big.one")
    add("message by id in a block", kind="MESSAGE", block=block, subject_id=5, subscription=9)
    add("request in a block", kind="REQUEST", block=block, token=1, subject="big.ask",
        subscription=9)
    add("a block of 64 MiB", kind="MESSAGE", subject="big.most",
        block=dict(pool=0, index=0, generation=1, size=64 << 20))

    for chosen in subsets(["headers", "block", "more"]):
        fields = {"kind": "REPLY", "status": 0, "token": 0x8000000000000001}
        if "headers" in chosen:
            fields["headers"] = TEXTS["headers"]
        if "block" in chosen:
            fields["block"] = block
        else:
            fields["payload"] = bytes_of(16, 3)
        if "more" in chosen:
            fields["more"] = True
        add(f"reply, {' + '.join(chosen) or 'plain'}", **fields)
    add("an empty reply", kind="REPLY", status=0, token=0)
    for number, name in ((2, "TIMEOUT"), (4, "CANCELLED"), (22, "NO_RESPONDER"), (23, "BUSY")):
        add(f"a reply that says {name}", kind="REPLY", status=number, token=42)

    for size in (1, 7, 8, 9, 15, 63, 64, 65, 255, 256, 1000):
        add(f"payload of {size}", kind="MESSAGE", subject="size", payload=bytes_of(size, size))
    add("payload of zeros", kind="MESSAGE", subject="zeros", payload=bytes(40))
    add("a subject outside ASCII", kind="MESSAGE", subject="Zürich.東京", payload=b"x")

    add("the longest subject", kind="MESSAGE", subject=text_of(SUBJECT_BYTES_MAX), payload=b"x")
    add("the largest numbers", kind="REQUEST", sequence=U64_MAX, token=U64_MAX, expiry_ns=U64_MAX,
        timestamp_ns=U64_MAX, lost=U64_MAX, subject_id=0xFFFFFFFF, subscription=0xFFFFFFFF)
    most = headers_of([("h", bytes_of(65_000, 5)), ("x", b"y")])
    most += header_entry("p", bytes_of(HEADERS_BYTES_MAX - len(most) - 5, 6))
    assert len(most) == HEADERS_BYTES_MAX
    add("64 KiB of headers", kind="MESSAGE", subject="h", headers=most)
    half = CAPACITY_MIN // 2
    add("a record of half the ring", capacity=CAPACITY_MIN, kind="MESSAGE", subject="half",
        payload=bytes_of(half - HEADER_BYTES - 4, 8))
    add("a record one byte below half the ring", capacity=CAPACITY_MIN, kind="MESSAGE",
        subject="half", payload=bytes_of(half - HEADER_BYTES - 5, 8))

    add("the smallest skip", capacity=CAPACITY_MIN, kind="SKIP", length=8)
    add("a skip of 16", capacity=CAPACITY_MIN, kind="SKIP", length=16)
    add("a skip of half the ring", capacity=CAPACITY_MIN, kind="SKIP", length=2048)
    add("a skip of the whole ring", capacity=CAPACITY_MIN, kind="SKIP", length=CAPACITY_MIN)
    return cases


def raw(length, kind, flags, subscription, subject, rest=b"", priority=0):
    return struct.pack("<IBBHII", length, kind, priority, flags, subscription, subject) + rest


def bad_records():
    cases = []

    def add(name, data, reason, capacity=CAPACITY_MIN):
        cases.append(
            {
                "name": name,
                "capacity": capacity,
                "published": round_up(len(data)),
                "hex": data.hex(),
                "reason": reason,
            }
        )

    message, request, reply, skip = (KINDS[k] for k in ("MESSAGE", "REQUEST", "REPLY", "SKIP"))
    sizes = lambda reply_to, key, headers: struct.pack("<HHI", reply_to, key, headers)
    word = lambda value: struct.pack("<Q", value)

    add("eight zero bytes", bytes(8), "kind 0 is never written")
    add("a page of zeros", bytes(4096), "kind 0 is never written")
    add("a length over zeros", struct.pack("<I", 64) + bytes(60), "kind 0 is never written")
    for length in (0, 1, 7, 8, 15):
        add(f"length {length}", raw(length, message, 0, 1, 1, b"a" * 8),
            f"length is {length}, below 16")
    add("length beyond what is published", raw(32, message, 0, 1, 1, b"a" * 8),
        "length is 32, of which 24 are published")
    add("length above half the ring", raw(2056, message, 0, 1, 1, bytes_of(2040, 1)),
        "length is 2056, above half of the capacity 4096")
    add("length one above half the ring", raw(2049, message, 0, 1, 1, bytes_of(2033, 1)),
        "length is 2049, above half of the capacity 4096")
    for length in (0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFF9, 0xFFFFFFFF):
        add(f"length {length:#x}", raw(length, message, 0, 1, 1, b"a" * 8),
            f"length is {length}, above half of the capacity 4096")
    for kind in (5, 6, 127, 128, 255):
        add(f"kind {kind}", raw(24, kind, 0, 1, 1, b"a" * 8), f"kind {kind} is reserved")
    for bit in range(10, 16):
        add(f"flag bit {bit}", raw(24, message, 1 << bit, 1, 1, b"a" * 8),
            f"flag bit {bit} is reserved")
    add("all flags", raw(96, message, 0xFFFF, 1, 1, bytes(80)), "flag bits 10-15 are reserved")
    add("only 0xff", b"\xff" * 64, "length is 4294967295, above half of the capacity 4096")

    names = ["SEQUENCE", "TOKEN", "EXPIRY", "TIMESTAMP", "LOST", "SIZES", "PUBLISHER"]
    for name in names:
        flags = FLAG_NAMES[name] | SUBJECT_ID
        kind = request if name == "TOKEN" else message
        add(f"no room for the word of {name}", raw(16, kind, flags, 1, 0),
            "the optional words end at 24, beyond length 16")
    add("room for two of three words", raw(32, message, SEQUENCE | EXPIRY | LOST | SUBJECT_ID, 1, 0,
        word(1) + word(2)), "the optional words end at 40, beyond length 32")
    add("half a word", raw(20, message, SEQUENCE | SUBJECT_ID, 1, 0, b"\x01\x00\x00\x00"),
        "the optional words end at 24, beyond length 20")

    add("an empty subject", raw(24, message, 0, 1, 0, b"payload!"),
        "the subject's size is 0, below 1")
    add("an empty subject in a request", raw(24, request, TOKEN, 1, 0, word(1)),
        "the subject's size is 0, below 1")
    add("a subject longer than the record", raw(24, message, 0, 1, 9, b"a" * 8),
        "the fields need 9 bytes, of which 8 are there")
    add("a subject of 1025", raw(16 + 1025, message, 0, 1, 1025, b"a" * 1025),
        "the subject's size is 1025, above 1024")
    add("a subject of 0xffffffff", raw(24, message, 0, 1, 0xFFFFFFFF, b"a" * 8),
        "the subject's size is 4294967295, above 1024")

    texts = SIZES | SUBJECT_ID
    for name, counts in (
        ("reply_to", (9, 0, 0)), ("key", (0, 9, 0)), ("headers", (0, 0, 9)),
        ("all three", (3, 3, 3)), ("the largest sizes", (0xFFFF, 0xFFFF, 0xFFFFFFFF)),
        ("the largest reply_to", (0xFFFF, 0, 0)), ("the largest key", (0, 0xFFFF, 0)),
    ):
        add(f"sizes beyond the record: {name}",
            raw(32, message, texts, 1, 0, sizes(*counts) + b"\x01\x00\x01\x00aabb"),
            f"the fields need {sum(counts)} bytes, of which 8 are there")
    add("subject and sizes beyond the record",
        raw(32, message, SIZES, 1, 4, sizes(5, 0, 0) + b"a" * 8),
        "the fields need 9 bytes, of which 8 are there")
    add("a headers size that wraps 32 bits",
        raw(32, message, SIZES, 1, 4, sizes(4, 0, 0xFFFFFFFC) + b"a" * 8),
        "the fields need 4294967300 bytes, of which 8 are there")
    over = header_entry("a", bytes(32_768)) + header_entry("b", bytes(32_768))
    add("headers above 64 KiB",
        raw(24 + len(over), message, texts, 1, 0, sizes(0, 0, len(over)) + over),
        f"headers have {len(over)} bytes, above 65536", capacity=256 * 1024)

    descriptor = block_of(dict(pool=1, index=2, generation=3, size=4096))
    by_id = BLOCK | SUBJECT_ID
    add("no room for a block descriptor", raw(16, message, by_id, 1, 0),
        "a block descriptor has 32 bytes, the payload field 0")
    add("a block descriptor of 24", raw(40, message, by_id, 1, 0, descriptor[:24]),
        "a block descriptor has 32 bytes, the payload field 24")
    add("a block descriptor of 40", raw(56, message, by_id, 1, 0, descriptor + bytes(8)),
        "a block descriptor has 32 bytes, the payload field 40")
    add("a block descriptor cut by the subject", raw(48, message, BLOCK, 1, 4, descriptor),
        "a block descriptor has 32 bytes, the payload field 28")
    add("a block descriptor with reserved bytes set",
        raw(48, message, by_id, 1, 0, descriptor[:24] + word(1)),
        "the reserved word of the block descriptor is 1, not 0")

    add("a reply with the high half of status set", raw(24, reply, TOKEN, 0, 0x10000, word(1)),
        "the high 16 bits beside the status are 1, not 0")

    skip_of = lambda length, flags=0, priority=0: struct.pack("<IBBH", length, skip, priority, flags)
    add("a skip with flags", skip_of(8, flags=1), "a skip has flags 1, not 0")
    add("a skip with an unknown flag", skip_of(8, flags=0x8000), "a skip has flags 32768, not 0")
    add("a skip with a priority", skip_of(8, priority=1), "a skip has priority 1, not 0")
    for length in (0, 4, 7):
        add(f"a skip of {length}", skip_of(length), f"length is {length}, below 8")
    add("a skip above the capacity", skip_of(4104), "length is 4104, above the capacity 4096")
    add("a skip of 0xffffffff", skip_of(0xFFFFFFFF), "length is 4294967295, above the capacity 4096")
    return cases


def record_file():
    return {
        "from": "docs/formats.md, section 1",
        "how": (
            "good: `hex` is the record of `fields` at `position` of the ring, without the bytes that round it up to "
            "`occupies` (a SKIP: its 8 bytes). An absent field is not there; 64-bit numbers are "
            "decimal strings; bytes are hex; subject and reply_to are text. bad: `hex` stands at "
            "position 0 of a ring of `capacity`, `published` bytes are before the tail, the rest "
            "is zero; a reader refuses it and does not move"
        ),
        "flags": FLAG_NAMES,
        "kinds": KINDS,
        "good": good_records(),
        "bad": bad_records(),
    }


def control_file():
    return {
        "from": "docs/formats.md, section 2",
        "magic_hex": struct.pack("<Q", 0x314C_514D_5453_4146).hex(),
        "magic_text": "FASTMQL1",
        "capacity_min": 4096,
        "capacity_max": 1 << 30,
        "offsets": {
            "magic": 0,
            "capacity": 8,
            "tail": 128,
            "head": 256,
            "data": 384,
        },
    }


def status_file():
    names = {
        0: "OK", 1: "AGAIN", 2: "TIMEOUT", 3: "END", 4: "CANCELLED",
        10: "INVALID", 11: "MISUSE", 12: "TOO_LARGE", 13: "UNSUPPORTED", 14: "CLOSED",
        20: "NOT_FOUND", 21: "EXISTS", 22: "NO_RESPONDER", 23: "BUSY", 24: "CONFLICT",
        30: "UNAVAILABLE", 31: "DISCONNECTED", 32: "SLOW_CONSUMER",
        40: "DENIED", 41: "NO_SPACE", 42: "CORRUPT", 43: "IO", 44: "NO_MEMORY",
        50: "INTERNAL",
    }
    return {
        "from": "docs/formats.md, section 4",
        "statuses": [
            {"number": number, "name": name, "c": f"FASTMQ_{name}"}
            for number, name in sorted(names.items())
        ],
    }


def headers_file():
    good, bad = [], []

    def add(name, entries, lookups=()):
        good.append(
            {
                "name": name,
                "entries": [{"name": key, "value": value.hex()} for key, value in entries],
                "hex": headers_of(entries).hex(),
                "lookups": [
                    {"name": key, "value": None if value is None else value.hex()}
                    for key, value in lookups
                ],
            }
        )

    add("none", [], [("anything", None)])
    add("one", [("trace", b"abc")], [("trace", b"abc"), ("TRACE", b"abc"), ("trac", None)])
    add("an empty value", [("flag", b"")], [("flag", b""), ("flags", None)])
    add("any bytes as a value", [("raw", bytes(range(256)))], [("Raw", bytes(range(256)))])
    add("a name outside ASCII", [("größe", b"1"), ("日付", b"2")],
        [("GRößE", b"1"), ("日付", b"2"), ("GRÖßE", None)])
    add("the longest name", [("n" * 255, b"v")], [("N" * 255, b"v"), ("n" * 254, None)])
    add("a long value", [("v", bytes_of(4096, 4))], [("v", bytes_of(4096, 4))])
    add("many", [(f"name-{index}", str(index * index).encode()) for index in range(64)],
        [("name-0", b"0"), ("NAME-63", b"3969"), ("name-64", None)])
    add("64 KiB of entries of 64", [(f"{index:04}", bytes_of(56, index)) for index in range(1024)],
        [("0000", bytes_of(56, 0)), ("1023", bytes_of(56, 1023)), ("1024", None)])
    assert len(good[-1]["hex"]) // 2 == HEADERS_BYTES_MAX

    def refuse(name, data, reason):
        bad.append({"name": name, "hex": data.hex(), "reason": reason})

    entry = header_entry("a", b"b")
    refuse("one byte", b"\x01", "an entry starts with 4 bytes, 1 is there")
    refuse("three bytes", b"\x01\x00\x00", "an entry starts with 4 bytes, 3 are there")
    refuse("an empty name", struct.pack("<HH", 0, 1) + b"b", "a name has 0 bytes, below 1")
    refuse("a name of 256", struct.pack("<HH", 256, 0) + b"n" * 256, "a name has 256 bytes, above 255")
    refuse("a name beyond the end", struct.pack("<HH", 2, 0) + b"a", "an entry needs 6 bytes, 5 are there")
    refuse("a value beyond the end", struct.pack("<HH", 1, 2) + b"ab", "an entry needs 7 bytes, 6 are there")
    refuse("the largest sizes", struct.pack("<HH", 0xFFFF, 0xFFFF), "a name has 65535 bytes, above 255")
    refuse("the largest value", struct.pack("<HH", 1, 0xFFFF) + b"a", "an entry needs 65540 bytes, 5 are there")
    refuse("bytes after the last entry", entry + b"\x00", "an entry starts with 4 bytes, 1 is there")
    refuse("zeros after the last entry", entry + bytes(4), "a name has 0 bytes, below 1")
    for code in (0x00, 0x09, 0x0A, 0x0D, 0x1F, 0x7F):
        refuse(f"control character {code:#04x} in a name",
               struct.pack("<HH", 3, 0) + b"a" + bytes([code]) + b"b",
               f"a name has control character {code:#04x} at 1")
    refuse("a name that is not UTF-8", struct.pack("<HH", 2, 0) + b"\xc3\x28", "a name is not UTF-8")
    refuse("a name cut inside a character", struct.pack("<HH", 1, 0) + b"\xc3", "a name is not UTF-8")
    refuse("a name in overlong UTF-8", struct.pack("<HH", 2, 0) + b"\xc0\xaf", "a name is not UTF-8")
    refuse("a name with a surrogate", struct.pack("<HH", 3, 0) + b"\xed\xa0\x80", "a name is not UTF-8")
    refuse("64 KiB and one byte",
           header_entry("a", bytes(32_768)) + header_entry("b", bytes(65_537 - 10 - 32_768)),
           "headers have 65537 bytes, above 65536")
    return {"from": "docs/formats.md, section 1, headers", "good": good, "bad": bad}


def view_file():
    fields = []
    offset = 0
    for name, kind in (
        ("subject", "bytes"), ("payload", "bytes"), ("reply_to", "bytes"), ("headers", "bytes"),
        ("key", "bytes"), ("sequence", "u64"), ("timestamp_ns", "u64"), ("token", "u64"),
        ("delivery_count", "u32"), ("lost_before", "u32"), ("status", "u32"),
        ("subscription_id", "u32"), ("flags", "u32"), ("reserved0", "u32"), ("tag", "u64"),
        ("publisher", "u64"),
    ):
        size = {"bytes": 16, "u64": 8, "u32": 4}[kind]
        fields.append({"name": name, "offset": offset, "size": size, "type": kind})
        offset += size
    assert offset == 144
    return {
        "from": "docs/formats.md, section 3",
        "struct": "fastmq_message",
        "size": offset,
        "alignment": 8,
        "pointer_size": 8,
        "fields": fields,
        "flags": {"REDELIVERED": 1, "MORE": 2, "END": 4, "REQUEST": 8},
    }


FILES = {
    "record.json": record_file,
    "control.json": control_file,
    "status.json": status_file,
    "headers.json": headers_file,
    "view.json": view_file,
}


def run(program, files):
    """Writes the files, each by its maker, or compares them when asked to by --check."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(f"usage: {program} [--check]")
    failed = 0
    for name, make in files.items():
        path = os.path.join(HERE, name)
        # One line per case: a change shows as the lines that changed.
        text = dump(make())
        if not check:
            with open(path, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            continue
        try:
            with open(path, encoding="utf-8", newline="") as file:
                same = file.read() == text
        except FileNotFoundError:
            same = False
        if not same:
            failed += 1
            print(f"tests/vectors/{name} differs from what {program} makes; run make vectors")
    sys.exit(1 if failed else 0)


def dump(value):
    parts = []
    for key, item in value.items():
        if isinstance(item, list):
            lines = ",\n".join("    " + json.dumps(entry, ensure_ascii=False) for entry in item)
            parts.append(f'  "{key}": [\n{lines}\n  ]')
        else:
            parts.append(f'  "{key}": {json.dumps(item, ensure_ascii=False)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    run("generate.py", FILES)
