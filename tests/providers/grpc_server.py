"""A gRPC server of tests, over TLS: every way of streaming, with bytes as messages."""

import sys
import threading
from concurrent import futures

import grpc

cancelled = threading.Event()


def say(request, context):
    signed = dict(context.invocation_metadata()).get("authorization", "").split(" ")[0]
    context.set_trailing_metadata((("x-signed", signed),))
    return b"hello " + request


def down(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def up(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield request


def wait(request, context):
    context.add_callback(cancelled.set)
    yield b"waiting"
    cancelled.wait()


def was_cancelled(request, context):
    return b"yes" if cancelled.wait(20) else b"no"


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


METHODS = {
    "Say": grpc.unary_unary_rpc_method_handler(say),
    "Drop": grpc.unary_unary_rpc_method_handler(say),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Wait": grpc.unary_stream_rpc_method_handler(wait),
    "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
}


def main():
    port, certificate, key = sys.argv[1:]
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("acme.Echo", METHODS),))
    with open(key, "rb") as key, open(certificate, "rb") as certificate:
        credentials = grpc.ssl_server_credentials([(key.read(), certificate.read())])
    server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    server.wait_for_termination()


main()
