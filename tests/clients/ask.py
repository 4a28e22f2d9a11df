# Asks the name server {server} for {name}, over UDP and TCP, and prints who answered and with which code.
import socket, struct

labels = b"".join(bytes([len(label)]) + label.encode() for label in "{name}".split("."))
question = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"

datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.settimeout(20)
datagrams.sendto(question, ("{server}", 53))
answer, server = datagrams.recvfrom(2048)
print("udp", server[0], answer[3] & 15)

stream = socket.create_connection(("{server}", 53), 20)
stream.sendall(struct.pack("!H", len(question)) + question)
answer = stream.recv(2048)
print("tcp", stream.getpeername()[0], answer[5] & 15)
