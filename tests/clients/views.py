"""Answers out of step with what was asked, and views that change under way. Prints every game that shows a card."""

import os
import select
import socket
import struct

CARD = b"4111111111111111"


def message(kind, body=b""):
    return kind + struct.pack("!I", len(body) + 4) + body


def query(statement):
    return message(b"Q", statement.encode() + b"\0")


class Session:
    def __init__(self):
        self.stream = socket.create_connection((os.environ["PGHOST"], int(os.environ["PGPORT"])), timeout=20)
        body = struct.pack("!I", 196608) + b"user\0app\0database\0shop\0\0"
        self.stream.sendall(struct.pack("!I", len(body) + 4) + body)
        self.reader = self.stream.makefile("rb")
        self.until(b"Z")

    def until(self, kind):
        """Everything up to a message of this kind, or the session's end."""
        seen = b""
        while head := self.reader.read(5):
            seen += head + self.reader.read(struct.unpack("!I", head[1:])[0] - 4)
            if head[:1] == kind:
                break
        return seen

    def rest(self):
        self.stream.shutdown(socket.SHUT_WR)
        return self.reader.read()

    def ask(self, statement):
        self.stream.sendall(query(statement))
        return self.until(b"Z")


def copy_out_of_step():
    session = Session()
    session.stream.sendall(query("COPY orders FROM STDIN"))
    session.until(b"G")
    session.stream.sendall(
        message(b"d", b"bad\tbad\n") + message(b"S") + message(b"c")
        + query("SELECT card_number FROM customers ORDER BY id") + query("")
    )
    return session.until(b"Z") + session.until(b"Z") + session.rest()


def view_of_another_session():
    """The other session knows the view as it was; then it changes, unread, uncommitted, and committed."""
    changer, other = Session(), Session()
    made = changer.ask("CREATE VIEW public.changing AS SELECT id, name AS shown FROM customers")
    assert b"CREATE VIEW" in made, made
    look = "SELECT shown FROM changing ORDER BY id"
    before = other.ask(look)
    assert b"Ada" in before, before
    card = "CREATE OR REPLACE VIEW public.changing AS SELECT id, card_number AS shown FROM customers"
    changer.ask("BEGIN")
    made = changer.ask(card)
    assert b"CREATE VIEW" in made, made
    seen = changer.ask(look)
    changer.ask("ROLLBACK")
    assert b"Ada" in other.ask(look), "the view is as it was"
    changer.stream.sendall(query(card))
    seen += other.ask(look)
    changer.until(b"Z")
    after = other.ask(look)
    assert b"***1111" in after, after
    return seen + after


def refused(answer):
    return b"C42501" in answer or b"C55006" in answer


def view_that_changes_within_a_text():
    """What stands behind a change in one text is read by the definition that the change makes."""
    session = Session()
    made = session.ask("CREATE VIEW public.within AS SELECT id, name AS shown, card_number AS hidden FROM customers")
    assert b"CREATE VIEW" in made, made
    swap = "ALTER VIEW within RENAME COLUMN shown TO x; ALTER VIEW within RENAME COLUMN hidden TO shown; "
    for peek in (
        "SELECT count(*) FROM within WHERE shown LIKE '4111%'",
        "INSERT INTO products (title, cents) SELECT shown, 5 FROM within",
        "UPDATE orders SET quantity = 2 WHERE EXISTS (SELECT 1 FROM within WHERE shown LIKE '4111%')",
    ):
        answer = session.ask(swap + peek)
        if not refused(answer):
            return CARD
    return b""


def view_that_changes_before_its_turn():
    """What stands behind a statement that takes its time is read when its turn comes."""
    for n in range(3):
        one, other = Session(), Session()
        made = other.ask(f"CREATE VIEW public.turn{n} AS SELECT id, name AS shown FROM customers")
        assert b"CREATE VIEW" in made, made
        one.stream.sendall(query(f"SELECT pg_sleep(1); SELECT count(*) FROM turn{n} WHERE shown LIKE '4111%'"))
        other.ask(f"CREATE OR REPLACE VIEW public.turn{n} AS SELECT id, card_number AS shown FROM customers")
        if struct.pack("!I", 1) + b"1" in one.until(b"Z"):
            return CARD
    return b""


