"""Outbox: intents to act outside, written with the command that causes them and kept until they are done.

Owns: table ``outbox``.
Invariant: an intent is a row of the same transaction as its cause, so it exists if and only if that was committed;
under one kind and business key there is one. Whoever acts on it claims it first, for a time, by a guarded write; what
becomes of it is written under that claim or not at all, so of two that act on one intent only the last claim counts. An
intent is acted on at least once, and exactly once where the far side takes `Claimed.id` as an idempotency key, because
every attempt brings the same one.
Bounds: a payload, the waiting intents of an owner, the attempts and the age of an intent, and what is kept of those
that are over.
Units: milliseconds; ids are 16 bytes, here the hash of kind and key. Knows: nobody, and not what is done outside.
"""

from comptoir.outbox.errors import OutboxFull, UnknownIntent
from comptoir.outbox.schedule import ATTEMPTS_MAX, next_step, wait_ms
from comptoir.outbox.service import Outbox, intent_rows
from comptoir.outbox.tables import TABLES
from comptoir.outbox.types import Attempt, AttemptOutcome, Claimed, Intent, IntentState, StoredIntent, intent_id

__all__ = [
    "ATTEMPTS_MAX",
    "TABLES",
    "Attempt",
    "AttemptOutcome",
    "Claimed",
    "Intent",
    "IntentState",
    "Outbox",
    "OutboxFull",
    "StoredIntent",
    "UnknownIntent",
    "intent_id",
    "intent_rows",
    "next_step",
    "wait_ms",
]
