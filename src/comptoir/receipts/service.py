"""The service of the receipts room."""

from collections.abc import Sequence

from comptoir.kit.clock import Clock
from comptoir.kit.db import Database, Tx
from comptoir.kit.errors import InvalidField
from comptoir.kit.signing import PUBLIC_KEY_BYTES, SigningKey, keyid_of
from comptoir.receipts import store
from comptoir.receipts.build import build
from comptoir.receipts.errors import KeyTaken, UnknownKey, UnknownReceipt
from comptoir.receipts.evidence import Evidence
from comptoir.receipts.heads import SignedHead, read_head, sign_head
from comptoir.receipts.types import COORDINATOR, HolderKind, KeyRegistry, PublishedKey, Receipt, ReceiptFacts
from comptoir.receipts.verify import envelope, registry_json, registry_of

LIST_MAX = 500
"""Most receipts of one page; about 1 MB of envelopes."""


RECENT_MAX = 128
"""Recently written receipts cached in memory, about 2 KiB each; few, for the sake of the processor's cache."""


class Receipts:
    """Signs, stores and returns receipts, and publishes the keys to verify them with."""

    def __init__(self, db: Database, clock: Clock, key: SigningKey) -> None:
        self._db = db
        self._clock = clock
        self._key = key
        self._recent: dict[bytes, Receipt] = {}
        self.evidence = Evidence(db, clock, key)

    async def start(self) -> None:
        """Register the coordinator's key; call once before the first receipt. Idempotent.

        Raises:
            KeyTaken: the key is registered for a host.
        """
        public_key, at_ms = self._key.public_key, self._clock.now_ms()
        await self._db.run(
            lambda tx: self.register_key(
                tx, public_key, holder_kind=HolderKind.COORDINATOR, holder=COORDINATOR, at_ms=at_ms
            )
        )

    @property
    def keyid(self) -> str:
        """Id of the key that this coordinator signs with."""
        return self._key.keyid

    def derive(self, purpose: bytes) -> bytes:
        """Return a secret of 32 bytes for *purpose*, the same at all coordinators that sign with this key."""
        return self._key.derive(b"comptoir-" + purpose)

    def build(self, facts: ReceiptFacts) -> Receipt:
        """Build and sign the receipt of a settled job (25 us); pure: may run in any thread and inside a command."""
        return build(facts, self._key)

    def sign_head(self, head: SignedHead) -> bytes:
        """Return *head* in an envelope signed with the coordinator's key; 20 us."""
        return sign_head(head, self._key)

    def read_head(self, statement: bytes) -> SignedHead | None:
        """Return the head in *statement*; None: it is none, or not under this coordinator's own key. 60 us."""
        return read_head(statement, self._key)

    async def stored(self, job_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the SHA-256 of the payload of each receipt that is stored, by job; at most 1,000 jobs at once."""
        return await store.payload_hashes(self._db, job_ids)

    @staticmethod
    def insert_rows(tx: Tx, rows: Sequence[Receipt]) -> int:
        """Store receipts inside the settlement's command; a job that has one keeps it. Returns how many were new."""
        return store.insert_rows(tx, rows)

    async def get(self, job_id: bytes) -> Receipt:
        """Return the receipt of a job.

        Raises:
            UnknownReceipt: not settled yet, or not a job of ours.
        """
        receipt = self._recent.get(job_id) or await store.receipt_of(self._db, job_id)
        if receipt is None:
            raise UnknownReceipt(job_id)
        return receipt

    async def own_keys(self) -> KeyRegistry:
        """Return the keys of this trading post's coordinators; this one's is valid from the beginning, since a database
        that lost its last commits may have it from a later start."""
        keys = {key.keyid: key for key in await self.keys_of(COORDINATOR)}
        own = keys.get(self._key.keyid)
        keys[self._key.keyid] = PublishedKey(
            self._key.keyid, self._key.public_key.hex(), HolderKind.COORDINATOR, COORDINATOR, 0,
            own.revoked_ms if own is not None else None,
        )  # fmt: skip
        return registry_of(list(keys.values()))

    def remember(self, receipt: Receipt) -> None:
        """Cache a receipt that was just written: most are requested at once."""
        recent = self._recent
        recent[receipt.job_id] = receipt
        if len(recent) > RECENT_MAX:
            del recent[next(iter(recent))]

    async def envelope_of(self, job_id: bytes) -> bytes:
        """Return the receipt of a job as a DSSE envelope (JSON).

        Raises:
            UnknownReceipt: as for :meth:`get`.
        """
        return envelope(await self.get(job_id))

    async def list(self, *, limit: int = 50, before: bytes | None = None) -> list[Receipt]:
        """Return a page of receipts, those of the newest jobs first.

        Args:
            limit: 1 to 500.
            before: the last job id of the previous page.

        Raises:
            InvalidField: *limit* is out of bounds.
        """
        if not 1 <= limit <= LIST_MAX:
            raise InvalidField("limit", f"must be between 1 and {LIST_MAX}")
        return await store.latest(self._db, limit, before)

    async def keys(self) -> Sequence[PublishedKey]:
        """Return the whole registry, oldest key first."""
        return await store.all_keys(self._db)

    async def registry(self) -> bytes:
        """Return the registry in its published form: JSON, ``{"keys": [...]}``."""
        return await store.read_keys(self._db, registry_json)

    async def keys_of(self, holder: str) -> Sequence[PublishedKey]:
        """Return the keys of one holder (public host id, or ``coordinator``), oldest first."""
        return await store.keys_of(self._db, holder)

    @staticmethod
    def register_key(tx: Tx, public_key: bytes, *, holder_kind: HolderKind, holder: str, at_ms: int) -> str:
        """Add a key to the registry inside a command; return its key id.

        Idempotent: the same key for the same holder is left unchanged; a revoked key stays revoked.

        Args:
            public_key: the raw 32 bytes.
            holder: public host id, or ``coordinator``.

        Raises:
            InvalidField: *public_key* is not 32 bytes.
            KeyTaken: registered for another holder; nothing is written.
        """
        if len(public_key) != PUBLIC_KEY_BYTES:
            raise InvalidField("public_key", f"must be {PUBLIC_KEY_BYTES} bytes, is {len(public_key)}")
        keyid = keyid_of(public_key)
        known = store.key_in(tx, keyid)
        if known is None:
            store.insert_key(tx, PublishedKey(keyid, public_key.hex(), holder_kind, holder, at_ms))
        elif (known.holder_kind, known.holder) != (holder_kind, holder):
            raise KeyTaken(keyid)
        return keyid

    @staticmethod
    def revoke(tx: Tx, keyid: str, *, at_ms: int) -> None:
        """Revoke a key from *at_ms* on, inside a command. Revoking again keeps the first moment.

        Raises:
            UnknownKey: no such key.
        """
        if store.set_revoked(tx, keyid, at_ms) == 0 and store.key_in(tx, keyid) is None:
            raise UnknownKey(keyid)
