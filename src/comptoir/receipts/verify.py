"""Verification of a receipt: offline and pure. It trusts the key registry, never a key inside the receipt.

Times in a receipt are the coordinator's claim. A key revoked at T is accepted for receipts that say they were settled
before T; the public log (a later issue) is what will stop backdating with a stolen key.
"""

import base64
import binascii
import json

import msgspec

from comptoir.kinds import Kinds
from comptoir.kit import ids
from comptoir.kit.money import cost_half_even
from comptoir.kit.signing import PUBLIC_KEY_BYTES, is_signed, keyid_of
from comptoir.link import SEGMENT_PAYLOAD_TYPE, Segment, hash_start, pae
from comptoir.receipts.errors import BadRegistry
from comptoir.receipts.first_version import PREDICATE_TYPE_V1, StatementV1, lifted
from comptoir.receipts.types import (
    COORDINATOR,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    AuthenticatedBy,
    Check,
    HolderKind,
    InTotoStatement,
    KeyRegistry,
    Predicate,
    PublishedKey,
    Reason,
    Receipt,
    SegmentEntry,
    UnitEntry,
    Verdict,
)

CLOCK_SLACK_MS = 24 * 3_600_000
"""How much earlier than its key's start a receipt may say it was settled. Both times are wall-clock times: a clock that
steps back, or two that differ, must not invalidate good receipts. Only the key's holder could misuse this day."""

ENVELOPE_BYTES_MAX = 16 * 1024 * 1024
"""A receipt has 2 KB, and 1 KB more per resumed attempt; this bounds what a verifier parses."""


BUILT_IN_KINDS = Kinds()
"""Kinds whose rule for what may be billed everybody has."""


class _Signature(msgspec.Struct):
    keyid: str
    sig: str


class _Envelope(msgspec.Struct, rename={"payload_type": "payloadType"}):
    payload: str
    payload_type: str
    signatures: list[_Signature]


class _RegistryFile(msgspec.Struct):
    keys: list[PublishedKey]


