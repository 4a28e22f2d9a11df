"""Many rows of many columns, inserted in one pipeline by two drivers."""

import asyncio

import asyncpg
import psycopg

ROWS, COLUMNS = 20_000, 60


def rows():
    return ([f"{row}.{column}" for column in range(COLUMNS)] for row in range(ROWS))


async def by_asyncpg():
    connection = await asyncpg.connect()
    values = ", ".join(f"${n}" for n in range(1, COLUMNS + 1))
    await connection.executemany(f"INSERT INTO store.wide VALUES ({values})", rows())
    await connection.close()


with psycopg.connect("", autocommit=True) as connection:
    values = ", ".join(["%s"] * COLUMNS)
    with connection.pipeline(), connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO store.wide VALUES ({values})", rows())
asyncio.run(by_asyncpg())
print("ok")
