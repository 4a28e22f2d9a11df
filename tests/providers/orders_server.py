"""The service of policies/http/orders.proto, over TLS, by what protoc made of it."""

import sys
from concurrent import futures

import grpc

address, certificate, key, stubs = sys.argv[1:]
sys.path.insert(0, stubs)

import orders_pb2  # noqa: E402
import orders_pb2_grpc  # noqa: E402


class Orders(orders_pb2_grpc.OrdersServicer):
    def Create(self, request, context):
        return orders_pb2.Receipt(id="r-1", order=request)

    def Import(self, request_iterator, context):
        for number, order in enumerate(request_iterator):
            yield orders_pb2.Receipt(id=f"r-{number}", order=order)


server = grpc.server(futures.ThreadPoolExecutor(8))
orders_pb2_grpc.add_OrdersServicer_to_server(Orders(), server)
with open(key, "rb") as key, open(certificate, "rb") as certificate:
    credentials = grpc.ssl_server_credentials([(key.read(), certificate.read())])
server.add_secure_port(address, credentials)
server.start()
server.wait_for_termination()
