"""asyncpg: everything prepared, everything binary, TLS tried first."""

import asyncio

import asyncpg


def masked(card, mail):
    assert card.endswith("1111") and card != "4111111111111111", card
    assert mail.startswith("tok_"), mail


async def main():
    connection = await asyncpg.connect()
    masked(*await connection.fetchrow("SELECT card_number, email FROM customers WHERE id = $1", 1))
    statement = await connection.prepare("SELECT id, name, card_number, email FROM customers ORDER BY id")
    for _ in range(3):
        rows = await statement.fetch()
        assert len(rows) == 5
        masked(rows[0]["card_number"], rows[0]["email"])
    async with connection.transaction():
        seen = [row["id"] async for row in connection.cursor("SELECT id FROM orders ORDER BY id", prefetch=3)]
    assert seen == sorted(seen) and len(seen) == 10, seen
    try:
        await connection.execute("DROP TABLE orders")
        raise AssertionError("DROP TABLE went through")
    except asyncpg.InsufficientPrivilegeError as refusal:
        assert "no-drop" in str(refusal), refusal
    assert await connection.fetchval("SELECT 1") == 1
    rows = await connection.fetch("SELECT id, tags FROM store.branches ORDER BY id")
    assert rows[0]["tags"] == ["harbour", "first"], rows
    await connection.close()


asyncio.run(main())
print("ok")