class _VerificationEnded(Exception):
    """Ends a verification; becomes the verdict's reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


class _Typed(msgspec.Struct, rename={"predicate_type": "predicateType"}):
    predicate_type: str


_decode_type = msgspec.json.Decoder(_Typed).decode
_decode_statement = msgspec.json.Decoder(InTotoStatement).decode
_decode_statement_v1 = msgspec.json.Decoder(StatementV1).decode
_decode_segment = msgspec.json.Decoder(Segment).decode
_decode_registry = msgspec.json.Decoder(_RegistryFile).decode


def envelope(receipt: Receipt) -> bytes:
    """Render *receipt* as its DSSE envelope (JSON)."""
    signature = _Signature(receipt.keyid, base64.b64encode(receipt.signature).decode())
    return msgspec.json.encode(_Envelope(base64.b64encode(receipt.payload).decode(), PAYLOAD_TYPE, [signature]))


def registry_json(keys: list[PublishedKey]) -> bytes:
    """Render the registry in its published form: ``{"keys": [...]}``."""
    return msgspec.json.encode(_RegistryFile(keys))


def read_registry(data: bytes) -> KeyRegistry:
    """Read a published registry.

    Raises:
        BadRegistry: not the published JSON, a key id that does not match its key, or one key with two holders.
    """
    try:
        keys = _decode_registry(data).keys
        json.loads(data, object_pairs_hook=_each_named_once)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadRegistry(f"not a key registry: {error}") from error
    return registry_of(keys)


def registry_of(keys: list[PublishedKey]) -> KeyRegistry:
    """Index *keys*, checking that each key id matches its key.

    Raises:
        BadRegistry: see :func:`read_registry`.
    """
    by_keyid: dict[str, PublishedKey] = {}
    for key in keys:
        try:
            raw = bytes.fromhex(key.public_key)
        except ValueError as error:
            raise BadRegistry(f"the public key of {key.keyid} is not hexadecimal") from error
        if len(raw) != PUBLIC_KEY_BYTES or keyid_of(raw) != key.keyid:
            raise BadRegistry(f"the key id {key.keyid} is not the SHA-256 of its public key")
        if key.keyid in by_keyid:
            raise BadRegistry(f"the key {key.keyid} is listed twice")
        by_keyid[key.keyid] = key
    return KeyRegistry(by_keyid)


def verify(envelope_json: bytes, registry: KeyRegistry, kinds: Kinds = BUILT_IN_KINDS) -> Verdict:
    """Check a receipt against *registry*: who signed it, what it says, and that it adds up.

    Never raises for anything in *envelope_json*: a refusal is a verdict with a reason. Checks run in the order of
    `Check` and stop at the first that fails.

    Args:
        kinds: whose rules bound what may be billed by what was delivered (`comptoir.kinds.Kind.billable`). Of another
            kind's receipt that is not checked, and the verdict says so (`Verdict.unbounded_segments`).
    """
    passed: list[Check] = []
    try:
        payload, signature = _opened(envelope_json)
        passed.append(Check.ENVELOPE)
        key = _held(registry, signature.keyid, HolderKind.COORDINATOR, COORDINATOR)
        passed.append(Check.COORDINATOR_KEY)
        _check_signature(payload, _canonical(signature.sig, "the signature"), key)
        passed.append(Check.COORDINATOR_SIGNATURE)
        statement = _statement(payload)
        passed.append(Check.STATEMENT)
        predicate = statement.predicate
        _check_time(key, predicate.times.settled_ms)
        passed.append(Check.COORDINATOR_KEY_TIME)
        for entry in predicate.segments:
            _check_segment(entry, predicate, registry)
        passed.append(Check.SEGMENT_SIGNATURES)
        _check_frames(statement)
        passed.append(Check.FRAMES)
        _check_units(predicate)
        _check_bounds(predicate, kinds)
        passed.append(Check.UNITS)
        _check_amounts(predicate)
        passed.append(Check.AMOUNTS)
    except _VerificationEnded as refused:
        return Verdict(passed, refused.reason, refused.detail)
    unsigned = sum(entry.signature is None for entry in predicate.segments)
    known = predicate.kind in kinds
    unbounded = sum(not known or entry.output_bytes is None for entry in predicate.segments)
    return Verdict(passed, statement=statement, unsigned_segments=unsigned, unbounded_segments=unbounded)


def verify_own(payload: bytes, registry: KeyRegistry, *, keyid: str, signature: bytes) -> Verdict:
    """Check a receipt that comes back to the coordinators whose keys are in *registry*: that one of them signed it.

    What hosts signed in it is not checked again: it was when the receipt was signed, and a host that registered since
    the database's last commit has no key there any more. Never raises, as `verify`.
    """
    passed: list[Check] = []
    try:
        key = _held(registry, keyid, HolderKind.COORDINATOR, COORDINATOR)
        passed.append(Check.COORDINATOR_KEY)
        _check_signature(payload, signature, key)
        passed.append(Check.COORDINATOR_SIGNATURE)
        statement = _statement(payload)
        passed.append(Check.STATEMENT)
        _check_time(key, statement.predicate.times.settled_ms)
        passed.append(Check.COORDINATOR_KEY_TIME)
        _check_frames(statement)
        passed.append(Check.FRAMES)
        _check_amounts(statement.predicate)
        passed.append(Check.AMOUNTS)
    except _VerificationEnded as refused:
        return Verdict(passed, refused.reason, refused.detail)
    return Verdict(passed, statement=statement)


def predicate_of(payload: bytes) -> Predicate:
    """Return what a receipt says that was verified before (`verify_own`)."""
    return _statement(payload).predicate


def _check_signature(payload: bytes, signature: bytes, key: PublishedKey) -> None:
    if not is_signed(pae(PAYLOAD_TYPE, payload), signature, bytes.fromhex(key.public_key)):
        raise _VerificationEnded(
            Reason.BAD_COORDINATOR_SIGNATURE, f"the signature is not by key {key.keyid} over this text"
        )


def _opened(envelope_json: bytes) -> tuple[bytes, _Signature]:
    if len(envelope_json) > ENVELOPE_BYTES_MAX:
        raise _VerificationEnded(Reason.NOT_AN_ENVELOPE, f"larger than {ENVELOPE_BYTES_MAX:,} bytes")
    try:
        opened = _decode_envelope(envelope_json)
        json.loads(envelope_json, object_pairs_hook=_each_named_once)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _VerificationEnded(Reason.NOT_AN_ENVELOPE, f"not a DSSE envelope: {error}") from error
    if opened.payload_type != PAYLOAD_TYPE:
        raise _VerificationEnded(
            Reason.WRONG_PAYLOAD_TYPE, f"the payload type is {opened.payload_type!r}, not {PAYLOAD_TYPE!r}"
        )
    if len(opened.signatures) != 1:
        raise _VerificationEnded(Reason.NOT_AN_ENVELOPE, f"has {len(opened.signatures)} signatures, not one")
    signature = opened.signatures[0]
    _canonical(signature.sig, "the signature")
    return _canonical(opened.payload, "the payload"), signature


def _each_named_once(fields: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse a field that is there twice, even in different case: parsers differ in which one they use."""
    names = [name.casefold() for name, _ in fields]
    if len(set(names)) < len(names):
        raise ValueError(f"the field {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return dict(fields)


def _canonical(text: str, what: str) -> bytes:
    """Decode base64 strictly: a value has only one encoding, so that no byte of an envelope can change unnoticed."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _VerificationEnded(Reason.NOT_AN_ENVELOPE, f"{what} is not base64: {error}") from error
    if base64.b64encode(raw).decode() != text:
        raise _VerificationEnded(Reason.NOT_AN_ENVELOPE, f"{what} is not canonical base64")
    return raw


def _held(registry: KeyRegistry, keyid: str, kind: HolderKind, holder: str) -> PublishedKey:
    key = registry.by_keyid.get(keyid)
    if key is None:
        raise _VerificationEnded(Reason.UNKNOWN_KEY, f"no key {keyid} in the registry")
    if key.holder_kind != kind or key.holder != holder:
        raise _VerificationEnded(
            Reason.FOREIGN_KEY, f"key {keyid} is of {key.holder_kind} {key.holder}, not of {kind} {holder}"
        )
    return key


def _check_time(key: PublishedKey, at_ms: int) -> None:
    if at_ms < key.valid_from_ms - CLOCK_SLACK_MS:
        raise _VerificationEnded(
            Reason.KEY_NOT_YET_VALID, f"key {key.keyid} is valid from {key.valid_from_ms}, not at {at_ms}"
        )
    if key.revoked_ms is not None and at_ms >= key.revoked_ms:
        raise _VerificationEnded(Reason.KEY_REVOKED, f"key {key.keyid} was revoked at {key.revoked_ms}, before {at_ms}")


def _statement(payload: bytes) -> InTotoStatement:
    try:
        old = _decode_type(payload).predicate_type == PREDICATE_TYPE_V1
        statement = lifted(_decode_statement_v1(payload)) if old else _decode_statement(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _VerificationEnded(Reason.NOT_A_RECEIPT, f"the payload is not a receipt: {error}") from error
    if statement.type != STATEMENT_TYPE or statement.predicate_type not in (PREDICATE_TYPE, PREDICATE_TYPE_V1):
        raise _VerificationEnded(Reason.NOT_A_RECEIPT, f"a {statement.predicate_type!r} in a {statement.type!r}")
    job = statement.predicate.job
    raw = ids.parse("job", job)
    if raw is None or statement.predicate.receipt != ids.public("rcpt", raw):
        raise _VerificationEnded(Reason.NOT_A_RECEIPT, f"{statement.predicate.receipt} is not the receipt of {job}")
    if len(statement.subject) != 1 or statement.subject[0].name != job:
        raise _VerificationEnded(Reason.NOT_A_RECEIPT, f"the subject is not {job} alone")
    return statement


def _check_segment(entry: SegmentEntry, predicate: Predicate, registry: KeyRegistry) -> None:
    if entry.authenticated_by is not AuthenticatedBy.SIGNATURE:
        if not (entry.keyid is None and entry.statement is None and entry.signature is None):
            raise _VerificationEnded(
                Reason.SEGMENT_MISMATCH, f"{entry.attempt} is said to be unsigned and has a signature"
            )
        return
    if entry.keyid is None or entry.statement is None or entry.signature is None:
        raise _VerificationEnded(
            Reason.BAD_SEGMENT_SIGNATURE, f"{entry.attempt} is said to be signed and has no signature"
        )
    key = _held(registry, entry.keyid, HolderKind.HOST, entry.host)
    _check_time(key, predicate.times.settled_ms)
    if not is_signed(pae(SEGMENT_PAYLOAD_TYPE, entry.statement), entry.signature, bytes.fromhex(key.public_key)):
        raise _VerificationEnded(
            Reason.BAD_SEGMENT_SIGNATURE, f"the signature of {entry.attempt} is not by {entry.host}"
        )
    try:
        segment = _decode_segment(entry.statement)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _VerificationEnded(Reason.SEGMENT_MISMATCH, f"what {entry.host} signed is no segment: {error}") from error
    said = {
        "job": predicate.job,
        "attempt": entry.attempt,
        "host": entry.host,
        "input_sha256": predicate.input_sha256,
        "first_frame": entry.first_frame,
        "end_frame": entry.end_frame,
        "chain": entry.chain,
        "prompt_tokens": _claimed(entry.units, once=True),
        "completion_tokens": _claimed(entry.units, once=False),
        "finish_reason": entry.finish_reason,
    }
    for name, value in said.items():
        if getattr(segment, name) != value:
            raise _VerificationEnded(
                Reason.SEGMENT_MISMATCH,
                f"{entry.attempt}: the host signed {name} {getattr(segment, name)!r}, the receipt says {value!r}",
            )


def _check_frames(statement: InTotoStatement) -> None:
    predicate = statement.predicate
    job_id = ids.parse("job", predicate.job)
    assert job_id is not None, "checked with the statement"
    at, chain = 0, hash_start(job_id).hex()
    for entry in predicate.segments:
        if entry.first_frame != at or entry.end_frame < at:
            raise _VerificationEnded(
                Reason.FRAMES_DO_NOT_FOLLOW,
                f"{entry.attempt} covers frames {entry.first_frame} to {entry.end_frame}; the next is {at}",
            )
        if entry.end_frame == at and entry.chain != chain:
            raise _VerificationEnded(Reason.CHAIN_MISMATCH, f"{entry.attempt} has no frame and changes the hash")
        at, chain = entry.end_frame, entry.chain
    if chain != statement.subject[0].digest.sha256:
        raise _VerificationEnded(Reason.CHAIN_MISMATCH, "the hash after the last segment is not the answer's")


def _count(units: list[UnitEntry], *, once: bool) -> int:
    return sum([unit.count for unit in units if unit.once is once])


def _claimed(units: list[UnitEntry], *, once: bool) -> int:
    return sum([unit.count if unit.claimed is None else unit.claimed for unit in units if unit.once is once])


def _input_paid(units: list[UnitEntry]) -> int:
    return sum([unit.count if unit.most is None else min(unit.count, unit.most) for unit in units if unit.once])


def _rate(units: list[UnitEntry], *, once: bool) -> int:
    return max([unit.rate for unit in units if unit.once is once], default=0)


def _check_units(predicate: Predicate) -> None:
    names = [(unit.unit, unit.once) for unit in predicate.units]
    sides = [once for _, once in names]
    if len(set(sides)) < len(sides) or False not in sides:
        raise _VerificationEnded(
            Reason.UNITS_DO_NOT_ADD_UP, "there is not one unit of what comes out, and at most one of what goes in"
        )
    for entry in predicate.segments:
        if [(unit.unit, unit.once) for unit in entry.units] != names:
            raise _VerificationEnded(
                Reason.UNITS_DO_NOT_ADD_UP, f"{entry.attempt} is counted in other units than the receipt"
            )
    every = [*predicate.units, *(unit for entry in predicate.segments for unit in entry.units)]
    stated = [number for unit in every for number in (unit.most, unit.cores)]
    stated += [number for entry in predicate.segments for number in (entry.output_bytes, entry.passed_ms)]
    if min([*(unit.count for unit in every), *(one for one in stated if one is not None)]) < 0:
        raise _VerificationEnded(Reason.UNITS_DO_NOT_ADD_UP, "a count of units is negative")
    delivered = sum([_count(entry.units, once=False) for entry in predicate.segments])
    billed = _count(predicate.units, once=False)
    if delivered != billed:
        raise _VerificationEnded(
            Reason.UNITS_DO_NOT_ADD_UP, f"segments delivered {delivered} units, {billed} are billed"
        )
    taken_in = _count(predicate.units, once=True)
    if taken_in > max([_count(entry.units, once=True) for entry in predicate.segments], default=0):
        raise _VerificationEnded(
            Reason.UNITS_DO_NOT_ADD_UP, f"{taken_in} units of the input are billed, more than any host counted"
        )


def _check_bounds(predicate: Predicate, kinds: Kinds) -> None:
    """Check that nothing is billed beyond the rule of its kind; a receipt from before the rule states no bytes."""
    every = [*predicate.units, *(unit for entry in predicate.segments for unit in entry.units)]
    if any(unit.claimed is not None and unit.claimed <= unit.count for unit in every):
        raise _VerificationEnded(Reason.UNITS_DO_NOT_ADD_UP, "a claim is stated that is not above what may be paid")
    if predicate.kind not in kinds:
        return
    kind = kinds.get(predicate.kind)
    bound = next((unit for unit in predicate.units if unit.once and unit.most is not None), None)
    for entry in predicate.segments:
        count, passed_ms = _count(entry.units, once=False), entry.passed_ms or 0
        if entry.output_bytes is not None and count > kind.billable(count, entry.output_bytes, passed_ms):
            raise _VerificationEnded(
                Reason.UNITS_BEYOND_OUTPUT,
                f"{entry.attempt}: {count} units are billed for {entry.output_bytes} bytes of output"
                + (f", for which {passed_ms} ms passed" if kind.timed else ""),
            )
        taken_in = _count(entry.units, once=True)
        if bound is not None and taken_in > kind.input_countable(bound.most or 0, count, bound.cores or 0):
            cores = f" on {bound.cores} cores in {count} ms" if bound.cores else ""
            raise _VerificationEnded(
                Reason.UNITS_BEYOND_OUTPUT,
                f"{taken_in} units of the input are counted, and the request has at most {bound.most}{cores}",
            )


def _costs(predicate: Predicate) -> dict[str, int]:
    """Return the cost of each host's segments at its prices. The input is paid once, to the first host paid at all."""
    most_in, most_out = _rate(predicate.units, once=True), _rate(predicate.units, once=False)
    paid = {row.payee for row in predicate.amounts.transfers if row.kind == "host"}
    taken_in = _input_paid(predicate.units)
    found: dict[str, int] = {}
    for entry in predicate.segments:
        rate_in, rate_out = _rate(entry.units, once=True), _rate(entry.units, once=False)
        if not (0 <= rate_in <= most_in and 0 <= rate_out <= most_out):
            raise _VerificationEnded(
                Reason.AMOUNTS_DO_NOT_ADD_UP, f"the prices of {entry.attempt} are not within the agreed ones"
            )
        if entry.output_bytes == 0:
            continue  # Nothing came, so nothing is paid, for the input neither.
        scaled = _count(entry.units, once=False) * rate_out
        if entry.host in paid:
            scaled += taken_in * rate_in
            taken_in = 0
        found[entry.host] = found.get(entry.host, 0) + cost_half_even(scaled)
    return found


def _check_amounts(predicate: Predicate) -> None:
    amounts = predicate.amounts
    earned = sum(row.amount_uusd for row in amounts.transfers if row.kind == "host")
    fees = sum(row.amount_uusd for row in amounts.transfers if row.kind == "fee")
    costs = _costs(predicate)
    cost = sum(costs.values())
    least = min(
        amounts.held_uusd,
        amounts.charged_uusd,
        amounts.fee_uusd,
        amounts.released_uusd,
        *(unit.rate for unit in predicate.units),
        *(row.amount_uusd for row in amounts.transfers),
    )
    rules = (
        (least >= 0, "an amount is negative"),
        (all(row.kind in ("host", "fee") for row in amounts.transfers), "a transfer is neither to a host nor the fee"),
        (
            all(row.payee in costs for row in amounts.transfers if row.kind == "host"),
            "a host is paid that delivered nothing",
        ),
        (
            all(_earned(predicate, host) <= most for host, most in costs.items()),
            "a host is paid more than what it delivered costs",
        ),
        (len({row.transfer for row in amounts.transfers}) == len(amounts.transfers), "a transfer is listed twice"),
        (
            amounts.held_uusd == amounts.charged_uusd + amounts.released_uusd,
            f"held {amounts.held_uusd} is not charged {amounts.charged_uusd} + released {amounts.released_uusd}",
        ),
        (amounts.fee_uusd == fees, f"the fee is {amounts.fee_uusd}, its transfers are {fees}"),
        (
            amounts.charged_uusd == earned + fees,
            f"charged {amounts.charged_uusd} is not {earned} for hosts + {fees} fee",
        ),
        (amounts.charged_uusd <= cost, f"charged {amounts.charged_uusd} is above the agreed price of {cost}"),
    )
    for holds, words in rules:
        if not holds:
            raise _VerificationEnded(Reason.AMOUNTS_DO_NOT_ADD_UP, words)


def _earned(predicate: Predicate, host: str) -> int:
    return sum(row.amount_uusd for row in predicate.amounts.transfers if row.kind == "host" and row.payee == host)
