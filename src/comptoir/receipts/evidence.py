"""Evidence: what a host signed and what arrived, where the two contradict each other.

An exhibit holds two statements of the same form (`link.Segment`) about one attempt: the host's, with its signature, and
the coordinator's about what arrived, with its own. They are about the same frames, from the same number to the same
number, and differ in the running hash, or the host counts more units than its frames state. So nothing is missing and
nothing is out of order: a cut line, a repeat or a restart can't make two such statements, only the holder of the host's
key can sign the first. What arrived is the coordinator's word. No prompt and no answer is in it.
"""

import msgspec

from comptoir.kit.clock import Clock
from comptoir.kit.db import Database, Table, Tx
from comptoir.kit.ids import parse, public
from comptoir.kit.signing import SigningKey, is_signed, keyid_of
from comptoir.link import SEGMENT_PAYLOAD_TYPE, Segment, pae
from comptoir.receipts.errors import UnknownExhibit
from comptoir.receipts.tables import EVIDENCE
from comptoir.receipts.types import COORDINATOR, HolderKind, KeyRegistry

EXHIBIT = "exhibit"
"""Prefix of an exhibit's public id; the rest is the attempt's."""

EVIDENCE_PER_HOST_MAX = 16
"""Exhibits kept of one host; the first ones say enough."""

EVIDENCE_MAX = 20_000
"""Exhibits kept in all, of 1 to 2 KiB; beyond it the oldest that no operator used goes."""

EXHIBITS_BYTES_MAX = 256 * 1024
"""Largest file of exhibits that is verified; those of one host have 40 KiB at most."""

SAME = ("job", "attempt", "host", "model", "input_sha256", "first_frame", "end_frame")
"""What both statements of an exhibit say of the attempt."""

OTHER_FRAMES = "the host signed a running hash that is not that of the frames which arrived from it"
MORE_UNITS = "the host signed {} units, and the frames which arrived from it state {}"

_COLUMNS = ", ".join(EVIDENCE.names)


# New fields come with a default, and are left out while they have it: a list that was saved before then still equals
# what is written of it, as `verify_exhibits` asks.


class ExhibitSignature(msgspec.Struct, frozen=True, omit_defaults=True):
    """One signature of an envelope."""

    keyid: str
    sig: bytes


class ExhibitEnvelope(msgspec.Struct, frozen=True, omit_defaults=True, rename={"payload_type": "payloadType"}):
    """A DSSE envelope around a segment; bytes are base64 in JSON."""

    payload: bytes
    payload_type: str
    signatures: tuple[ExhibitSignature]


class Exhibit(msgspec.Struct, frozen=True, omit_defaults=True):
    """One piece of evidence, as it is published."""

    id: str
    """``exhibit_…``, with the attempt's id."""
    host: str
    job: str
    at_ms: int
    """When it was kept, milliseconds since 1970 UTC; the coordinator's clock."""
    says: str
    """What contradicts what, in one sentence."""
    stated: ExhibitEnvelope
    """What the host signed."""
    arrived: ExhibitEnvelope
    """What the coordinator says arrived, signed with its own key."""
    used_ms: int | None
    """When an operator forfeited the host's bond for it; null: not yet."""


class ExhibitVerdict(msgspec.Struct, frozen=True):
    """Whether an exhibit shows what it says."""

    exhibit: str
    ok: bool
    detail: str
    """What contradicts what, or why it is rejected."""


class ExhibitList(msgspec.Struct, frozen=True, omit_defaults=True):
    """The evidence against one host, as it is published and verified."""

    host: str
    evidence: list[Exhibit]
    """Oldest first."""


_decode_segment = msgspec.json.Decoder(Segment, strict=True).decode
_decode_file = msgspec.json.Decoder(ExhibitList).decode
_encode = msgspec.json.Encoder().encode


class Evidence:
    """The exhibits; part of the receipts room (`Receipts.evidence`)."""

    def __init__(self, db: Database, clock: Clock, key: SigningKey) -> None:
        self._db = db
        self._clock = clock
        self._key = key

    async def keep(self, *, stated: Segment, signature: bytes, public_key: bytes, arrived: Segment) -> bool:
        """Keep an exhibit, signing what arrived; False: the host has `EVIDENCE_PER_HOST_MAX` already.

        Idempotent by the attempt.

        Args:
            stated: what the host signed with *public_key*; *signature* was verified.
            arrived: the same attempt as it arrived.
        """
        attempt, host, job = parse("att", stated.attempt), parse("host", stated.host), parse("job", stated.job)
        assert attempt is not None and host is not None and job is not None and contradiction(stated, arrived)
        said, came = _encode(stated), _encode(arrived)
        row = (
            attempt, host, job, self._clock.now_ms(), bytes.fromhex(keyid_of(public_key)), said, signature,
            bytes.fromhex(self._key.keyid), came, self._key.sign(pae(SEGMENT_PAYLOAD_TYPE, came)), None,
        )  # fmt: skip

        def command(tx: Tx) -> bool:
            ((of_host,),) = tx.fetch("SELECT COUNT(*) FROM evidence WHERE host_id = ?", (host,))
            if of_host >= EVIDENCE_PER_HOST_MAX:
                return False
            tx.insert(EVIDENCE, [row], ignore_conflicts=True)
            ((kept,),) = tx.fetch("SELECT COUNT(*) FROM evidence")
            if kept > EVIDENCE_MAX:
                oldest = "SELECT id FROM evidence WHERE used_ms IS NULL ORDER BY id LIMIT ?"
                tx.execute(f"DELETE FROM evidence WHERE id IN ({oldest})", (kept - EVIDENCE_MAX,))
            return True

        return await self._db.run(command)

    async def of_host(self, host_id: bytes) -> ExhibitList:
        """Return the evidence against one host: at most `EVIDENCE_PER_HOST_MAX` exhibits, or a few more where several
        coordinators kept some at one moment."""
        sql = f"SELECT {_COLUMNS} FROM evidence WHERE host_id = ? ORDER BY id"
        rows = await self._db.fetch(sql, (host_id,))
        return ExhibitList(public("host", host_id), [_exhibit(row) for row in rows])


