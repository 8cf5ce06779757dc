"""Values of the outbox room."""

import hashlib
from enum import StrEnum

import msgspec


class IntentState(StrEnum):
    """State of an intent: waiting -> done | dead; done | dead -> waiting when it is sent again."""

    WAITING = "waiting"
    """To be acted on: now, after its back-off, or when its claim has lapsed."""
    DONE = "done"
    """The far side accepted it."""
    DEAD = "dead"
    """Given up: its attempts or its time are used up, or the far side refused it for good. Kept, and can be revived."""


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """Something to do outside, as the command that causes it writes it."""

    kind: str
    """What acts on it, such as ``webhook``."""
    key: str
    """Business key: under one kind and key there is one intent."""
    owner_id: bytes
    lane: bytes
    """What it queues with, 16 bytes: limits and order are those of a lane."""
    payload: bytes
    number: int = 0
    """Its place in the lane."""
    in_order: bool = False
    """Whether it counts as untried until its first attempt has ended (`Outbox.counts`)."""

    @property
    def id(self) -> bytes:
        """Its id."""
        return intent_id(self.kind, self.key)


def intent_id(kind: str, key: str) -> bytes:
    """Return the id of the intent of this kind and business key: the same one whenever it is made."""
    return hashlib.sha256(f"{kind}\0{key}".encode()).digest()[:16]


class Claimed(msgspec.Struct, frozen=True):
    """An intent that the holder may act on until its claim lapses."""

    id: bytes
    kind: str
    owner_id: bytes
    lane: bytes
    number: int
    payload: bytes
    attempt: int
    """Number of this claim, from 1: what is reported under an older one is dropped."""
    attempts_end: int
    """The attempt after which it is given up."""
    give_up_ms: int
    """The time after which it is."""
    first: bool
    """Whether it is an intent in order that has not been tried yet."""


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one attempt came to, as it is kept and shown."""

    at_ms: int
    took_ms: int
    status: int = 0
    """What the far side answered, if it did."""
    error: str = ""
    """Why there was no answer, or why it was no success."""
    answer: str = ""
    """The first bytes of the answer."""


class AttemptOutcome(msgspec.Struct, frozen=True):
    """What an attempt came to, and what follows from it."""

    attempt: Attempt
    done: bool = False
    final: bool = False
    """It failed, and would fail again."""
    retry_after_s: float = 0.0
    """When the far side wants to be asked again."""


class StoredIntent(msgspec.Struct, frozen=True):
    """An intent as stored."""

    id: bytes
    kind: str
    number: int
    payload: bytes
    state: IntentState
    created_ms: int
    due_ms: int | None
    over_ms: int | None
    attempts: int
    history: list[Attempt]
    """The last attempts, oldest first."""
