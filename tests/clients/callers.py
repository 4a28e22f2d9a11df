"""Signs in and asks once, again and again, until its input ends; then says how that went, as JSON.

What the gate says at the end of a session is no lost connection: it was let in and told. A connection is lost if it was
refused, or came to an end without a word.
"""

import json
import select
import sys
import time

import psycopg

served, told, lost = 0, 0, []
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        with psycopg.connect("", connect_timeout=60) as connection:
            connection.execute("SELECT title FROM products").fetchall()
        served += 1
    except psycopg.Error as error:
        if error.sqlstate or "FATAL" in str(error):
            told += 1
        else:
            lost.append({"at": time.monotonic(), "why": str(error)})
        time.sleep(0.01)
print(json.dumps({"served": served, "told": told, "lost": lost}))
