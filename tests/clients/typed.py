"""The same bytes as a parameter of two types, over the wire: a number that no row is above, and one that most are."""

import os
import socket
import struct

stream = socket.create_connection((os.environ["PGHOST"], int(os.environ["PGPORT"])))
incoming = stream.makefile("rb")


def send(kind, body):
    stream.sendall(kind + struct.pack("!i", len(body) + 4) + body)


def until_ready():
    while True:
        kind, length = struct.unpack("!ci", incoming.read(5))
        body = incoming.read(length - 4)
        if kind == b"E":
            print("refused", flush=True)
        if kind == b"C":
            print(body.rstrip(b"\0").decode(), flush=True)
        if kind == b"Z":
            return


parameters = b"".join(part.encode() + b"\0" for part in ("user", "app", "database", "shop")) + b"\0"
stream.sendall(struct.pack("!ii", len(parameters) + 8, 196608) + parameters)
until_ready()
for name, oid in (("int4", 23), ("float4", 700)):
    print(name, flush=True)
    send(b"P", b"\0DELETE FROM store.wishes WHERE id > $1\0" + struct.pack("!hi", 1, oid))
    value = struct.pack("!i", 4) + b"\x40\0\0\0"
    send(b"B", b"\0\0" + struct.pack("!hhh", 1, 1, 1) + value + struct.pack("!h", 0))
    send(b"E", b"\0" + struct.pack("!i", 0))
    send(b"S", b"")
    until_ready()
