"""Frozen types of a receipt: what settlement knows, what is signed, what is published, what a verification found.

Field order is the order in the signed bytes. Times are milliseconds since 1970 UTC, money is micro-dollars.
"""

from enum import StrEnum

import msgspec

from comptoir.kinds.named_files import Bytes, Name, Sha256

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:comptoir:receipt:v2"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
COORDINATOR = "coordinator"
"""Holder of the coordinator's keys in the registry."""


class HolderKind(StrEnum):
    """Who may sign with a key, and therefore what."""

    COORDINATOR = "coordinator"
    """Signs whole receipts."""
    HOST = "host"
    """Signs the segments of its own attempts."""


class AuthenticatedBy(StrEnum):
    """What proves that a segment comes from its host."""

    SIGNATURE = "signature"
    """The host signed the segment's statement."""
    HOST_KEY = "host_key"
    """The frames came over a connection opened with the host's key, and only the coordinator vouches for them: for
    hosts that do not sign."""
    RUNNING_HASH = "running_hash"
    """The host signs, but was lost or stopped before it could: the running hash after the last frame accepted from it
    stands in for its signature. The next host signed a hash that continues it."""


# -- what settlement passes ----------------------------------------------------------------------------------------


class SegmentFacts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one attempt delivered."""

    attempt_id: bytes
    host_id: bytes
    first_frame: int
    end_frame: int
    """Exclusive."""
    running_hash: bytes
    """Running hash after the last frame, 32 bytes."""
    input_count: int = 0
    """Units of input as its host counted them; 0: not reported, or counted by another host."""
    input_claimed: int = 0
    """The same as its host counted them, believed or not."""
    output_count: int
    """Units of output that may be billed."""
    output_claimed: int = 0
    """Units of output as its host counted them; fewer than *output_count*: as many."""
    output_bytes: int | None = None
    """Bytes of output delivered, as its kind counts them, which bound *output_count*."""
    passed_ms: int | None = None
    """Of a timed kind: milliseconds that bound it."""
    rate_in: int
    """This host's prices, micro-dollars per million units."""
    rate_out: int
    finish_reason: str = ""
    keyid: str | None = None
    """Key that the host signed with; ``None``, like the next two, when there is no signature."""
    statement: bytes | None = None
    """The JSON bytes of `link.Segment` as the host encoded them, see :func:`comptoir.receipts.statement_bytes`."""
    signature: bytes | None = None
    has_key: bool = False
    """Whether the host signs the segments that it completes."""


class ReceiptTransfer(msgspec.Struct, frozen=True, gc=False):
    """A copy of a posted ledger row; on the wire exactly as here."""

    transfer: str
    """The ledger's id of the row."""
    kind: str
    """``host`` (what a host earned) or ``fee`` (the operator's share)."""
    payee: str
    """Public host id, or ``fee``."""
    amount_uusd: int


class ReceiptFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything settlement knows about a finished job; ids are the raw 16 bytes."""

    job_id: bytes
    buyer_id: bytes | None
    """``None`` leaves the buyer out of the receipt."""
    dialect: str
    kind: str
    model: str
    state: str
    """Final state of the job: ``completed``, ``failed``, ``cancelled`` or ``expired``."""
    segments: list[SegmentFacts]
    """In frame order, without gaps; attempts that delivered nothing are left out."""
    input_unit: str
    """Name of the unit of input; empty: the input is not paid for."""
    output_unit: str
    input_count: int
    input_max: int | None = None
    """Most units of input that are paid."""
    output_count: int
    rate_in: int
    """The agreed prices, micro-dollars per million units."""
    rate_out: int
    fee_bps: int
    held_uusd: int
    charged_uusd: int
    fee_uusd: int
    released_uusd: int
    transfers: list[ReceiptTransfer]
    input_sha256: bytes
    """Hash of the request body as sent over the link."""
    created_ms: int
    settled_ms: int
    started_ms: int | None = None
    """When the first attempt was leased; ``None`` when none was."""
    fingerprint: str = ""
    """``sha256:<hex>`` of the weights, if the host published it."""
    cores: int = 0
    """Of a timed kind: milliseconds of input that each one of output may have (`comptoir.kinds.Kind.cores`); 0: they
    are not bound to each other."""
    files: "ReceiptFiles | None" = None
    """What went in and came out as files; ``None``: nothing did."""


# -- what is signed ------------------------------------------------------------------------------------------------


class UnitEntry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A count of units, at a price."""

    unit: str
    """Its name (`comptoir.kinds`): ``token_out``, ``run``, …"""
    count: int
    rate: int
    """Micro-dollars per million."""
    once: bool = False
    """True for input: every host that processed it counts it, but it is paid once. Absent: each host's part is paid."""
    claimed: int | None = None
    """In a segment: what its host counted and signed, where that is more than *count*, which is what it may be paid
    for."""
    most: int | None = None
    """Of the whole input: the most that is paid, by the size of the request. Absent: before December 2026."""
    cores: int | None = None
    """Of the whole input that is milliseconds of CPU: the cores that were agreed, so that each millisecond of output
    has at most as many. Absent: the input is something else."""


