"""The service of the moderation room: record acts, and know what is in force without asking the database."""

import re
from collections.abc import Mapping, Sequence

from comptoir.kit.db import Database, Tx
from comptoir.kit.errors import InvalidField
from comptoir.kit.ids import public
from comptoir.moderation import store
from comptoir.moderation.errors import (
    Barred,
    HostExpired,
    HostRetired,
    HostSuspended,
    ModelQuarantined,
    UserSuspended,
)
from comptoir.moderation.store import lock
from comptoir.moderation.types import LIFTED_BY, REASON_CHARS_MAX, Act, Decision, Verb

__all__ = ["Moderation", "check_reason", "lock", "record"]

PAGE_MAX = 200
"""Most acts of one page."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_LIFTS = {lift.value: begun.value for begun, lifts in LIFTED_BY.items() for lift in lifts}


def check_reason(reason: str) -> str:
    """Return *reason* without spaces around it.

    Raises:
        InvalidField: it is empty, longer than `REASON_CHARS_MAX`, or no single line of text.
    """
    reason = reason.strip()
    if not 1 <= len(reason) <= REASON_CHARS_MAX:
        raise InvalidField("reason", f"must be 1 to {REASON_CHARS_MAX} characters: whoever is refused reads it")
    if _CONTROL.search(reason):
        raise InvalidField("reason", "must be one line of text")
    return reason


def record(tx: Tx, one: Decision) -> Act:
    """Add an act to the record, in the command that also writes what it decides; the caller has called `lock`."""
    return store.insert(tx, one)


class Moderation:
    """The record, and what of it is in force here."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._in_force: dict[str, Act] = {}
        """By subject: hosts' and users' ids begin with a prefix that no name of a model in force is taken for."""
        self._models: dict[str, Act] = {}
        self.read_to = 0
        """Number of the last act that is known here."""

    async def load(self) -> None:
        """Read what is in force. Call once, at start."""
        self.read_to = await store.last_number(self._db)
        for act in await store.in_force(self._db):
            self._note(act)

    async def read_new(self) -> list[Act]:
        """Return the acts recorded since the last call, oldest first; from now on they are in force in this room.

        Raises:
            Unavailable: the database is unavailable; nothing is lost, call again.
        """
        found: list[Act] = []
        # Numbers have no gaps, so the next act is a point read, which no list that somebody reads is in the way of.
        while (act := await store.numbered(self._db, self.read_to + 1)) is not None:
            self._note(act)
            self.read_to = act.number
            found.append(act)
        return found

    def _note(self, act: Act) -> None:
        kind = self._models if act.verb in (Verb.MODEL_QUARANTINE, Verb.MODEL_RELEASE) else self._in_force
        if act.verb in LIFTED_BY:
            kind[act.subject] = act
        elif act.verb in _LIFTS:
            kind.pop(act.subject, None)

    # -- what is in force ----------------------------------------------------------------------------------------

    def against_user(self, user_id: bytes) -> UserSuspended | None:
        """Return the refusal that a user's keys and password get; None: nothing is in force."""
        act = self._in_force.get(public("usr", user_id))
        if act is None:
            return None
        return UserSuspended("this account is suspended by the operator", reason=act.reason, number=act.number)

    def against_host(self, host_id: bytes, owner_id: bytes | None) -> HostSuspended | None:
        """Return the refusal that a host's keys get, also because of its owner; None: nothing is in force."""
        act = self._in_force.get(public("host", host_id))
        if act is not None:
            return HostSuspended("this host is suspended by the operator", reason=act.reason, number=act.number)
        act = self._in_force.get(public("usr", owner_id)) if owner_id is not None else None
        if act is None:
            return None
        words = "this host is suspended by the operator, with its owner"
        return HostSuspended(words, reason=act.reason, number=act.number)

    def against_model(self, name: str) -> ModelQuarantined | None:
        """Return the refusal that orders for a model get; None: nothing is in force."""
        act = self._models.get(name)
        if act is None:
            return None
        words = f"the model {name!r} is quarantined by the operator"
        return ModelQuarantined(words, reason=act.reason, number=act.number)

    async def why_retired(self, host_id: bytes) -> Barred | None:
        """Return the refusal that a retired host's keys get; None: no act retired it."""
        act = await store.read_newest_about(self._db, public("host", host_id), Verb.HOST_RETIRE)
        if act is None:
            return None
        if act.operator_id is None:
            words = "this host was retired, and may register again"
            return HostExpired(words, reason=act.reason, number=act.number)
        return HostRetired("this host was retired by the operator", reason=act.reason, number=act.number)

    @property
    def quarantined(self) -> Mapping[str, Act]:
        """The names of models in quarantine, with their acts."""
        return self._models

    @property
    def suspended(self) -> Mapping[str, Act]:
        """The hosts (``host_…``) and users (``usr_…``) that are suspended themselves, with their acts."""
        return self._in_force

    # -- the record ----------------------------------------------------------------------------------------------

    @staticmethod
    def newest(tx: Tx, subject: str, verbs: Sequence[Verb]) -> Act | None:
        """Return the newest act about *subject* that is one of *verbs*, inside a command that has called `lock`."""
        return store.newest_about(tx, subject, [verb.value for verb in verbs])

    async def page(self, *, limit: int, before: int | None = None) -> list[Act]:
        """Return acts, newest first, at most *limit* (1 to `PAGE_MAX`), those before number *before*."""
        return await store.before(self._db, before, min(limit, PAGE_MAX))

    async def find(self, act_id: bytes) -> Act | None:
        """Return the act with this id, or None."""
        return await store.with_id(self._db, act_id)

    async def lifted_since(self, subjects: Sequence[str], at_ms: int) -> set[str]:
        """Return those of *subjects* whose suspension was lifted at *at_ms* or later."""
        return await store.lifted_since(self._db, subjects, at_ms)
