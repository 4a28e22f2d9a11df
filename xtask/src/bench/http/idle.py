# Opens connections, asks each once, says so, and keeps them until its input ends: address, port, path, how many.
import socket, ssl, sys

address, port, path, number = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
# What is measured is memory: whom it talks to is settled by the address.
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
connections = []
for _ in range(number):
    connection = tls.wrap_socket(socket.create_connection((address, port)))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\n\r\n".encode())
    answer = connection.makefile("rb")
    status = answer.readline()
    if b" 200 " not in status:
        sys.exit(f"{status!r} instead of 200")
    fields = dict(line.split(b": ", 1) for line in iter(lambda: answer.readline().rstrip().lower(), b""))
    if b"content-length" in fields:
        answer.read(int(fields[b"content-length"]))
    else:
        while size := int(answer.readline(), 16):
            answer.read(size + 2)
        answer.readline()
    connections.append((connection, answer))
print("open", flush=True)
sys.stdin.read()
