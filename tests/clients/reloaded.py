"""A view that a session from before a reload of the bundle changes, read by one from after it."""

import os
import time

import psycopg

PLAIN = "CREATE VIEW public.{} AS SELECT id, name AS shown FROM customers"
CARD = "CREATE OR REPLACE VIEW public.{} AS SELECT id, card_number AS shown FROM customers"
LOOK = "SELECT shown FROM {} ORDER BY id"
DIRECTORY = "${directory}"

before = psycopg.connect("", autocommit=True)
open(os.path.join(DIRECTORY, "open"), "w").close()
while not os.path.exists(os.path.join(DIRECTORY, "reloaded")):
    time.sleep(0.05)
after = psycopg.connect("", autocommit=True)
# A view of its own each time: none that shows a card can be changed back.
for view, changer, reader in (("earlier", before, after), ("later", after, before)):
    changer.execute(PLAIN.format(view))
    print(*reader.execute(LOOK.format(view)).fetchall())
    changer.execute(CARD.format(view))
    print(*reader.execute(LOOK.format(view)).fetchall())
