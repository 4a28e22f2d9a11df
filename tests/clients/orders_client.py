"""A gRPC client of the orders' service, by what protoc made of its .proto."""

import os
import queue
import sys

import grpc

sys.path.insert(0, os.environ["DIR"])

import orders_pb2  # noqa: E402
import orders_pb2_grpc  # noqa: E402

with open(os.environ["CA"], "rb") as ca:
    credentials = grpc.ssl_channel_credentials(ca.read())
orders = orders_pb2_grpc.OrdersStub(grpc.secure_channel(os.environ["ORDERS"], credentials))


def order(amount, article="cups"):
    customer = orders_pb2.Customer(name="Ada", card_number="4111111111111111")
    return orders_pb2.Order(article=article, amount=amount, customer=customer)


def told(call):
    try:
        for receipt in call():
            print(receipt.id, receipt.order.amount, receipt.order.customer.name, receipt.order.customer.card_number)
    except grpc.RpcError as error:
        print(error.code().name, error.details())


told(lambda: [orders.Create(order(100))])
told(lambda: [orders.Create(order(101))])
told(lambda: [orders.Create(order(1, "cups" * 1000), compression=grpc.Compression.Gzip)])
told(lambda: orders.Import(iter([order(1), order(2)])))


def one_after_another():
    """The second is sent when the first was answered, the third when the second was."""
    answered = queue.Queue()

    def sent():
        for message in [order(3), order(4), order(5, "fireworks")]:
            yield message
            answered.get()

    for receipt in orders.Import(sent()):
        yield receipt
        answered.put(receipt)


told(one_after_another)
