#!/usr/bin/env python3
"""A second reading of docs/protocol.md: what a stranger's client would have.

Decodes every golden vector, compares, encodes again; shares no code with the library or with the
generator of the vectors. Prints what differs and exits 1, else one line.
"""

import json
import os
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
VECTORS = json.load(open(os.path.join(HERE, "../vectors/protocol.json"), encoding="utf-8"))
FRAME_MAX = 1_187_840
NUMBER, TEXT, BYTES = range(3)
# id: (name, type, smallest, largest): of a number its value, else its size.
FIELDS = {
    1: ("VERSIONS", NUMBER, 0, None), 2: ("VERSION", NUMBER, 0, None),
    3: ("CAPABILITIES", NUMBER, 0, None), 4: ("REQUIRED", NUMBER, 0, None),
    5: ("NAME", TEXT, 0, 255), 6: ("TOKEN", BYTES, 0, 4096),
    7: ("FRAME_MAX", NUMBER, 8192, None), 8: ("PAYLOAD_MAX", NUMBER, 0, None),
    9: ("CREDIT", NUMBER, 0, None), 10: ("ALIAS_MAX", NUMBER, 0, None),
    11: ("ALIAS_BYTES_MAX", NUMBER, 0, None), 12: ("SUBSCRIPTIONS_MAX", NUMBER, 0, None),
    13: ("PING_NS", NUMBER, 0, None), 14: ("CLIENT", NUMBER, 0, None),
    15: ("INSTANCE", NUMBER, 0, None), 16: ("SENTENCE", TEXT, 0, 1024),
    17: ("SUBJECT", TEXT, 0, 1024), 18: ("PUBLISHER", NUMBER, 1, None),
    19: ("PATTERN", TEXT, 1, 1024), 20: ("GROUP", TEXT, 1, 255), 21: ("WEIGHT", NUMBER, 0, None),
    22: ("POLICY", NUMBER, 0, None), 23: ("CAPACITY", NUMBER, 0, None),
    24: ("REPLIES", NUMBER, 1, 1_048_576), 25: ("COUNT", NUMBER, 0, None),
    26: ("DEADLINE_NS", NUMBER, 0, None), 27: ("SERVERS", TEXT, 0, 4096),
    28: ("ADDRESS", TEXT, 0, 255), 29: ("RINGS", BYTES, 16, 16),
}
IDS = {name: number for number, (name, *_) in FIELDS.items()}
REQUIRED = {16: 1, 17: 2, 22: 19, 24: 17, 26: 24}
SERVER_TAKES = {1, 2, 3, 19, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32}
CLIENT_TAKES = {1, 2, 3, 19, 20, 21, 24, 25, 26, 27, 28, 29, 30, 31}
NAMES = {  # kind: what the second eight bytes are, to the server and to the client
    1: (("operation", "subject"), ("subscription", "subject")),
    2: (("correlation", "subject"), ("subscription", "subject")),
    3: (("token64",), ("correlation", "responder")),
    16: (("magic64",),) * 2, 17: (("magic64",),) * 2, 19: (("operation", "reason"),) * 2,
    20: (("subscription", "event"),) * 2, 21: (("operation", None),) * 2,
    22: (("subscription", "operation"),) * 2, 23: (("subscription", "operation"),) * 2,
    24: (("alias", None),) * 2, 25: (("limit64",),) * 2,
    26: (("correlation", None), ("token64",)), 27: (("correlation", None), ("token64",)),
    28: (("value64",),) * 2, 29: (("value64",),) * 2,
    30: (("subscription", "operation"), (None, None)), 31: ((None, None),) * 2,
    32: ((None, "operation"),) * 2,
}
MAGIC = b"FASTMQW1"


class Refused(Exception):
    pass


def check(holds, reason):
    if not holds:
        raise Refused(reason)


def decode(data, to, state="READY", frame_max=FRAME_MAX):
    """The kind, the values and the size of the first frame."""
    length, kind, code, flags = struct.unpack_from("<IBBH", data)
    if state == "WAITING" and to == "server":
        check(kind == 16 and data[8:16] == MAGIC, "MAGIC")
    check(length >= 16, "LENGTH")
    check(length <= (frame_max if kind in (1, 2, 3) and state == "READY" else 8192), "LENGTH")
    check(1 <= kind <= 3 or 16 <= kind <= 33 or 64 <= kind <= 127, "KIND")
    if 64 <= kind <= 127 and state == "READY":
        return "none", {}, length
    ready = SERVER_TAKES if to == "server" else CLIENT_TAKES
    waiting = {16} if to == "server" else {17, 19}
    check(kind in (ready if state == "READY" else waiting), "STATE")
    values = {}
    names = NAMES[kind][to == "client"]
    numbers = struct.unpack_from("<Q" if len(names) == 1 else "<II", data, 8)
    for name, number in zip(names, numbers):
        if name:
            values[name.removesuffix("64")] = number
    check(not flags & 0xC000, "FLAGS")
    body = data[16:length]
    (message if kind <= 3 else control)(kind, to, code, flags, body, values)
    if kind == 17:
        check(values.pop("magic") == int.from_bytes(MAGIC, "little"), "MAGIC")
    values.pop("magic", None)
    return kind, values, length