class SegmentEntry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One attempt's part in the signed receipt."""

    attempt: str
    host: str
    keyid: str | None
    first_frame: int
    end_frame: int
    chain: str
    units: list[UnitEntry]
    """What this host counted, at its own prices, none above the receipt's."""
    finish_reason: str
    authenticated_by: AuthenticatedBy
    statement: bytes | None
    """Base64 of the JSON that the host signed (under DSSE's pre-authentication encoding)."""
    signature: bytes | None
    """Base64 of the host's Ed25519 signature."""
    output_bytes: int | None = None
    """Bytes of output that this host delivered, as the kind counts them (`comptoir.kinds.Kind.output_in`): the units
    of output are at most as many, with a few that are not shown. Absent: before December 2026."""
    passed_ms: int | None = None
    """Where the output is milliseconds of work: those that passed at the coordinator between the start of this host's
    lease and the arrival of what it counted, which bound the units instead. Absent: it is something else."""


class Amounts(msgspec.Struct, frozen=True):
    """Money as posted: ``held = charged + released``, ``charged = fee + what hosts earned``."""

    held_uusd: int
    charged_uusd: int
    fee_uusd: int
    released_uusd: int
    transfers: list[ReceiptTransfer]


class Times(msgspec.Struct, frozen=True, gc=False):
    """Milliseconds since 1970 UTC."""

    created_ms: int
    started_ms: int | None
    settled_ms: int


