"""The rows of `make bench ARGS="--set bindings"`: the Python and the Node package, and their peers.

A row names one of those of python/bench.py and of node/rows.mjs, which measure by themselves; how
they are run is in languages.py. Payloads have 16 bytes; a message counts once, sent and received.
"""

from rows import FASTMQ, Row, must, reach

PYZMQ, NATS_PY, ZEROMQ_JS, NATS_JS = "pyzmq", "nats-py", "zeromq.js", "nats.js"
PEERS = (PYZMQ, NATS_PY, ZEROMQ_JS, NATS_JS)


def alone(language, name, least, wished, relation=">="):
    bars = (must("value", relation, least), reach("value", relation, wished))
    return Row(f"{language.title()}, {name}", {FASTMQ: [language, name]}, bars, False)


def beside(language, name, ours, peers, least, wished):
    commands = {FASTMQ: [language, ours]}
    bars = ()
    for program, theirs in peers.items():
        commands[program] = [language, theirs]
        bars += (must(program, ">=", least), reach(program, ">=", wished))
    return Row(f"{language.title()}, {name}", commands, bars, False)


def python_rows():
    yield alone("python", "embedded: columnar batches, one way", 5e6, 10e6)
    yield alone("python", "embedded: message objects in batches, one way", 2e6, 4e6)
    yield alone("python", "request-reply: many in flight, by columns", 1e6, 2e6)
    asked = "request-reply: one awaited at a time"
    yield alone("python", f"{asked}, inline responder", 40e3, 80e3)
    yield alone("python", f"{asked}, to a server, unix", 8e3, 15e3)
    yield alone("python", f"{asked}, to a client of ours", 8e3, 15e3)
    ours = "embedded: message objects in batches, one way"
    zmq = {PYZMQ: "peer: pyzmq inproc, one way"}
    yield beside("python", "in one process, batches beside pyzmq inproc", ours, zmq, 5, 20)
    ours = "embedded: one message at a time through a publisher, one way"
    yield beside("python", "in one process, one by one beside pyzmq inproc", ours, zmq, 5, 20)
    ours = "over TCP to a server: publish and receive"
    nats = {NATS_PY: "peer: nats-py over TCP to nats-server, publish and receive"}
    yield beside("python", "over TCP to a server, publish and receive", ours, nats, 5, 20)
    name = "import to first message, over the interpreter's start, ms"
    yield alone("python", name, 30, 10, "<=")


def node_rows():
    yield alone("node", "embedded, batches of 1024, each way", 2e6, 4e6)
    yield alone("node", "embedded, columns of 1024, each way", 2e6, 4e6)
    yield alone("node", "embedded requests, many in flight in batches", 500e3, 1e6)
    yield alone("node", "embedded requests, many in flight, a promise each", 500e3, 1e6)
    ours = "fastmq over tcp, two clients, each way"
    peers = {
        NATS_JS: "nats over tcp, two clients, each way",
        ZEROMQ_JS: "zeromq push-pull tcp, each way",
    }
    yield beside("node", "over TCP, message by message, each way", ours, peers, 5, 10)
    ours = "fastmq over tcp, two clients, batches of 1024, each way"
    yield beside("node", "over TCP, in batches, each way", ours, peers, 5, 10)
    ours = "fastmq requests over tcp, two clients, 256 in flight"
    nats = {NATS_JS: "nats requests over tcp, two clients, 256 in flight"}
    yield beside("node", "requests over TCP, 256 in flight", ours, nats, 5, 10)
    ours = "embedded, batches of 1024, each way"
    zmq = {ZEROMQ_JS: "zeromq push-pull inproc, each way"}
    yield beside("node", "in one process, batches beside zeromq inproc", ours, zmq, 5, 10)


BINDING_ROWS = [*python_rows(), *node_rows()]
