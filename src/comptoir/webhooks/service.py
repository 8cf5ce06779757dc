"""The service of the webhooks room: make, read, pause, resume, move on, delete; and what messages are signed with."""

from collections.abc import Sequence
from typing import Any

import msgspec

from comptoir.events import request_bits
from comptoir.kit.clock import Clock
from comptoir.kit.db import Database, Table, Tx
from comptoir.kit.errors import InvalidField
from comptoir.kit.sealing import Seal
from comptoir.webhooks.errors import TooManyWebhooks, UnknownWebhook
from comptoir.webhooks.message import event_types
from comptoir.webhooks.signing import new_secret, secret_text
from comptoir.webhooks.tables import WEBHOOKS
from comptoir.webhooks.types import NewWebhook, Webhook, WebhookState

PARALLEL_MAX = 16
"""Most messages of one webhook under way at once."""

NOTE_CHARS_MAX = 200
"""Longest note that an owner knows a webhook by."""

OLD_SECRET_MS = 24 * 3600 * 1000
"""How long messages are signed with the old secret too after a new one was made."""

PAGES_OF = 500
"""Webhooks that one page of the walk over all of them has."""

SHOWN = tuple([name for name in WEBHOOKS.names if name not in ("secret", "old_secret")])
_COLUMNS = ", ".join(SHOWN)


def _webhook(row: Sequence[Any]) -> Webhook:
    values = dict(zip(SHOWN, row, strict=True))
    types = tuple(values.pop("types").split())
    return Webhook(**values | {"types": types, "state": WebhookState(values["state"])})