def waits_for_a_lock(one, holder, changer, sent, change):
    """What one sends needs a table that the holder has locked, and then a view, which the changer changes meanwhile."""
    holder.ask("BEGIN; LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
    one.stream.sendall(sent)
    while b"Lock" not in holder.ask("SELECT wait_event_type FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
        pass
    changer.stream.sendall(query(change))
    # The change is made now, or only when the statement before it was read: then it is no use to wait for it.
    changed = select.select([changer.stream], [], [], 2)[0]
    holder.ask("COMMIT")
    seen = one.until(b"Z")
    changer.until(b"Z")
    return seen, bool(changed)


def view_that_changes_before_it_is_read():
    """A statement that waits for a lock has yet to look up what stands behind that."""
    changer, holder = Session(), Session()
    look = "SELECT v.shown FROM products p, {} v WHERE p.id = 1"
    copy = "INSERT INTO products (title, cents) SELECT shown, 77 FROM {}"
    parsed = message(b"P", b"\0" + look.format("unread2").encode() + b"\0\0\0")
    bound = message(b"B", b"\0\0\0\0\0\0\0\0") + message(b"E", b"\0\0\0\0\0") + message(b"S")
    rounds = {
        "unread0": query(look.format("unread0")),
        "unread1": query(copy.format("unread1")),
        "unread2": parsed + bound,
        # The client does not wait for its answer: the server goes on all the same.
        "unread3": query(copy.format("unread3")) + message(b"X"),
    }
    for view, sent in rounds.items():
        made = changer.ask(f"CREATE VIEW public.{view} AS SELECT id, name AS shown FROM customers")
        assert b"CREATE VIEW" in made, made
        change = f"CREATE OR REPLACE VIEW public.{view} AS SELECT id, card_number AS shown FROM customers"
        holder.ask("DELETE FROM products WHERE cents = 77")
        seen, _ = waits_for_a_lock(Session(), holder, changer, sent, change)
        assert not seen or b"INSERT" in seen or b"Ada" in seen or refused(seen), seen
        for _ in range(1000 if b"INSERT" in sent else 0):
            titles = holder.ask("SELECT title FROM products WHERE cents = 77")
            if refused(seen) or b"SELECT 0" not in titles:
                seen += titles
                break
        if CARD in seen:
            return CARD
    return b""


def bind_behind_a_change():
    """What is bound behind a change of definitions is read by what that makes of them."""
    session = Session()
    session.ask("CREATE VIEW public.behind AS SELECT id, name AS shown FROM customers")
    session.stream.sendall(message(b"P", b"s\0SELECT shown FROM behind\0\0\0") + message(b"S"))
    session.until(b"Z")
    session.stream.sendall(
        query("CREATE OR REPLACE VIEW public.behind AS SELECT id, card_number AS shown FROM customers")
        + message(b"B", b"\0s\0\0\0\0\0\0\0") + message(b"E", b"\0\0\0\0\0") + message(b"S")
    )
    return session.until(b"Z") + session.until(b"Z")


def portal_that_is_read_when_it_runs():
    """The server reads a COPY's query when the portal runs, whatever it was when that was bound."""
    one, changer = Session(), Session()
    changer.ask("CREATE VIEW public.later AS SELECT id, name AS shown FROM customers")
    one.stream.sendall(
        message(b"P", b"\0COPY (SELECT shown FROM later) TO STDOUT\0\0\0") + query("BEGIN")
    )
    one.until(b"Z")
    one.stream.sendall(message(b"B", b"\0\0\0\0\0\0\0\0") + message(b"S"))
    one.until(b"Z")
    made = changer.ask("CREATE OR REPLACE VIEW public.later AS SELECT id, card_number AS shown FROM customers")
    assert b"CREATE VIEW" in made, made
    one.stream.sendall(message(b"E", b"\0\0\0\0\0") + message(b"S"))
    return one.until(b"Z")


GAMES = {
    "COPY": copy_out_of_step,
    "views": view_of_another_session,
    "a text": view_that_changes_within_a_text,
    "a turn": view_that_changes_before_its_turn,
    "a lock": view_that_changes_before_it_is_read,
    "a portal": portal_that_is_read_when_it_runs,
    "a bind": bind_behind_a_change,
}
for name, game in GAMES.items():
    if CARD in game():
        print(name)
