"""A WebSocket server of tests: says who wrote, and back what was written."""

import asyncio
import json
import sys

from websockets.asyncio.server import serve


async def talk(socket):
    async for message in socket:
        answer = {"user": "Ada", "card": "4111111111111111", "said": message}
        await socket.send(json.dumps(answer))


async def main():
    async with serve(talk, "127.0.0.1", int(sys.argv[1]), subprotocols=["talk"]) as server:
        await server.serve_forever()


asyncio.run(main())
