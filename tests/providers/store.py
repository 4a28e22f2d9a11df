"""An object store and a table that take nobody's word but an access key's: every signature is computed anew by botocore, and
those of chunks by what Python has.

Listens on 127.0.0.1 and 127.0.0.2. Arguments: port, certificate, key, a file that names whom it takes (id, secret, token, each on a line), and one that it writes
to what it was asked.
"""

import hashlib
import hmac
import json
import ssl
import sys
import zlib
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

port, certificate, key, whom, asked = sys.argv[1:]
identity, secret, token = open(whom).read().split()
objects = {}
EMPTY = hashlib.sha256(b"").hexdigest()


class Refused(Exception):
    pass


def check(right, why):
    if not right:
        raise Refused(why)


def mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Chunks:
    """Takes aws-chunked bodies apart, and computes what they should have been signed with."""

    def __init__(self, body, date, scope, seed):
        self.body, self.date, self.scope, self.previous = body, date, scope, seed
        self.key = ("AWS4" + secret).encode()
        for step in scope.split("/"):
            self.key = mac(self.key, step)

    def line(self):
        line, self.body = self.body.split(b"\r\n", 1)
        return line.decode()

    def signed(self, kind, *lines):
        text = "\n".join([kind, self.date, self.scope, self.previous, *lines])
        self.previous = mac(self.key, text).hex()
        return self.previous

    def read(self, trailer):
        plain = b""
        while True:
            size, signature = self.line().split(";chunk-signature=")
            data, self.body = self.body[: int(size, 16)], self.body[int(size, 16) :]
            digest = hashlib.sha256(data).hexdigest()
            check(signature == self.signed("AWS4-HMAC-SHA256-PAYLOAD", EMPTY, digest), "a chunk's signature")
            plain += data
            if not data:
                break
            check(self.line() == "", "a chunk's end")
        if trailer:
            name, value = self.line().split(":")
            check(name == trailer == "x-amz-checksum-crc32", "the trailer's name")
            digest = hashlib.sha256(f"{name}:{value}\n".encode()).hexdigest()
            expected = "x-amz-trailer-signature:" + self.signed("AWS4-HMAC-SHA256-TRAILER", digest)
            check(self.line() == expected, "the trailer's signature")
            check(value == b64encode(zlib.crc32(plain).to_bytes(4, "big")).decode(), "the checksum")
        check(self.body == b"\r\n", "the end")
        return plain


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def verified(self, body):
        """The body without its coding, if whoever sent it has the key."""
        words = self.headers["authorization"].replace(",", "").split()
        credential, signed, signature = (word.split("=", 1)[1] for word in words[1:])
        id, scope = credential.split("/", 1)
        check(id == identity, "the access key's id")
        day, region, service, _ = scope.split("/")
        names = signed.split(";")
        check({"host", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"} <= set(names), "what is signed")
        check(self.headers["x-amz-security-token"] == token, "the token")
        url = f"https://{self.headers['host']}{self.path}"
        request = AWSRequest(self.command, url, {name: self.headers[name] for name in names})
        date = request.context["timestamp"] = self.headers["x-amz-date"]
        check(date.startswith(day), "the day")
        signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(id, secret, token), service, region)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        check(signer.signature(text, request) == signature, "the signature")
        digest = self.headers["x-amz-content-sha256"]
        if digest.startswith("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"):
            check("x-amz-decoded-content-length" in names, "what is signed of a coded body")
            length = int(self.headers["x-amz-decoded-content-length"])
            body = Chunks(body, date, scope, signature).read(self.headers["x-amz-trailer"])
            check(len(body) == length, "the length")
        elif digest == "UNSIGNED-PAYLOAD":
            check(service == "s3", "an unsigned payload")
        else:
            check(digest == hashlib.sha256(body).hexdigest(), "the digest")
        return body, service, digest

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def serve(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        target = urlsplit(self.path)
        try:
            body, service, digest = self.verified(body)
        except Exception as error:
            self.note(f"refused: {type(error).__name__} {error}")
            return self.answer(403, "application/xml", b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        self.note(f"{self.command} {self.path} {service} {digest[:40]} {len(body)}")
        name, query = unquote(target.path), parse_qs(target.query)
        if service != "s3":
            asked = json.loads(body)
            return self.answer(200, "application/x-amz-json-1.0", json.dumps({"Item": asked["Key"]}).encode())
        if self.command == "PUT":
            objects[name] = body
            return self.answer(200, "application/xml", b"")
        if "list-type" in query:
            prefix = f"{name}/" + query.get("prefix", [""])[0]
            keys = [key[len(name) + 1 :] for key in sorted(objects) if key.startswith(prefix)]
            listed = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys)
            return self.answer(200, "application/xml", f"<ListBucketResult>{listed}</ListBucketResult>".encode())
        if name not in objects:
            return self.answer(404, "application/xml", b"<Error><Code>NoSuchKey</Code></Error>")
        self.answer(200, "binary/octet-stream", objects[name])

    do_GET = do_PUT = do_POST = do_DELETE = serve

    def note(self, line):
        with open(asked, "a") as file:
            file.write(line + "\n")


tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
tls.load_cert_chain(certificate, key)


def listening(address):
    server = ThreadingHTTPServer((address, int(port)), Handler)
    # The handshake is for the thread that serves.
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server


table = listening("127.0.0.2")
Thread(target=table.serve_forever, daemon=True).start()
listening("127.0.0.1").serve_forever()
