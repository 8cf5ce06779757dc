"""The service of the outbox room: put intents, claim what is due, report what became of it, list and forget."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple

from comptoir.kit.db import Database, Rows, Tx
from comptoir.outbox import store
from comptoir.outbox.errors import OutboxFull, UnknownIntent
from comptoir.outbox.schedule import AGE_MS_MAX, ATTEMPTS_MAX
from comptoir.outbox.tables import OUTBOX
from comptoir.outbox.types import Attempt, Claimed, Intent, IntentState, StoredIntent

PAYLOAD_BYTES_MAX = 64 * 1024
"""Largest payload of an intent."""

WAITING_PER_OWNER_MAX = 2_000
"""Intents of one owner that may wait: some 1.5 MB with the payloads of webhooks."""

KEPT_MS = 30 * 24 * 3600 * 1000
"""How long an intent is kept after it is over, and its key remembered."""

KEPT_PER_LANE_MAX = 1_000
"""Intents of a lane that are kept after they are over."""

DUE_MAX = 256
"""Most intents of one page of what is due."""

PAGE_MAX = 200
"""Most intents of one page of a lane."""

FORGET_ROWS_MAX = 500
"""Rows that one command deletes."""


class DueIntent(NamedTuple):
    """What has to be known of an intent to decide whether to claim it."""

    id: bytes
    lane: bytes
    tried: bool


class Outbox:
    """The stored intents. Methods with a `Tx` are called inside the caller's command."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # -- inside a command ----------------------------------------------------------------------------------------

    @staticmethod
    def put(tx: Tx, intents: Sequence[Intent], *, at_ms: int) -> int:
        """Write *intents* with their cause, due at once. Return how many were new.

        Idempotent by kind and key: an intent that exists, also one that is over, stays as it is.

        Raises:
            OutboxFull: more than `WAITING_PER_OWNER_MAX` of an owner would wait.
        """
        for one in intents:
            assert len(one.payload) <= PAYLOAD_BYTES_MAX, "whoever writes an intent bounds its payload"
        new = store.insert(tx, intents, at_ms=at_ms, give_up_ms=at_ms + AGE_MS_MAX, attempts_max=ATTEMPTS_MAX)
        for owner_id in {one.owner_id for one in intents}:
            if store.waiting(tx, owner_id, most=WAITING_PER_OWNER_MAX + 1) > WAITING_PER_OWNER_MAX:
                raise OutboxFull(WAITING_PER_OWNER_MAX)
        return new

    @staticmethod
    def put_again(tx: Tx, intents: Sequence[Intent], *, at_ms: int) -> None:
        """Write *intents* like `put`; those that are over are to be acted on again, with the same id."""
        Outbox.put(tx, intents, at_ms=at_ms)
        for in_order in (True, False):
            ids = [one.id for one in intents if one.in_order is in_order]
            if ids:
                store.revive(
                    tx, ids, at_ms=at_ms, give_up_ms=at_ms + AGE_MS_MAX, attempts_max=ATTEMPTS_MAX,
                    tried=int(not in_order),
                )  # fmt: skip

    @staticmethod
    def claim(tx: Tx, ids: Sequence[bytes], *, node_id: bytes, at_ms: int, until_ms: int) -> list[Claimed]:
        """Claim for *node_id*, until *until_ms*, those of *ids* that are due; return them by number.

        An intent whose attempts are used up, the last one without a report, is given up instead.
        """
        return store.claim(tx, ids, node_id=node_id, at_ms=at_ms, until_ms=until_ms) if ids else []

    @staticmethod
    def report(
        tx: Tx, claimed: Claimed, attempt: Attempt, *, state: IntentState, due_ms: int | None, at_ms: int
    ) -> bool:
        """Write what an attempt came to; False, with nothing written, if the claim lapsed and was taken again."""
        over_ms = None if state is IntentState.WAITING else at_ms
        return store.report(tx, claimed, attempt, state=state, due_ms=due_ms, over_ms=over_ms)

    @staticmethod
    def give_back(tx: Tx, claimed: Claimed, *, due_ms: int) -> bool:
        """End a claim whose attempt was cut off: the intent is due at *due_ms*."""
        return store.give_back(tx, claimed, due_ms=due_ms)

    @staticmethod
    def counts(tx: Tx, owner_id: bytes, lane: bytes) -> tuple[int, int]:
        """Return how many intents of a lane have not been tried, of those in order, and how many wait in all."""
        return store.counts(tx, owner_id, lane)

    @staticmethod
    def park(tx: Tx, owner_id: bytes, lane: bytes) -> int:
        """Let nobody claim what waits in a lane, until `unpark`; what is claimed now is finished."""
        return store.park(tx, owner_id, lane)

    @staticmethod
    def unpark(tx: Tx, owner_id: bytes, lane: bytes, *, at_ms: int) -> int:
        """Make what is parked in a lane due, with all its attempts and time again."""
        return store.unpark(tx, owner_id, lane, at_ms=at_ms, give_up_ms=at_ms + AGE_MS_MAX, attempts_max=ATTEMPTS_MAX)

    @staticmethod
    def revive(tx: Tx, intent_id: bytes, *, at_ms: int) -> bool:
        """Have an intent that is over acted on again; False: it waits anyway, or is gone."""
        give_up_ms = at_ms + AGE_MS_MAX
        return store.revive(tx, [intent_id], at_ms=at_ms, give_up_ms=give_up_ms, attempts_max=ATTEMPTS_MAX, tried=1) > 0

    @staticmethod
    def drop_lane(tx: Tx, lane: bytes) -> int:
        """Delete all intents of a lane, whatever their state."""
        return store.drop_lane(tx, lane)

    # -- outside of one ------------------------------------------------------------------------------------------

    async def due(self, kind: str, *, at_ms: int, but: Collection[bytes] = ()) -> list[DueIntent]:
        """Return what is due at *at_ms*, what has been for longest first, at most `DUE_MAX`, in none of the lanes
        *but*."""
        sql, values = store.due(kind, at_ms, but=but, limit=DUE_MAX)
        rows = await self._db.fetch(sql, values)
        return [DueIntent(bytes(key), bytes(lane), bool(tried)) for key, lane, tried in rows]

    async def free_claims(self, *, at_ms: int) -> int:
        """End every claim; for a coordinator that has just started and knows that there is no other."""
        return await self._db.run(partial(store.free_claims, at_ms=at_ms))

    async def page(
        self, lane: bytes, *, state: IntentState | None = None, before: bytes | None = None, limit: int = 50
    ) -> list[StoredIntent]:
        """Return a lane's intents, newest first, those older than intent *before*, at most `PAGE_MAX`."""
        sql, values = store.page(lane, state=state, before=before, limit=min(limit, PAGE_MAX))
        return [store.stored(row) for row in await self._db.fetch(sql, values, of=lane)]

    async def get(self, lane: bytes, intent_id: bytes) -> StoredIntent:
        """Return one intent of a lane.

        Raises:
            UnknownIntent: it has none with this id.
        """
        rows = await self._db.fetch(*store.one_of(lane, intent_id))
        if not rows:
            raise UnknownIntent
        return store.stored(rows[0])

    async def forget(self, *, at_ms: int, lanes: Sequence[bytes]) -> int:
        """Delete what has been over for `KEPT_MS`, and what *lanes* have beyond `KEPT_PER_LANE_MAX`; return how many.

        Bounded: `FORGET_ROWS_MAX` of each; the next call deletes the rest.
        """
        gone = await self._db.run(partial(store.forget_old, before_ms=at_ms - KEPT_MS, limit=FORGET_ROWS_MAX))
        for lane in lanes:
            gone += await self._db.run(
                partial(store.forget_beyond, lane=lane, kept=KEPT_PER_LANE_MAX, limit=FORGET_ROWS_MAX)
            )
        return gone


def intent_rows(ids: Sequence[bytes]) -> Rows:
    """Return the rows that `Outbox.claim` locks, for a command to declare."""
    return [(OUTBOX, ids)]
