"""Tables that lose a column when somebody's temporary relations go: what stands behind it moves."""

import psycopg
from psycopg import errors

MADE = ("CREATE TEMP TABLE x (q int)", "CREATE TABLE perm (a int, b x)")
MOVED = (
    "SELECT v.e FROM (SELECT * FROM {} RIGHT JOIN public.customers p ON true) v (a, b, c, d, e)"
)
CARD = "4111111111111111"


def look(connection, text, parameters=None):
    try:
        cursor = connection.execute(text, parameters)
        rows = cursor.fetchall() if cursor.description else []
    except errors.InsufficientPrivilege:
        return
    if any(CARD in str(row) for row in rows):
        print("shown by", text)


def made(connection, transaction=False):
    if transaction:
        connection.execute("BEGIN")
    for text in MADE:
        connection.execute(text)


with psycopg.connect("", autocommit=True) as own:
    for transaction in (False, True):
        made(own, transaction)
        look(own, "SELECT count(*) FROM perm")
        own.execute("DISCARD TEMP")
        look(own, MOVED.format("perm"))
        if transaction:
            own.execute("COMMIT")
        look(own, MOVED.format("perm"))
        own.execute("DROP TABLE IF EXISTS perm")

    # Prepared while the column was there, by the protocol and by SQL.
    made(own)
    try:
        own.execute("PREPARE moved AS " + MOVED.format("perm"))
    except errors.InsufficientPrivilege:
        pass
    else:
        own.execute("DISCARD TEMP")
        look(own, "EXECUTE moved")
    look(own, "DROP TABLE IF EXISTS perm")

# Another's session ends, and the catalog was read before.
with psycopg.connect("", autocommit=True) as reader:
    with psycopg.connect("", autocommit=True) as maker:
        made(maker)
        look(reader, "SELECT a FROM perm")
        look(reader, MOVED.format("perm"))
    for _ in range(20):
        look(reader, MOVED.format("perm"))
    look(reader, "DROP TABLE IF EXISTS perm")

    # Another drops the type of a column of a table that is temporary.
    with psycopg.connect("", autocommit=True) as maker:
        maker.execute("CREATE TYPE kind AS ENUM ('a')")
        reader.execute("CREATE TEMP TABLE t (a int, b kind)")
        maker.execute("DROP TYPE kind CASCADE")
    look(reader, MOVED.format("t"))

# What written out rows make of a star.
with psycopg.connect("", autocommit=True) as own:
    for text in (
        "SELECT v.b FROM (SELECT id, card_number FROM public.customers) s, LATERAL (VALUES (s.*, 'x')) v (a, b)",
        "WITH v (a, b) AS (VALUES ((SELECT c FROM customers c LIMIT 1).*, 'x')) SELECT b FROM v",
        "MERGE INTO customers t USING (customers c CROSS JOIN (SELECT 1000, 'x') n) ON false "
        "WHEN NOT MATCHED THEN INSERT (id, email, name) VALUES (n.*, c.card_number)",
    ):
        look(own, text)
    look(own, "SELECT name FROM customers")
