"""A trigger puts a temporary table in front of another, which nobody sees but the server."""

import asyncio

import asyncpg
import psycopg

MOVED = "SELECT v.e FROM (SELECT * FROM wide RIGHT JOIN public.customers p ON true) v (a, b, c, d, e)"
CARD = "4111111111111111"


def told(how, rows):
    print(how, "shows in clear" if CARD in str(rows) else "hides")


with psycopg.connect("", autocommit=True) as connection:
    connection.execute("INSERT INTO log VALUES (1)")
    told("simple", connection.execute(MOVED).fetchall())

with psycopg.connect("", autocommit=True) as connection:
    connection.execute("INSERT INTO log VALUES (1)")
    told("binary", connection.execute(MOVED, binary=True, prepare=True).fetchall())
    with connection.transaction():
        connection.execute("DECLARE c CURSOR FOR " + MOVED)
        told("cursor", connection.execute("FETCH ALL FROM c").fetchall())


async def without_describe():
    connection = await asyncpg.connect()
    statement = await connection.prepare(MOVED)
    told("before", await statement.fetch())
    await connection.execute("INSERT INTO log VALUES (1)")
    told("asyncpg", await statement.fetch())
    await connection.close()


asyncio.run(without_describe())
