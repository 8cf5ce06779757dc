"""Invitations: what an operator gives to people who may sign up, or register hosts, where not everybody may.

An invitation is 192 random bits, shown once and stored as SHA-256, good for a number of uses until a day. Each use is
counted in the command that registers the newcomer, so the last one serves exactly one, however many try at once and
wherever: the update that counts it locks the row and looks at it again.
"""

import base64
import hashlib
import os

from comptoir.identity.errors import InvitationRefused, UnknownInvitation
from comptoir.identity.tables import INVITATIONS
from comptoir.identity.types import Invitation, InvitedAs, NewInvitation
from comptoir.kit.clock import Clock
from comptoir.kit.db import Database, Table, Tx, in_words
from comptoir.kit.errors import InvalidField
from comptoir.kit.ids import new_id

PREFIX = "inv_"
SECRET_BYTES = 24
"""192 bits: 32 characters in URL-safe base64."""
INVITATION_CHARS_MAX = 64
"""Longest text that is looked up as an invitation; ours have 36 characters."""

USES_MAX = 1_000_000
DAYS_MAX = 3_650
NOTE_CHARS_MAX = 200
LIST_MAX = 200
DAY_MS = 24 * 3600 * 1000

_COLUMNS = "id, invited_as, uses, uses_max, credit_uusd, note, made_by, created_ms, expires_ms, revoked_ms"