class ReceiptFile(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A file that a job took in or made: its hash, never what is in it."""

    name: Name
    """What the job knows it as."""
    sha256: Sha256
    size: Bytes
    fetched: bool = False
    """Whether its host fetched it from an address: then only the host has seen the bytes, and this is its word."""


class ReceiptFiles(msgspec.Struct, frozen=True, omit_defaults=True):
    """The files of a job."""

    inputs: list[ReceiptFile] = []
    """In the order's order, without addresses that nobody fetched."""
    artifacts: list[ReceiptFile] = []
    """Those that its result names, in the order in which they came."""


class Predicate(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of the receipt: no prompt and no answer, only their hashes."""

    receipt: str
    job: str
    buyer: str | None
    dialect: str
    kind: str
    model: str
    fingerprint: str
    state: str
    segments: list[SegmentEntry]
    units: list[UnitEntry]
    """What the buyer pays for, at the agreed prices; the charge is never above their sum."""
    fee_bps: int
    amounts: Amounts
    input_sha256: str
    times: Times
    files: ReceiptFiles | None = None
    """Absent: the job has none, or it was settled before December 2026."""


class Digest(msgspec.Struct, frozen=True, gc=False):
    """Hash of the answer: the running hash over its frames (:mod:`comptoir.link.running_hash`), hex."""

    sha256: str


class Subject(msgspec.Struct, frozen=True):
    """What the statement is about: the job's answer."""

    name: str
    digest: Digest


class InTotoStatement(msgspec.Struct, frozen=True, rename={"type": "_type", "predicate_type": "predicateType"}):
    """An in-toto Statement, version 1."""

    type: str
    subject: list[Subject]
    predicate_type: str
    predicate: Predicate


# -- what is stored and published ----------------------------------------------------------------------------------


class Receipt(msgspec.Struct, frozen=True):
    """A stored receipt; the envelope is rendered from it on read."""

    job_id: bytes
    keyid: str
    payload: bytes
    signature: bytes


class PublishedKey(msgspec.Struct, frozen=True):
    """One key of the registry."""

    keyid: str
    public_key: str
    """The raw 32 bytes, hex."""
    holder_kind: HolderKind
    holder: str
    """``coordinator``, or a public host id."""
    valid_from_ms: int
    revoked_ms: int | None = None
    """From this moment on, nothing signed with the key is accepted."""


class KeyRegistry(msgspec.Struct, frozen=True):
    """The keys that a verifier trusts, by key id; see :func:`comptoir.receipts.read_registry`."""

    by_keyid: dict[str, PublishedKey]


# -- what a check found --------------------------------------------------------------------------------------------


class Check(StrEnum):
    """The checks of a verification, in order."""

    ENVELOPE = "envelope"
    """DSSE envelope over an in-toto payload, canonical base64, one signature."""
    COORDINATOR_KEY = "coordinator_key"
    """The signature names a key of the registry that belongs to a coordinator."""
    COORDINATOR_SIGNATURE = "coordinator_signature"
    STATEMENT = "statement"
    """An in-toto Statement of one of our predicate types, about one job."""
    COORDINATOR_KEY_TIME = "coordinator_key_time"
    """The key was valid when the job was settled."""
    SEGMENT_SIGNATURES = "segment_signatures"
    """Every host signature is over its segment, by a key that belonged to that host at the time."""
    FRAMES = "frames"
    """Segments follow each other without gap or overlap from frame 0, and the last hash is the subject's."""
    UNITS = "units"
    """Units add up over the segments, and are no more than the bytes delivered allow."""
    AMOUNTS = "amounts"
    """Money adds up, pays only hosts that delivered, none more than its part costs, and is within the agreed prices."""


class Reason(StrEnum):
    """Why a receipt is refused."""

    NOT_AN_ENVELOPE = "not_an_envelope"
    """Not JSON, not DSSE, too large, base64 that is not canonical, or not exactly one signature."""
    WRONG_PAYLOAD_TYPE = "wrong_payload_type"
    UNKNOWN_KEY = "unknown_key"
    """The key is not in the registry."""
    FOREIGN_KEY = "foreign_key"
    """The key is registered for another holder or for another purpose."""
    KEY_NOT_YET_VALID = "key_not_yet_valid"
    KEY_REVOKED = "key_revoked"
    BAD_COORDINATOR_SIGNATURE = "bad_coordinator_signature"
    NOT_A_RECEIPT = "not_a_receipt"
    """The signed payload is not an in-toto Statement with our predicate, or contradicts itself about its job."""
    BAD_SEGMENT_SIGNATURE = "bad_segment_signature"
    SEGMENT_MISMATCH = "segment_mismatch"
    """What the host signed names another job, attempt, host, range, hash or count than the receipt."""
    FRAMES_DO_NOT_FOLLOW = "frames_do_not_follow"
    CHAIN_MISMATCH = "chain_mismatch"
    """The hash after the last segment is not the answer's."""
    UNITS_DO_NOT_ADD_UP = "units_do_not_add_up"
    UNITS_BEYOND_OUTPUT = "units_beyond_output"
    """More is billed than the bytes of output or of the request can hold, by the rule of its kind."""
    AMOUNTS_DO_NOT_ADD_UP = "amounts_do_not_add_up"


class Verdict(msgspec.Struct, frozen=True):
    """Outcome of a verification."""

    checks: list[Check]
    """The checks that passed, in order; all of `Check` when the receipt is valid."""
    reason: Reason | None = None
    """``None`` when the receipt is valid."""
    detail: str = ""
    """What exactly is wrong, for a person."""
    statement: InTotoStatement | None = None
    """The receipt, only when it is valid, so that nobody reads a refused one by mistake."""
    unsigned_segments: int = 0
    """Segments without their host's signature; `AuthenticatedBy` says for each what replaces it."""

    unbounded_segments: int = 0
    """Segments that state no bytes (receipts from before December 2026), or whose kind's rule is not known here: that
    what is billed of them was delivered is the coordinator's word alone."""

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return self.reason is None