def use_exhibit(tx: Tx, exhibit: str, host_id: bytes, at_ms: int) -> None:
    """Mark an exhibit as the one that a host's bond is forfeited for, inside that command; it is kept for ever.

    Raises:
        UnknownExhibit: there is none of this host with this id.
    """
    exhibit_id = parse(EXHIBIT, exhibit)
    marked = exhibit_id is not None and tx.execute(
        "UPDATE evidence SET used_ms = COALESCE(used_ms, ?) WHERE id = ? AND host_id = ?", (at_ms, exhibit_id, host_id)
    )
    if not marked:
        raise UnknownExhibit(exhibit)


def exhibit_rows(exhibit: str) -> tuple[Table, list[bytes]]:
    """Return the row that `use_exhibit` locks, for a command to declare."""
    exhibit_id = parse(EXHIBIT, exhibit)
    return EVIDENCE, [exhibit_id] if exhibit_id is not None else []


def contradiction(stated: Segment, arrived: Segment) -> str:
    """Say how what arrived contradicts what a host *stated* of the same frames; empty: it does not.

    A statement about other frames is none: what is missing may have been lost on the way.
    """
    if any(getattr(stated, name) != getattr(arrived, name) for name in SAME):
        return ""
    if stated.chain != arrived.chain:
        return OTHER_FRAMES
    if stated.completion_tokens > arrived.completion_tokens:
        return MORE_UNITS.format(stated.completion_tokens, arrived.completion_tokens)
    return ""


def verify_exhibits(data: bytes, registry: KeyRegistry) -> list[ExhibitVerdict]:
    """Check a published file of exhibits, ``{"host", "evidence": […]}``, against *registry*; offline and pure.

    Raises:
        ValueError: it is none, or says something twice or beside it.
    """
    if len(data) > EXHIBITS_BYTES_MAX:
        raise ValueError(f"larger than {EXHIBITS_BYTES_MAX:,} bytes")
    try:
        file = _decode_file(data)
        plain = msgspec.json.format(data, indent=-1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a file of exhibits: {error}") from error
    if plain != _encode(file):
        raise ValueError("not written as evidence is published: a field is there twice, unknown, or spelled otherwise")
    return [_verified(one, file.host, registry) for one in file.evidence]


def _verified(one: Exhibit, host: str, registry: KeyRegistry) -> ExhibitVerdict:
    try:
        stated = _opened(one.stated, registry, HolderKind.HOST, one.host)
        arrived = _opened(one.arrived, registry, HolderKind.COORDINATOR, COORDINATOR)
        detail = contradiction(stated, arrived)
        about = (stated.host, stated.job, "exhibit_" + stated.attempt.removeprefix("att_"))
        if about != (one.host, one.job, one.id) or one.host != host:
            raise ValueError("it is about another host, job or attempt than it says")
        if not detail:
            raise ValueError("what arrived does not contradict what the host signed")
    except ValueError as error:
        return ExhibitVerdict(one.id, False, str(error))
    return ExhibitVerdict(one.id, True, detail)


def _opened(one: ExhibitEnvelope, registry: KeyRegistry, kind: HolderKind, holder: str) -> Segment:
    (signature,) = one.signatures
    key = registry.by_keyid.get(signature.keyid)
    if key is None:
        raise ValueError(f"no key {signature.keyid} in the registry")
    if (key.holder_kind, key.holder) != (kind, holder):
        raise ValueError(f"key {signature.keyid} is of {key.holder_kind} {key.holder}, not of {kind} {holder}")
    if one.payload_type != SEGMENT_PAYLOAD_TYPE:
        raise ValueError(f"the payload type is {one.payload_type!r}, not {SEGMENT_PAYLOAD_TYPE!r}")
    if not is_signed(pae(SEGMENT_PAYLOAD_TYPE, one.payload), signature.sig, bytes.fromhex(key.public_key)):
        raise ValueError(f"the signature is not by {holder} over this statement")
    try:
        return _decode_segment(one.payload)
    except msgspec.DecodeError as error:
        raise ValueError(f"what {holder} signed is no statement about frames: {error}") from error


def _exhibit(row: tuple) -> Exhibit:  # type: ignore[type-arg]
    attempt, host, job, at_ms, keyid, said, signature, our_keyid, came, ours, used_ms = row
    return Exhibit(
        id=public(EXHIBIT, attempt),
        host=public("host", host),
        job=public("job", job),
        at_ms=at_ms,
        says=contradiction(_decode_segment(said), _decode_segment(came)),
        stated=_envelope(said, keyid, signature),
        arrived=_envelope(came, our_keyid, ours),
        used_ms=used_ms,
    )


def _envelope(payload: bytes, keyid: bytes, signature: bytes) -> ExhibitEnvelope:
    return ExhibitEnvelope(payload, SEGMENT_PAYLOAD_TYPE, (ExhibitSignature(keyid.hex(), signature),))
