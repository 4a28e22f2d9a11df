"""Signs in and asks, again and again, until its input has ended and it was answered; then says how often it was.

It gives up when its input has been at its end for a minute.
"""

import select
import sys
import time

import psycopg


def input_has_ended():
    return bool(select.select([sys.stdin], [], [], 0)[0])


served = 0
give_up = None
while not (input_has_ended() and served):
    if input_has_ended():
        give_up = give_up or time.monotonic() + 60
        if time.monotonic() > give_up:
            break
    try:
        with psycopg.connect("", connect_timeout=2) as connection:
            while not (input_has_ended() and served):
                connection.execute("SELECT title FROM products").fetchall()
                served += 1
    except psycopg.Error:
        # An agent that is away refuses at once.
        time.sleep(0.01)
print(served)
