"""What the commit record keeps in the database: one row, its head, moved by compare-and-set with every noted group."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from comptoir.kit.db.schema import Table
from comptoir.kit.errors import Unavailable

NOTE_BYTES_MAX = 256
"""Largest note of a command: an id and what of it has to be known again."""

WORDS_NOTE = b"w"
"""First byte of a note for people; the rooms have others, and stored ones never change."""

RETRY_AFTER_S = 30.0
"""When to ask again while commits are missing: a person has to decide first."""

COMMIT_HEADS = Table(
    "commit_heads",
    {
        "record": "id",
        "epoch": "int",
        "entries": "int",
        "head": "bytes",
        "began_ms": "int",
        "reason": "text",
        "lost_ms": "int?",
    },
    key=("record",),
)
"""The head of every coordinator's record. ``began_ms`` and ``reason`` say when and why the epoch began; ``lost_ms``
since when its coordinator misses commits, NULL: it misses none."""

TABLES = (COMMIT_HEADS,)


class Head(NamedTuple):
    """How far a record is. Compared in order: an epoch, and what was confirmed in it."""

    epoch: int
    """0 at first; one more each time an operator accepts a loss."""
    entries: int
    """Notes committed in this epoch."""
    sha256: bytes
    """Running hash over them."""


BEGINNING = Head(0, 0, bytes(32))
"""Where a new record begins."""


class HeadMove(NamedTuple):
    """The compare-and-set of one commit."""

    record: bytes
    before: Head
    after: Head


class HeadMismatch(Exception):
    """The database's head is not the one that this process last committed; nothing of the group was written."""


class CommitsLost(Unavailable):
    """Commits that were confirmed are missing from the database: nothing is accepted until an operator has decided."""

    def __init__(self) -> None:
        super().__init__(
            "the database is missing commits that were confirmed: no new work is taken until the operator has decided "
            "('comptoir recover')",
            retry_after_s=RETRY_AFTER_S,
        )


SQLITE_MOVE = (
    "UPDATE commit_heads SET entries = ?, head = ? WHERE record = ? AND epoch = ? AND entries = ? AND head = ?"
)
"""A `HeadMove`; it touches one row, or none if the head is another."""


def moved(head: Head, notes: Sequence[bytes]) -> Head:
    """Return *head* after a commit of *notes*: the hash runs over the one before and every note with its length."""
    running = hashlib.sha256(head.sha256)
    for note in notes:
        assert len(note) <= NOTE_BYTES_MAX, "a note is an id and little more"
        running.update(len(note).to_bytes(2, "big"))
        running.update(note)
    return Head(head.epoch, head.entries + len(notes), running.digest())


def lacks(theirs: Head | None, ours: Head) -> bool:
    """Tell whether a database at *theirs* lacks something of a record at *ours*, which may have been left behind."""
    if theirs is None:
        return ours != BEGINNING
    return theirs != ours and theirs[:2] <= ours[:2]


def in_words(words: str) -> bytes:
    """Return a note for people: what nobody can post again from its note. Cut at `NOTE_BYTES_MAX`."""
    return (WORDS_NOTE + words.encode())[:NOTE_BYTES_MAX]


def read_words(note: bytes) -> str | None:
    """Return the words of a note; None: it is not for people."""
    return note[1:].decode(errors="ignore") if note[:1] == WORDS_NOTE else None


def postgres_move_and_commit(move: HeadMove) -> str:
    """Return a `HeadMove` and the COMMIT as one message; another head would become NULL, so that nothing is committed.

    One that is not there at all is not moved: the first command on a connection compares.
    """
    record, (epoch, entries, head), after = move
    return (
        f"UPDATE commit_heads SET entries = {after.entries:d}, head = CASE WHEN epoch = {epoch:d} AND entries = {entries:d} "
        f"AND head = '\\x{head.hex()}' THEN '\\x{after.sha256.hex()}'::bytea END WHERE record = '\\x{record.hex()}'; COMMIT"
    )
