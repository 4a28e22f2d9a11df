"""200 connections at once, each of which asks something of its own."""

import asyncio

import asyncpg

COUNT = 200


async def one(number, everyone):
    connection = await asyncpg.connect(timeout=90)
    await everyone.wait()
    answers = [await connection.fetchval("SELECT $1::int + 1", number) for _ in range(5)]
    card = await connection.fetchval("SELECT card_number FROM customers WHERE id = 1")
    await connection.close()
    return answers == [number + 1] * 5 and card != "4111111111111111"


async def main():
    everyone = asyncio.Barrier(COUNT)
    results = await asyncio.gather(*(one(number, everyone) for number in range(COUNT)))
    assert all(results), results


asyncio.run(main())
print("ok")
