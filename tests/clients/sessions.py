"""Signs in and asks, again and again, until its input ends; then says how often it was answered."""

import select
import sys
import time

import psycopg

served = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        with psycopg.connect("", connect_timeout=2) as connection:
            while not select.select([sys.stdin], [], [], 0)[0]:
                connection.execute("SELECT title FROM products").fetchall()
                served += 1
    except psycopg.Error:
        # An agent that is away refuses at once.
        time.sleep(0.01)
print(served)
