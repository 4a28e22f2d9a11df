"""Migrations that lock a table before they alter it, while the same account reads that table in other sessions."""

import threading

import psycopg
from psycopg import errors

done = threading.Event()
seen, failed = [], []


def read():
    with psycopg.connect("", autocommit=True) as connection:
        while not done.is_set():
            try:
                seen.append(connection.execute("SELECT title, cents FROM products WHERE id = 1").fetchone())
            except errors.InsufficientPrivilege:
                # Where values come from can't be told while a change is open.
                pass
            except Exception as error:
                failed.append(error)
                return


readers = [threading.Thread(target=read) for _ in range(3)]
for reader in readers:
    reader.start()
try:
    with psycopg.connect("", autocommit=True) as connection:
        for n in range(5):
            before = len(seen)
            connection.execute("BEGIN")
            connection.execute("LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
            connection.execute("SELECT pg_sleep(0.3)")
            connection.execute(f"ALTER TABLE products ADD note{n} text")
            connection.execute("COMMIT")
            while len(seen) == before and not failed:
                pass
finally:
    done.set()
for reader in readers:
    reader.join()
assert not failed, failed