def message(kind, to, code, flags, body, values):
    check(not flags & 1 << 6 and not (kind == 3 and flags & 1 << 7), "FLAGS")
    at, words = 0, {}
    for bit in (0, 1, 2, 3, 4, 5, 9, 10, 11):
        if flags & 1 << bit:
            check(at + 8 <= len(body), "SIZES")
            words[bit] = body[at:at + 8]
            at += 8
    number = lambda bit: struct.unpack("<Q", words[bit])[0]
    check(not (kind == 2 and to == "client" and 1 not in words), "SIZES")
    for bit, name in ((0, "sequence"), (2, "ttl_ns"), (3, "timestamp_ns"), (9, "publisher")):
        if bit in words:
            values[name] = number(bit)
    if 1 in words and kind == 2 and to == "client":
        values["token"] = number(1)
    if 4 in words and to == "client":
        values["lost"] = number(4)
    if 10 in words and kind == 2:
        values["many"] = dict(zip(("answers", "credit"), struct.unpack("<II", words[10])))
    if 11 in words:
        bits, size = struct.unpack("<II", words[11])
        check(not bits >> 16, "FLAGS")
        check(size % 8 == 0 and at + size <= len(body), "SIZES")
        values["extension"] = dict(bits=bits, data=body[at:at + size])
        at += size
    sizes = struct.unpack("<HHI", words[5]) if 5 in words else (0, 0, 0)
    check(sizes[0] <= 1024 and sizes[2] <= 65_536, "SIZES")
    text = 0
    if kind == 3:
        if code:
            values["status"] = code
        if flags & 1 << 8:
            values["more"] = True
    elif flags & 1 << 7:
        values["alias"] = values.pop("subject")
    else:
        text = values.pop("subject")
        check(1 <= text <= 1024, "SIZES")
    payload = len(body) - at - text - sum(sizes)
    check(payload >= 0, "SIZES")
    parts = ("payload", payload), ("subject", text), ("reply_to", sizes[0]), ("key", sizes[1]), \
        ("headers", sizes[2])
    for name, size in parts:
        part = body[at:at + size]
        at += size
        if size:
            values[name] = part.decode() if name in ("subject", "reply_to") else part


def control(kind, to, code, flags, body, values):
    if kind in (19, 21, 31) and code:
        values["status"] = code
    known = {19: 1, 22: 3, 32: 1}.get(kind, 0)
    if flags & known:
        values["flags"] = flags & known
    at, seen = 0, {}
    while at < len(body):
        check(at + 8 <= len(body), "FIELDS")
        number, _, size = struct.unpack_from("<HHI", body, at)
        end = at + 8 + (size + 7 & ~7)
        check(end <= len(body), "FIELDS")
        value, at = body[at + 8:at + 8 + size], end
        check(number in FIELDS or number < 0x8000, "FIELD")
        if number not in FIELDS:
            continue
        name, form, smallest, largest = FIELDS[number]
        check(name not in seen, "FIELDS")
        if form == NUMBER:
            check(size == 8, "FIELDS")
            value = struct.unpack("<Q", value)[0]
        measure = value if form == NUMBER else size
        check(smallest <= measure and (largest is None or measure <= largest), "FIELDS")
        seen[name] = value.decode() if form == TEXT else value
    check(kind not in REQUIRED or FIELDS[REQUIRED[kind]][0] in seen, "FIELDS")
    if kind == 16 or kind == 17:
        frame_max, credit = seen.get("FRAME_MAX", FRAME_MAX), seen.get("CREDIT", 8_388_608)
        check(credit >= frame_max, "FIELDS")
    if to == "server" and kind in (22, 23, 30, 32):
        check(values["operation"] != 0, "OPERATION")
    if seen:
        values["fields"] = seen


