"""psycopg 3: prepared statements, pipelines, server-side cursors, binary results and COPY, all through masks."""

import psycopg
from psycopg import errors

RAW, MAIL = "4111111111111111", "ada@example.com"


def masked(card, mail="tok_"):
    assert card.endswith("1111") and card != RAW, card
    assert mail.startswith("tok_"), mail


with psycopg.connect("", autocommit=True) as connection:
    for binary in (False, True):
        for prepare in (False, True):
            cursor = connection.cursor(binary=binary)
            cursor.execute("SELECT card_number, email FROM customers WHERE id = %s", (1,), prepare=prepare)
            masked(*cursor.fetchone())

    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int", (number,)) for number in range(20)]
        card = connection.execute("SELECT card_number AS nothing, email AS more FROM customers WHERE id = 1")
    assert [cursor.fetchone()[0] for cursor in cursors] == list(range(20))
    masked(*card.fetchone())

    try:
        with connection.pipeline():
            before = connection.execute("SELECT 1")
            connection.execute("DROP TABLE orders")
            connection.execute("SELECT 2")
        raise AssertionError("a pipeline with DROP TABLE went through")
    except errors.InsufficientPrivilege as refusal:
        assert 'no-drop' in str(refusal), refusal
    assert connection.execute("SELECT count(*) FROM orders").fetchone()[0] > 0

    with connection.transaction():
        with connection.cursor(name="server_side") as cursor:
            cursor.itersize = 2
            cursor.execute("SELECT card_number, email FROM customers ORDER BY id")
            rows = cursor.fetchall()
    assert len(rows) == 5
    masked(*rows[0])

    for options in ("", " (FORMAT csv)", " (FORMAT binary)"):
        with connection.cursor().copy(f"COPY customers (email, card_number) TO STDOUT{options}") as copy:
            data = b"".join(copy)
        assert RAW.encode() not in data and MAIL.encode() not in data, data
        assert b"1111" in data and b"tok_" in data, data

    with connection.cursor().copy("COPY products (title, cents) FROM STDIN") as copy:
        for number in range(1000):
            copy.write_row((f"copied {number}", number + 1))
    copied = connection.execute("SELECT count(*) FROM products WHERE title LIKE 'copied %'").fetchone()[0]
    assert copied == 1000, copied
    connection.execute("DELETE FROM products WHERE title LIKE 'copied %'")

    try:
        connection.execute("DELETE FROM orders")
        raise AssertionError("DELETE without WHERE went through")
    except errors.InsufficientPrivilege as refusal:
        assert 'where-required' in str(refusal), refusal
    assert connection.execute("SELECT 1").fetchone() == (1,)

print("ok")