class Invitations:
    """The stored invitations; part of the identity room (`Identity.invitations`)."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def make(
        self,
        *,
        invited_as: InvitedAs,
        uses: int,
        days: int,
        made_by: bytes,
        credit_uusd: int | None = None,
        note: str = "",
        invitation_id: bytes | None = None,
        secret: bytes | None = None,
    ) -> NewInvitation:
        """Make and store an invitation; its text is in the result and nowhere else.

        Idempotent by *invitation_id*: one that exists stays as it is.

        Args:
            uses: 1 to 1,000,000.
            days: until it expires, 1 to 3,650.
            made_by: the operator's user id.
            credit_uusd: what a user who comes with it gets, micro-dollars >= 0; None: what everybody gets. Users only.
            note: for the operator to know it by, at most 200 characters.
            invitation_id, secret: given if an Idempotency-Key determines them; of *secret* 24 bytes are used.

        Raises:
            InvalidField: one of them is out of bounds, the first in this order; nothing is written.
        """
        if not 1 <= uses <= USES_MAX:
            raise InvalidField("uses", f"must be 1 to {USES_MAX:,}")
        if not 1 <= days <= DAYS_MAX:
            raise InvalidField("days", f"must be 1 to {DAYS_MAX:,}")
        if credit_uusd is not None and invited_as is not InvitedAs.USER:
            raise InvalidField("credits", "only users get credit: leave it out for hosts")
        if len(note) > NOTE_CHARS_MAX or "\0" in note:
            raise InvalidField("note", f"must be at most {NOTE_CHARS_MAX} characters, without NUL")
        now = self._clock.now_ms()
        text = _text(secret or os.urandom(SECRET_BYTES))
        made = Invitation(
            invitation_id or new_id(), invited_as, 0, uses, credit_uusd, note, made_by, now, now + days * DAY_MS, None
        )
        row = (
            _digest(text), made.id, invited_as.value, 0, uses, credit_uusd, note, made_by, now, made.expires_ms, None,
        )  # fmt: skip

        def command(tx: Tx) -> None:
            tx.insert(INVITATIONS, [row], ignore_conflicts=True)
            tx.notes.append(in_words(f"invitation {made.id.hex()}"))

        await self._db.run(command)
        return NewInvitation(made, text)

    async def check(self, text: str, invited_as: InvitedAs) -> Invitation:
        """Return the invitation *text* if it is good now; nothing is counted.

        Raises:
            InvitationRefused: there is none, or it is used up, expired, revoked, or for something else.
        """
        digest = _digest(text)
        return _checked(
            await self._db.fetch(f"SELECT {_COLUMNS} FROM invitations WHERE digest = ?", (digest,)),
            invited_as,
            self._clock.now_ms(),
        )

    async def made_from(self, secret: bytes) -> NewInvitation | None:
        """Return the invitation that was made from *secret*, with its text, for a repeat; None: there is none."""
        text = _text(secret)
        found = await self.find(text)
        return NewInvitation(found, text) if found is not None else None

    async def find(self, text: str) -> Invitation | None:
        """Return the invitation *text*, good or not; None: there is none."""
        rows = await self._db.fetch(f"SELECT {_COLUMNS} FROM invitations WHERE digest = ?", (_digest(text),))
        return _invitation(rows[0]) if rows else None

    async def get(self, invitation_id: bytes) -> Invitation:
        """Return one by its id.

        Raises:
            UnknownInvitation: there is none.
        """
        rows = await self._db.fetch(f"SELECT {_COLUMNS} FROM invitations WHERE id = ?", (invitation_id,))
        if not rows:
            raise UnknownInvitation(invitation_id)
        return _invitation(rows[0])

    async def newest(self, *, limit: int = 50, before: bytes | None = None) -> list[Invitation]:
        """Return at most *limit* (200) invitations, newest first; *before* pages by id."""
        sql = f"SELECT {_COLUMNS} FROM invitations WHERE id < ? ORDER BY id DESC LIMIT ?"
        rows = await self._db.fetch(sql, (before or b"\xff" * 16, min(limit, LIST_MAX)))
        return [_invitation(row) for row in rows]

    async def revoke(self, invitation_id: bytes) -> Invitation:
        """Revoke an invitation: nobody else gets in with it. Who came with it stays. Again changes nothing.

        Raises:
            UnknownInvitation: there is none.
        """
        at_ms = self._clock.now_ms()
        sql = "UPDATE invitations SET revoked_ms = ? WHERE id = ? AND revoked_ms IS NULL"

        def command(tx: Tx) -> None:
            tx.execute(sql, (at_ms, invitation_id))
            tx.notes.append(in_words(f"invitation {invitation_id.hex()} revoked"))

        await self._db.run(command)
        return await self.get(invitation_id)


def use_invitation(tx: Tx, text: str, invited_as: InvitedAs, at_ms: int) -> Invitation:
    """Count one use of the invitation *text*, inside the command that registers who came with it.

    Raises:
        InvitationRefused: it is not good (any more), so the whole command is refused.
    """
    digest = _digest(text)
    # The update decides, not a query beforehand: another coordinator may be counting the last use.
    counted = tx.execute(
        "UPDATE invitations SET uses = uses + 1 WHERE digest = ? AND invited_as = ? AND uses < uses_max "
        "AND expires_ms > ? AND revoked_ms IS NULL",
        (digest, invited_as.value, at_ms),
    )
    rows = tx.fetch(f"SELECT {_COLUMNS} FROM invitations WHERE digest = ?", (digest,))
    return _invitation(rows[0]) if counted else _checked(rows, invited_as, at_ms)


def invitation_rows(text: str) -> tuple[Table, list[bytes]]:
    """Return the rows that `use_invitation` locks, for a command to declare."""
    return INVITATIONS, [_digest(text)]


def _checked(rows: list[tuple], invited_as: InvitedAs, at_ms: int) -> Invitation:  # type: ignore[type-arg]
    if not rows:
        raise InvitationRefused("this invitation is not known here: check that it was copied whole")
    found = _invitation(rows[0])
    state = found.state(at_ms)
    if state != "open":
        raise InvitationRefused(f"this invitation is {state}: ask the operator for another")
    if found.invited_as is not invited_as:
        raise InvitationRefused(f"this invitation is for a {found.invited_as}, not for a {invited_as}")
    return found


def _text(secret: bytes) -> str:
    return PREFIX + base64.urlsafe_b64encode(secret[:SECRET_BYTES]).decode()


def _digest(text: str) -> bytes:
    # What is longer, or no text of ours, has a digest that nothing has.
    return hashlib.sha256(text[: INVITATION_CHARS_MAX + 1].strip().encode("utf-8", "surrogatepass")).digest()


def _invitation(row: tuple) -> Invitation:  # type: ignore[type-arg]
    return Invitation(row[0], InvitedAs(row[1]), *row[2:])