class Webhooks:
    """The stored webhooks. Methods with a `Tx` are called inside the caller's command."""

    def __init__(self, db: Database, clock: Clock, seal: Seal) -> None:
        self._db = db
        self._clock = clock
        self._seal = seal

    # -- for owners ----------------------------------------------------------------------------------------------

    def draft(
        self,
        *,
        webhook_id: bytes,
        owner_id: bytes,
        url: str,
        types: Sequence[str] = (),
        note: str = "",
        parallel: int = 1,
        secret: bytes | None = None,
    ) -> tuple[NewWebhook, bytes]:
        """Return a webhook that is not stored yet, and its sealed secret, for `insert`.

        Args:
            url: already checked by a guard (`kit.urlguard`).
            types: tags of events, each once; empty: all.
            note: for its owner to know it by, at most 200 characters.
            parallel: 1..16.
            secret: 32 bytes, if an Idempotency-Key determines them.

        Raises:
            InvalidField: one of them is out of bounds.
        """
        unknown = [name for name in types if name not in event_types()]
        if unknown:
            raise InvalidField("types", f"no event is called {unknown[0]!r}; there are {', '.join(event_types())}")
        if len(note) > NOTE_CHARS_MAX or "\0" in note:
            raise InvalidField("note", f"must be at most {NOTE_CHARS_MAX} characters, without NUL")
        if not 1 <= parallel <= PARALLEL_MAX:
            raise InvalidField("parallel", f"must be 1 to {PARALLEL_MAX}")
        secret = secret or new_secret()
        made = Webhook(
            id=webhook_id, owner_id=owner_id, url=url, types=tuple(dict.fromkeys(types)), note=note, parallel=parallel,
            state=WebhookState.ACTIVE, why="", cursor=0, failing_since_ms=None, old_secret_until_ms=None,
            created_ms=self._clock.now_ms(),
        )  # fmt: skip
        return NewWebhook(made, secret_text(secret)), self._seal.close(secret)

    @staticmethod
    def insert(tx: Tx, made: Webhook, sealed: bytes, *, cursor: int, most: int) -> Webhook:
        """Store a webhook that gets the events after number *cursor*. Idempotent by its id: one that exists stays.

        The caller holds the lock of its owner's account, so that the limit is exact.

        Raises:
            TooManyWebhooks: its owner has *most*.
        """
        found = tx.fetch(f"SELECT {_COLUMNS} FROM webhooks WHERE owner_id = ?", [made.owner_id])
        for row in found:
            if bytes(row[0]) == made.id:
                return _webhook(row)
        if len(found) >= most:
            raise TooManyWebhooks(most)
        stored = msgspec.structs.replace(made, cursor=cursor)
        values = msgspec.structs.asdict(stored) | {"types": " ".join(made.types), "secret": sealed, "old_secret": None}
        tx.insert(WEBHOOKS, [tuple([values[name] for name in WEBHOOKS.names])])
        return stored

    async def of_owner(self, owner_id: bytes) -> list[Webhook]:
        """Return an owner's webhooks, oldest first."""
        return [_webhook(row) for row in await self._db.fetch_few(WEBHOOKS, SHOWN, (owner_id,), by=("owner_id",))]

    async def get(self, webhook_id: bytes, *, owner_id: bytes) -> Webhook:
        """Return one of an owner's webhooks.

        Raises:
            UnknownWebhook: there is none, or it is another's.
        """
        row = await self._db.fetch_point(WEBHOOKS, SHOWN, (webhook_id,))
        if row is None or bytes(row[SHOWN.index("owner_id")]) != owner_id:
            raise UnknownWebhook
        return _webhook(row)

    async def secret_text(self, webhook_id: bytes) -> str:
        """Return the secret as its owner got it, for the repeat of the request that made it.

        Raises:
            SealBroken: the data folder has another key than when it was made.
        """
        row = await self._db.fetch_point(WEBHOOKS, ("secret",), (webhook_id,))
        if row is None:
            raise UnknownWebhook
        return secret_text(self._seal.open(bytes(row[0])))

    async def rotate(self, webhook_id: bytes, *, owner_id: bytes) -> NewWebhook:
        """Give a webhook a new secret; for 24 hours messages are signed with the one before as well.

        Raises:
            UnknownWebhook: there is none, or it is another's.
        """
        secret = new_secret()
        sealed, until_ms = self._seal.close(secret), self._clock.now_ms() + OLD_SECRET_MS
        sql = (
            "UPDATE webhooks SET old_secret = secret, old_secret_until_ms = ?, secret = ? WHERE id = ? AND owner_id = ?"
        )
        await self._db.run(lambda tx: tx.execute(sql, [until_ms, sealed, webhook_id, owner_id]))
        return NewWebhook(await self.get(webhook_id, owner_id=owner_id), secret_text(secret))

    # -- inside a command ----------------------------------------------------------------------------------------

    @staticmethod
    def load(tx: Tx, webhook_id: bytes) -> Webhook | None:
        """Read and lock a webhook; None: it was deleted."""
        rows = tx.select(WEBHOOKS, SHOWN, [webhook_id], lock=True)
        return _webhook(rows[0]) if rows else None

    @staticmethod
    def asked_events(tx: Tx, owner_id: bytes) -> int:
        """Return the bits of the events on request that an owner's webhooks, paused ones too, ask for together.

        The caller holds the lock of the owner's account.
        """
        bits = 0
        for (types,) in tx.fetch("SELECT types FROM webhooks WHERE owner_id = ?", [owner_id]):
            bits |= request_bits(types.split())
        return bits

    @staticmethod
    def move(tx: Tx, webhook_id: bytes, *, cursor: int) -> None:
        """Note that the events up to number *cursor* are messages, or were passed over; the caller has its lock."""
        tx.update(WEBHOOKS, ("cursor",), [(webhook_id, cursor)])

    @staticmethod
    def note_attempt(tx: Tx, webhook: Webhook, *, done: bool, at_ms: int) -> None:
        """Note since when a webhook fails; writes only what changes."""
        if done and webhook.failing_since_ms is not None:
            tx.update(WEBHOOKS, ("failing_since_ms",), [(webhook.id, None)])
        elif not done and webhook.failing_since_ms is None:
            tx.update(WEBHOOKS, ("failing_since_ms",), [(webhook.id, at_ms)])

    @staticmethod
    def set_state(tx: Tx, webhook_id: bytes, state: WebhookState, *, why: str) -> None:
        """Pause or resume; resuming forgets since when it failed."""
        tx.update(WEBHOOKS, ("state", "why", "failing_since_ms"), [(webhook_id, state, why, None)])

    @staticmethod
    def delete(tx: Tx, webhook_id: bytes) -> None:
        """Delete a webhook."""
        tx.execute("DELETE FROM webhooks WHERE id = ?", [webhook_id])

    # -- for who sends -------------------------------------------------------------------------------------------

    async def named(self, webhook_ids: Sequence[bytes]) -> dict[bytes, Webhook]:
        """Return those of *webhook_ids* that exist."""
        found = [_webhook(row) for row in await self._db.fetch_keys(WEBHOOKS, SHOWN, list(webhook_ids))]
        return {one.id: one for one in found}

    async def active(self, after: bytes) -> list[Webhook]:
        """Return the next `PAGES_OF` webhooks with ids above *after* that are active; fewer: these were the last."""
        sql = f"SELECT {_COLUMNS} FROM webhooks WHERE id > ? AND state = 'active' ORDER BY id LIMIT {PAGES_OF}"
        return [_webhook(row) for row in await self._db.fetch(sql, [after])]

    async def secrets(self, webhook_id: bytes) -> list[bytes]:
        """Return what messages are signed with now: the secret, and the one before while it counts; none: deleted.

        Raises:
            SealBroken: the data folder has another key than when they were made.
        """
        row = await self._db.fetch_point(WEBHOOKS, ("secret", "old_secret", "old_secret_until_ms"), (webhook_id,))
        if row is None:
            return []
        found = [self._seal.open(bytes(row[0]))]
        if row[1] is not None and (row[2] or 0) > self._clock.now_ms():
            found.append(self._seal.open(bytes(row[1])))
        return found


def webhook_rows(webhook_id: bytes) -> tuple[Table, list[bytes]]:
    """Return the row that `Webhooks.load` locks, for a command to declare."""
    return WEBHOOKS, [webhook_id]
