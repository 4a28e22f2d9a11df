"""A gRPC client: calls of every kind, one that is refused, and one that it goes away from."""

import os

import grpc

with open(os.environ["CA"], "rb") as ca:
    credentials = grpc.ssl_channel_credentials(ca.read())
channel = grpc.secure_channel(f"127.0.0.1:{os.environ['GRPC_PORT']}", credentials)


def method(kind, name):
    return getattr(channel, kind)(f"/acme.Echo/{name}")


def refused(name):
    try:
        method("unary_unary", name)(b"x")
    except grpc.RpcError as error:
        print(name, error.code().name, error.details())


reply, call = method("unary_unary", "Say").with_call(b"you", metadata=(("authorization", "mine"),))
print(reply, [pair.value for pair in call.trailing_metadata() if pair.key == "x-signed"])
print(list(method("unary_stream", "Down")(b"3")))
print(method("stream_unary", "Up")(iter([b"one", b"two" * 100_000])))
talk = method("stream_stream", "Both")
print(list(talk(iter([b"a", b"b"]))))
refused("Drop")
refused("Fail")
waiting = method("unary_stream", "Wait")(b"")
print(next(waiting))
waiting.cancel()
print(method("unary_unary", "WasCancelled")(b""))
