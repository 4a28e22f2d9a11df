"""Connects to the port that {port} stands for and prints how that ended."""

import errno
import socket

try:
    socket.create_connection(("127.0.0.1", {port}), timeout=5).close()
    print("connected")
except OSError as error:
    print(errno.errorcode.get(error.errno, error))
