"""Protocol 3.2 over TLS from the first byte, spoken by hand: what few drivers do yet."""

import os
import socket
import ssl
import struct

HOST, PORT = os.environ["PGHOST"], int(os.environ["PGPORT"])


def connect():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    stream = context.wrap_socket(socket.create_connection((HOST, PORT), timeout=60))
    assert stream.selected_alpn_protocol() == "postgresql", stream.selected_alpn_protocol()
    return stream


def exactly(stream, count):
    data = b""
    while len(data) < count:
        part = stream.recv(count - len(data))
        assert part, "the connection was closed"
        data += part
    return data


def messages(stream):
    while True:
        kind = exactly(stream, 1)
        length = struct.unpack("!I", exactly(stream, 4))[0]
        yield kind, exactly(stream, length - 4)
        if kind == b"Z":
            return


def start(stream, minor, options=b""):
    body = struct.pack("!HH", 3, minor) + b"user\0app\0database\0shop\0" + options + b"\0"
    stream.sendall(struct.pack("!I", len(body) + 4) + body)
    return dict(messages(stream))


def query(stream, text):
    body = text.encode() + b"\0"
    stream.sendall(b"Q" + struct.pack("!I", len(body) + 4) + body)


with connect() as stream:
    greeting = start(stream, 2)
    assert b"v" not in greeting, greeting
    process, secret = greeting[b"K"][:4], greeting[b"K"][4:]
    assert len(secret) == 32, len(secret)
    query(stream, "SELECT email, card_number FROM customers WHERE id = 1")
    row = dict(messages(stream))[b"D"]
    assert row.endswith(b"1111") and b"4111" not in row, row
    assert b"tok_" in row and b"ada@" not in row, row
    query(stream, "SELECT pg_sleep(60)")
    # A request that comes before the statement runs cancels nothing: asked until it is heeded.
    stream.settimeout(0.2)
    while True:
        with connect() as other:
            body = struct.pack("!HH", 1234, 5678) + process + secret
            other.sendall(struct.pack("!I", len(body) + 4) + body)
            other.recv(1)
        try:
            kind = stream.recv(1)
            break
        except TimeoutError:
            pass
    stream.settimeout(60)
    while kind != b"E":
        length = struct.unpack("!I", exactly(stream, 4))[0]
        exactly(stream, length - 4)
        kind = exactly(stream, 1)
    length = struct.unpack("!I", exactly(stream, 4))[0]
    error = exactly(stream, length - 4)
    assert b"C57014" in error, error
    assert [kind for kind, _ in messages(stream)] == [b"Z"]

# A version and an option that nobody speaks are negotiated down, not refused.
with connect() as stream:
    greeting = start(stream, 9, b"_pq_.unheard_of\x001\0")
    assert struct.unpack("!I", greeting[b"v"][:4])[0] in (2, 3 << 16 | 2), greeting[b"v"]
    assert b"_pq_.unheard_of" in greeting[b"v"], greeting[b"v"]

print("ok")
