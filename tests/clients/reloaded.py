"""A view that a session from before a reload of the bundle changes, read by one from after it."""

import os
import time

import psycopg

PLAIN = "CREATE OR REPLACE VIEW public.kept AS SELECT id, name AS shown FROM customers"
CARD = "CREATE OR REPLACE VIEW public.kept AS SELECT id, card_number AS shown FROM customers"
LOOK = "SELECT shown FROM kept ORDER BY id"
DIRECTORY = "${directory}"

before = psycopg.connect("", autocommit=True)
before.execute(PLAIN)
open(os.path.join(DIRECTORY, "open"), "w").close()
while not os.path.exists(os.path.join(DIRECTORY, "reloaded")):
    time.sleep(0.05)
after = psycopg.connect("", autocommit=True)
for changer, reader in ((before, after), (after, before)):
    changer.execute(PLAIN)
    print(*reader.execute(LOOK).fetchall())
    changer.execute(CARD)
    print(*reader.execute(LOOK).fetchall())
