"""Prepared statements and cursors whose names change what they stand for. Prints every game that shows a title."""

import os
import socket
import struct

MASKED = "SELECT title FROM products WHERE id = 1"
PLAIN = "SELECT city FROM store.branches WHERE id = 1"


def message(kind, body=b""):
    return kind + struct.pack("!I", len(body) + 4) + body


def text(*values):
    return b"".join(value.encode() + b"\0" for value in values)


def query(statement):
    return message(b"Q", text(statement))


def parse(name, statement):
    return message(b"P", text(name, statement) + b"\0\0")


def bind(portal, statement):
    return message(b"B", text(portal, statement) + b"\0\0\0\0\0\0")


def execute(portal):
    return message(b"E", text(portal) + b"\0\0\0\0")


def close(kind, name):
    return message(b"C", kind + text(name))


SYNC = message(b"S")


def play(*steps):
    """What a session answers to the last of these steps; each ends in one ReadyForQuery."""
    with socket.create_connection((os.environ["PGHOST"], int(os.environ["PGPORT"])), timeout=20) as stream:
        body = struct.pack("!I", 196608) + text("user", "app", "database", "shop") + b"\0"
        stream.sendall(struct.pack("!I", len(body) + 4) + body)
        reader = stream.makefile("rb")
        answer = until_ready(reader)
        for step in steps:
            stream.sendall(step)
            answer = until_ready(reader)
        return answer


def until_ready(reader):
    """The rows up to ReadyForQuery: what a refusal says is no row."""
    seen = b""
    while head := reader.read(5):
        body = reader.read(struct.unpack("!I", head[1:])[0] - 4)
        if head[:1] == b"Z":
            break
        if head[:1] == b"D":
            seen += body
    return seen


LONG = "n" * 63
GAMES = {
    "names are told apart by 63 bytes": [
        parse(LONG + "x", PLAIN) + SYNC,
        close(b"S", LONG + "y") + SYNC,
        parse(LONG + "y", MASKED) + SYNC,
        bind("", LONG + "x") + execute("") + SYNC,
    ],
    "so are portals": [
        query("BEGIN"),
        parse("p", PLAIN) + parse("m", MASKED) + bind(LONG + "x", "p") + SYNC,
        close(b"P", LONG + "y") + SYNC,
        bind(LONG + "y", "m") + SYNC,
        execute(LONG + "x") + SYNC,
    ],
    "EXECUTE means what the name stands for when it runs": [
        query(f"PREPARE a AS {PLAIN}"),
        parse("e", "EXECUTE a") + SYNC,
        query("DEALLOCATE a"),
        query(f"PREPARE a AS {MASKED}"),
        bind("", "e") + execute("") + SYNC,
    ],
    "not when it was bound": [
        query(f"PREPARE a AS {PLAIN}"),
        query("BEGIN"),
        parse("e", "EXECUTE a") + bind("p", "e") + SYNC,
        query(f"DEALLOCATE a; PREPARE a AS {MASKED}"),
        execute("p") + SYNC,
    ],
    "so does FETCH": [
        query(f"BEGIN; DECLARE c CURSOR FOR {PLAIN}"),
        parse("f", "FETCH 1 FROM c") + SYNC,
        query(f"CLOSE c; DECLARE c CURSOR FOR {MASKED}"),
        bind("", "f") + execute("") + SYNC,
    ],
    "a failed text leaves what it prepared": [
        query(f"PREPARE a AS {PLAIN}"),
        query("DEALLOCATE a"),
        query(f"PREPARE a AS {MASKED}; SELECT 1 / 0"),
        query("EXECUTE a"),
    ],
    "and what it prepared anew": [
        query(f"PREPARE a AS {PLAIN}"),
        query(f"DEALLOCATE a; PREPARE a AS {MASKED}; SELECT 1 / 0"),
        query("EXECUTE a"),
    ],
    "and the cursors that it held": [
        query(f"BEGIN; DECLARE c CURSOR FOR {PLAIN}; COMMIT"),
        query(f"BEGIN; DECLARE c CURSOR WITH HOLD FOR {MASKED}; COMMIT; SELECT 1 / 0"),
        query("FETCH ALL FROM c"),
    ],
}

for name, steps in GAMES.items():
    if b"Tide" in play(*steps):
        print(name)