def encode(kind, to, values):
    names, flags, words, tail = NAMES[kind][to == "client"], values.get("flags", 0), {}, b""
    payload, text = values.get("payload", b""), values.get("subject", "").encode()
    if kind <= 3:
        for bit, name in ((0, "sequence"), (1, "token"), (2, "ttl_ns"), (3, "timestamp_ns"),
                          (4, "lost"), (9, "publisher")):
            if name in values and (bit != 1 or kind == 2):
                words[bit] = struct.pack("<Q", values[name])
        parts = values.get("reply_to", "").encode(), values.get("key", b""), \
            values.get("headers", b"")
        if any(parts):
            words[5] = struct.pack("<HHI", *map(len, parts))
        if "many" in values:
            words[10] = struct.pack("<II", values["many"]["answers"], values["many"]["credit"])
        extension = values.get("extension", dict(bits=0, data=b""))
        if "extension" in values:
            words[11] = struct.pack("<II", extension["bits"], len(extension["data"]))
        flags = sum(1 << bit for bit in words) | ("alias" in values) << 7 \
            | ("more" in values) << 8
        body = b"".join(words[bit] for bit in sorted(words)) + extension["data"] + payload + text \
            + b"".join(parts)
    else:
        body = b""
        for name, value in values.get("fields", {}).items():
            form = FIELDS[IDS[name]][1]
            value = struct.pack("<Q", value) if form == NUMBER else \
                value.encode() if form == TEXT else value
            body += struct.pack("<HHI", IDS[name], 0, len(value)) + value + bytes(-len(value) % 8)
    numbers = dict(values, magic=int.from_bytes(MAGIC, "little"))
    if kind <= 2:
        numbers["subject"] = values.get("alias", len(text))
    eight = struct.pack("<Q", numbers[names[0][:-2]]) if len(names) == 1 else \
        struct.pack("<II", *(numbers[name] if name else 0 for name in names))
    data = struct.pack("<IBBH", 16 + len(body), kind, values.get("status", 0), flags)
    return data + eight + body + bytes(-len(body) % 8)


def plain(value, name=""):
    """As the vectors show values."""
    if isinstance(value, dict):
        return {key: plain(item, key) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    texts = ("sequence", "token", "ttl_ns", "timestamp_ns", "lost", "publisher", "limit", "value")
    return str(value) if type(value) is int and (name in texts or name.isupper()) else value


def outcome_of(case):
    """What the first frame of a connection leads to, where both sides have version 1 only."""
    kind, values, _ = decode(bytes.fromhex(case["hex"]), case["to"], "WAITING")
    if kind == 19:
        return "ERROR"
    fields = values["fields"]
    if kind == 16:
        lowest, highest = fields["VERSIONS"] & 0xFFFFFFFF, fields["VERSIONS"] >> 32
        check(lowest <= 1 <= highest, "VERSION")
        check(not fields.get("REQUIRED", 0) & ~0x7F, "CAPABILITY")
    else:
        check(fields["VERSION"] == 1, "VERSION")
    return "WELCOME"


def main():
    failed, count = 0, 0

    def expect(case, what, found, wanted):
        nonlocal failed, count
        count += 1
        if found != wanted:
            failed += 1
            print(f"{case['name']} ({case['to']}): {what} is {found}, not {wanted}")

    for case in VECTORS["good"] + VECTORS["ignored"]:
        data = bytes.fromhex(case["hex"])
        state = "WAITING" if data[4] in (16, 17) else "READY"
        kind, values, length = decode(data, case["to"], state)
        expect(case, "kind", kind, VECTORS["kinds"].get(case["kind"], "none"))
        wanted = {name: item for name, item in case["values"].items() if item not in (0, "")}
        wanted.pop("extension", None) if case in VECTORS["ignored"] else None
        found = {name: item for name, item in plain(values).items() if item not in (0, "")}
        found.pop("extension", None) if case in VECTORS["ignored"] else None
        if case in VECTORS["ignored"] and case["to"] == "server":
            found.pop("many", None)
        expect(case, "value", found, wanted)
        if case in VECTORS["good"]:
            expect(case, "size", -(-length // 8) * 8, len(data))
            expect(case, "encoding", encode(kind, case["to"], values).hex(), case["hex"])
    for case in VECTORS["bad"]:
        try:
            data = bytes.fromhex(case["hex"])
            found = decode(data, case["to"], frame_max=case["frame_max"])
        except Refused as refused:
            found = str(refused)
        expect(case, "reason", found, case["reason"])
    for case in VECTORS["handshakes"]:
        try:
            found = outcome_of(case)
        except Refused as refused:
            found = str(refused)
        expect(case, "outcome", found, case["outcome"])
    if failed:
        sys.exit(f"{failed} of {count} differ")
    print(f"{count} compared, none differs")


if __name__ == "__main__":
    main()
