"""Messages of the link, as msgpack arrays: tag first, fields by position, new fields only at the end."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from comptoir.kit.msgpack import values_within
from comptoir.kit.numbers import Int64

LINK_VERSION = 1
"""Version of the wire format. A coordinator refuses another major version with ``Bye``."""

COUNT_MAX = 2**31 - 1
"""Largest count of tokens and largest frame number in a message."""

USAGE_BYTES_MAX = 64 * 1024
"""Longest ``usage`` object of an engine; a typical one has 300 bytes."""

CONTAINER = "container"
"""The job kind whose jobs are chains of containers (`ContainerRun`)."""

# What a worker says is bounded here, in its type, before anything of it is kept: a list is refused by the length that
# it declares, and a longer text ends the link. The bounds lie well above what our workers send, and above what the
# checks behind them take, which refuse in words.

ID_BYTES_MAX = 64
"""Longest lease or hash; ours have 16 and 32 bytes."""

WORD_CHARS_MAX = 256
"""Longest kind, region, unit, software or fault."""

NAME_CHARS_MAX = 1024
"""Longest name of a model, fingerprint of weights or description of a GPU; 256 are taken (`hosts.check`)."""

DESCRIPTION_CHARS_MAX = 8 * 1024
"""Longest description or image of a container; 2,000 are taken."""

ADDRESS_CHARS_MAX = 128
"""Longest network, chain address or amount in a container's card; 64 are taken."""

CARD_LIST_MAX = 4096
"""Most networks, addresses or payments in a container's card; 1,000 are taken."""

OFFERS_MAX = 1024
"""Most models in an offer; 256 are taken. As many containers report their resources."""

OFFER_KINDS_MAX = 64
"""Most kinds, or units with a price, of one offer; 16 are taken."""

OFFER_CAPABILITIES_MAX = 64
"""Most capabilities that one offer speaks of; 16 are taken."""

OPEN_LEASES_MAX = 16 * 1024
"""Most leases that a worker may hold frames of; ours keeps 4,096 that wait to be settled, beside its slots."""

FRAMES_MAX = 128 * 1024
"""Most frames in one message; ours keeps about 30,000 of a lease, and may send all of them after a reconnect."""

FRAME_TEXT_MAX = 64 << 20
"""Longest text, and longest extra, of one frame: no more fits a message."""

WALKED_BYTES = 2 << 20
"""In a message of this size or more the values are counted before it is decoded: 80 MB of empty frames were 6 GB. Ours
sends 1 MiB of answers at once, or one larger frame."""

VALUES_MAX = 256 * 1024
"""Most values of such a message; a frame has four."""

MESSAGES_MAX = 64 * 1024
"""Most messages sent as one: ours sends the frames, ends and reports of one turn of its event loop together."""

FINISH_CHARS_MAX = 64 * 1024
"""Longest finish reason, code and message of a failure that are heard at all; what is stored of them is far shorter
(`dispatch/stream.py`), and what is longer than that is the host's fault, not the link's."""

FAIL_BODY_BYTES_MAX = 1 << 20
"""Longest error body of an engine; ours sends 16 KiB, and no more is kept."""

REPORT_BYTES_MAX = 4 << 20
"""Longest report of a container about itself."""

RECEIPT_BYTES_MAX = 128 << 10
"""Longest receipt that goes over the link: one of a single host has 2 KB, and each further attempt adds 1 KB."""

HEAD_BYTES_MAX = 4 << 10
"""Longest signed statement of a coordinator about what it has confirmed; ours have some 300 bytes."""

HEADS_MAX = 16
"""Most coordinators whose statements a worker brings."""

LISTED_MAX = 4096
"""Most receipts that one message lists."""

HANDED_MAX = 64
"""Most receipts in one message."""

Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
Id = Annotated[bytes, msgspec.Meta(max_length=ID_BYTES_MAX)]
Word = Annotated[str, msgspec.Meta(max_length=WORD_CHARS_MAX)]
Name = Annotated[str, msgspec.Meta(max_length=NAME_CHARS_MAX)]
Description = Annotated[str, msgspec.Meta(max_length=DESCRIPTION_CHARS_MAX)]
Address = Annotated[str, msgspec.Meta(max_length=ADDRESS_CHARS_MAX)]
Addresses = Annotated[list[Address], msgspec.Meta(max_length=CARD_LIST_MAX)]
ReportBytes = Annotated[bytes, msgspec.Meta(max_length=REPORT_BYTES_MAX)]
FailWords = Annotated[str, msgspec.Meta(max_length=FINISH_CHARS_MAX)]
HeadBytes = Annotated[bytes, msgspec.Meta(max_length=HEAD_BYTES_MAX)]


class Frame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One numbered piece of an answer (its number is its position, see `Frames.seq`)."""

    text: Annotated[str, msgspec.Meta(max_length=FRAME_TEXT_MAX)] = ""
    """Text delta of choice 0 (or of ``index`` in *extra*); always whole characters."""
    tokens: Count = 1
    """Units of output that this piece stands for (LLM tokens in a chat, one run of a container); 0 for none (role,
    finish)."""
    extra: Annotated[bytes, msgspec.Meta(max_length=FRAME_TEXT_MAX)] = b""
    """JSON object with the engine's other fields for this piece: ``delta`` (fields beside ``content``, for example
    ``tool_calls`` or ``reasoning_content``), ``logprobs``, ``index`` (choice, when not 0), ``finish_reason`` (of a
    choice), or ``data`` (the list of an embeddings answer). Empty for plain text.

    ``chunk`` (fields beside ``choices``), ``choice`` (fields beside a choice's delta) and ``blank`` (fields of its
    delta that are null or empty) hold for this frame and those after it, until a frame says them anew."""


class Usage(msgspec.Struct, array_like=True, frozen=True):
    """What the engine counted."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    details: Annotated[bytes, msgspec.Meta(max_length=USAGE_BYTES_MAX)] = b""
    """The engine's whole ``usage`` JSON object (cached tokens, reasoning tokens), empty if it had none."""

    def billed(self, delivered: int) -> int:
        """Return the answer's billed tokens: those *delivered* by frame count, or fewer if the engine counted fewer.

        Both sides of the link use this figure, so a segment's signature covers what is billed.
        """
        return min(delivered, self.completion_tokens) if self.details else delivered


class ContainerCard(msgspec.Struct, array_like=True, frozen=True):
    """What a host declares about a container beside name and price, and whom it admits."""

    description: Description = ""
    image: Description = ""
    external: bool = True
    """Whether a job may begin with it; false: it only takes another container's output."""
    generates_proofs: bool = False
    allowed_ips: Addresses = []
    """Networks (CIDR) whose callers may use it; empty: anybody."""
    timeout_s: float = 180.0
    """Longest run; a container sends nothing before it is done, so its silence means nothing until then."""
    rate_requests: Int64 = 0
    """Most jobs of one caller within *rate_period_s*; 0: no limit."""
    rate_period_s: float = 60.0
    accepted_payments: Annotated[dict[Address, Address], msgspec.Meta(max_length=CARD_LIST_MAX)] = {}
    """Least payment in wei (decimal text) per token address for an on-chain job; empty: free."""
    allowed_addresses: Addresses = []
    """Owners of on-chain subscriptions that may use it; empty: anybody."""
    allowed_delegate_addresses: Addresses = []
    """Owners of delegated subscriptions that may use it; empty: anybody."""


class ModelOffer(msgspec.Struct, array_like=True, frozen=True):
    """One model (or container) that a host serves, and its price."""

    name: Name
    kinds: Annotated[list[Word], msgspec.Meta(max_length=OFFER_KINDS_MAX)]
    """Kinds served, sold in the same units: ``chat``, ``completion``, ``embedding``; ``container``; or another."""
    context_tokens: Int64 = 4096
    """Prompt and answer together."""
    price_in_uusd_per_mtok: Int64 = 0
    price_out_uusd_per_mtok: Int64 = 0
    can_continue: bool = False
    """True when the engine accepts delivered frames as a forced prefix (`Job.prefix`)."""
    fingerprint: Name = ""
    """``sha256:<hex>`` of the weights, if known."""
    container: ContainerCard | None = None
    """For kind ``container``, whose unit is a run: *price_out_uusd_per_mtok* is the price of a million runs."""
    prices: Annotated[dict[Word, Int64], msgspec.Meta(max_length=OFFER_KINDS_MAX)] = {}
    """Micro-dollars per million of each unit that the kinds are sold in (`comptoir.kinds`); empty: from an older
    worker, whose two prices above apply."""
    text_only: bool = False
    """Whether the host takes only one text with a length and a temperature, all that some published APIs carry."""
    no_promotions: bool = False
    """Whether the host takes no job that might be paid from promotional credit, which never leaves."""
    capabilities: Annotated[dict[Word, Word], msgspec.Meta(max_length=OFFER_CAPABILITIES_MAX)] = {}
    """What is known of what the model can do beyond its kinds: ``probed``, ``claimed`` or ``lacking``, by capability
    (`comptoir.kinds.capabilities`); of one that is not named, nothing."""


class OpenAttempt(msgspec.Struct, array_like=True, frozen=True):
    """A lease for which the worker still holds frames."""

    lease: Id
    end_seq: Count
    """Sequence number after the last frame the worker has produced so far."""


class Have(msgspec.Struct, array_like=True, frozen=True):
    """Which frames of a lease the coordinator has: all below *next_seq*. ``known`` false: drop the lease."""

    lease: bytes
    next_seq: int
    known: bool = True
    max_tokens: int = 0
    """`Job.max_tokens` as it is now, of a job with `Job.grows_to`; 0: as it was said last."""
    final: bool = False
    """Whether *max_tokens* is not raised any more: the worker ends the answer there, with ``length``."""


class SignedReceipt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A job's receipt as its coordinator signed and stored it (`comptoir.receipts`)."""

    keyid: Word
    """Id of the coordinator's key, 64 hexadecimal digits."""
    payload: Annotated[bytes, msgspec.Meta(max_length=RECEIPT_BYTES_MAX)]
    """The signed statement, JSON."""
    signature: Id
    """Ed25519 over its pre-authentication encoding, 64 bytes."""


# -- worker to coordinator ---------------------------------------------------------------------------------------


class Hello(msgspec.Struct, array_like=True, frozen=True, tag="hello"):
    """First message on every connection."""

    version: Int64
    software: Word
    slots: Int64
    """Jobs the worker runs at once."""
    models: Annotated[list[ModelOffer], msgspec.Meta(max_length=OFFERS_MAX)]
    open: Annotated[list[OpenAttempt], msgspec.Meta(max_length=OPEN_LEASES_MAX)]
    heads: Annotated[list[HeadBytes], msgspec.Meta(max_length=HEADS_MAX)] = []
    """The newest `ConfirmedHead.statement` of each coordinator of this trading post, as far as the worker holds any."""
    keeps_receipts: bool = False
    """Whether the worker keeps receipts: only then it is sent `ConfirmedHead` and `AskReceipts`."""


class Frames(msgspec.Struct, array_like=True, frozen=True, tag="frames"):
    """Frames ``seq, seq+1, …`` of a lease. Frames already received are ignored; a gap is a protocol error."""

    lease: Id
    seq: Count
    items: Annotated[list[Frame], msgspec.Meta(max_length=FRAMES_MAX)]


class Done(msgspec.Struct, array_like=True, frozen=True, tag="done"):
    """The answer is complete; repeated after a reconnect until ``Settled`` comes."""

    lease: Id
    end_seq: Count
    finish_reason: FailWords
    usage: Usage
    chain: Id
    """Running hash after the last frame, 32 bytes."""
    signature: Id
    """Ed25519 over :func:`comptoir.link.segment_bytes`, 64 bytes."""


class Fail(msgspec.Struct, array_like=True, frozen=True, tag="fail"):
    """The engine could not answer, or not continue; what was delivered before is kept."""

    lease: Id
    code: FailWords
    message: FailWords
    fault: Word
    """Whose fault: ``buyer`` (bad request), ``host``, ``capacity`` (busy, 429), ``coordinator``."""
    status: Int64 = 0
    """HTTP status of the engine's answer, 0 if there was none."""
    body: Annotated[bytes, msgspec.Meta(max_length=FAIL_BODY_BYTES_MAX)] = b""
    """The engine's JSON error body, if any (at most 16 KiB)."""
    retry_after_s: float = 0.0


class Models(msgspec.Struct, array_like=True, frozen=True, tag="models"):
    """The offer changed: replaces the whole list."""

    models: Annotated[list[ModelOffer], msgspec.Meta(max_length=OFFERS_MAX)]
    slots: Int64


class Drain(msgspec.Struct, array_like=True, frozen=True, tag="drain"):
    """The worker accepts no new jobs; it finishes those it has, then closes."""


class Resources(msgspec.Struct, array_like=True, frozen=True, tag="resources"):
    """What the host's containers report about themselves, verbatim; replaces the last report."""

    of: Annotated[dict[Name, ReportBytes], msgspec.Meta(max_length=OFFERS_MAX)]
    """JSON of ``GET /service-resources`` by container; one that did not answer is absent."""


class Report(msgspec.Struct, array_like=True, frozen=True, tag="report"):
    """Answer to `Inquire`."""

    inquiry: Int64
    body: ReportBytes
    """JSON of ``GET /service-resources?model_id=``; empty: the container did not answer."""


class KeptReceipt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A receipt that the worker keeps."""

    job_id: Id
    sha256: Id
    """Hash of `SignedReceipt.payload`."""


class HandIn(msgspec.Struct, array_like=True, frozen=True, tag="hand_in"):
    """Answer to `AskReceipts`, of which one at a time is open; sent unasked it breaks the protocol."""

    listed: Annotated[list[KeptReceipt], msgspec.Meta(max_length=LISTED_MAX)] = []
    """Receipts that the worker keeps, the newest first."""
    more: bool = False
    """Whether it keeps more than it has listed so far."""
    receipts: Annotated[list[SignedReceipt], msgspec.Meta(max_length=HANDED_MAX)] = []
    """The receipts that were wanted, as far as it keeps them."""


# -- coordinator to worker ---------------------------------------------------------------------------------------


class Welcome(msgspec.Struct, array_like=True, frozen=True, tag="welcome"):
    """Answer to ``Hello``."""

    version: int
    host_id: str
    have: list[Have]
    """One entry for every ``Hello.open`` lease."""
    window_frames: int
    """Most unacknowledged frames of one lease; at that point the worker stops reading its engine."""
    pulse_s: float
    """How often the worker should call ``POST /link/pulse``."""


class Job(msgspec.Struct, array_like=True, frozen=True, tag="job"):
    """A lease on a job. Repeated after a reconnect if it may not have arrived: same lease, same job."""

    lease: bytes
    job_id: bytes
    kind: str
    """``chat``, ``completion``, ``embedding``, ``container``, or another by name."""
    model: str
    body: bytes
    """The request body (JSON), exactly as it is hashed into the segment: OpenAI-style, unknown fields included, or
    `ContainerRun`."""
    deadline_ms: int
    """Wall-clock time after which nobody waits any more."""
    start_seq: int = 0
    """Number of the first frame to send; > 0 when the job continues another host's frames."""
    prefix: list[Frame] = []
    """The frames before *start_seq*."""
    chain: bytes = b""
    """Running hash before *start_seq*; empty means `hash_start(job_id)`."""
    max_tokens: int = 0
    """Most tokens of the answer over all its choices that the hold covers; the worker ends the answer there with
    ``length``. 0: only the body limits it."""
    left_ms: int = 0
    """Milliseconds to the deadline when this was sent; a worker relies on it because its clock may differ from the
    coordinator's by hours. 0: from an older coordinator, which only sends *deadline_ms*."""
    grows_to: int = 0
    """Most tokens that *max_tokens* may be raised to while the job runs (`Have.max_tokens`), since the buyer named no
    bound: the worker waits at *max_tokens* until it is told. 0: *max_tokens* is final."""


class ContainerRun(msgspec.Struct, frozen=True):
    """Body of a job of kind ``container``: containers run in order, each on the output of the one before.

    A container that does not stream answers with exactly one frame: *text* is its JSON, *tokens* 1 (one run),
    *extra* ``{"finish_reason":"stop"}``. So the number of frames in `Job.prefix` is the number of the container to run,
    and the last of them its input; without any, the input is *data*.

    The last container of a job with *stream* answers with the bytes that it sends: as *text* of a frame if they are
    UTF-8, else as *extra* ``{"base64":"…"}``. The first frame counts as the run (*tokens* 1, the others 0), and an
    empty last frame has ``{"finish_reason":"stop"}``.
    """

    containers: list[str]
    data: msgspec.Raw
    """Any JSON, byte for byte as the buyer sent it."""
    requires_proof: bool = False
    stream: bool = False


class Cancel(msgspec.Struct, array_like=True, frozen=True, tag="cancel"):
    """Stop the lease at once; frames sent later are ignored."""

    lease: bytes
    reason: str


class Acks(msgspec.Struct, array_like=True, frozen=True, tag="acks"):
    """Which frames of each lease the coordinator has."""

    have: list[Have]


class Settled(msgspec.Struct, array_like=True, frozen=True, tag="settled"):
    """The lease is closed and paid; the worker may forget it. Sent for failed and cancelled leases as well."""

    lease: bytes
    job_id: str
    state: str
    """Final state of the attempt: ``done``, ``failed`` or ``lost``."""
    earned_uusd: int
    tokens: int
    balance_uusd: int
    """The host's balance after this job; 0: it is not known, since nothing was earned."""
    promo_uusd: int = 0
    """Part of that balance that is promotional: it buys, and never leaves."""
    receipt: SignedReceipt | None = None
    """The job's receipt, if it was settled with this message, for the worker to keep; None also if it is longer than
    `RECEIPT_BYTES_MAX`."""


class ConfirmedHead(msgspec.Struct, array_like=True, frozen=True, tag="head"):
    """What the coordinator has confirmed so far, signed: for the worker to keep in place of the one before.

    Sent within four seconds after something was settled for the host.
    """

    keeper: bytes
    """Which coordinator of the trading post says so."""
    statement: bytes
    """To be brought back as it is (`Hello.heads`)."""


class AskReceipts(msgspec.Struct, array_like=True, frozen=True, tag="ask_receipts"):
    """Asked by a coordinator whose database lost commits: which receipts does the worker keep, or hand in these."""

    after: int = 0
    """List those after so many, `LISTED_MAX` at most."""
    wanted: list[bytes] = []
    """Hand in the receipts of these jobs instead, `HANDED_MAX` at most."""


class Inquire(msgspec.Struct, array_like=True, frozen=True, tag="inquire"):
    """Ask a container whether it supports a model. Sent only to hosts that offer containers."""

    inquiry: int
    """Number of the question on this connection; repeated in the `Report`."""
    container: str
    model_id: str


class Bye(msgspec.Struct, array_like=True, frozen=True, tag="bye"):
    """The coordinator closes; *reconnect_after_s* < 0 means not to reconnect with this version or key."""

    reason: str
    reconnect_after_s: float


FromWorker = Hello | Frames | Done | Fail | Models | Drain | Resources | Report | HandIn
FromCoordinator = Welcome | Job | Cancel | Acks | Settled | Bye | Inquire | ConfirmedHead | AskReceipts

# -- the pulse: heartbeats on a path of their own (plain HTTP, JSON), so that frames can't starve them --------------


class Pulse(msgspec.Struct, frozen=True):
    """Body of ``POST /link/pulse`` (Bearer host key)."""

    gpu_utilization: float = 0.0
    """0..1 over all GPUs; 0 without a GPU."""
    running: int = 0
    gpu: Name = ""
    vram_mib: int = 0


class PulseAnswer(msgspec.Struct, frozen=True):
    """Answer to a pulse."""

    status: str = "acknowledged"
    linked: bool = False
    """Whether the coordinator sees a live link of this host; false tells the worker to reconnect."""
    ignored: dict[str, str] = {}
    """Models of this host that nobody is offered, in quarantine, and the operator's reason."""


_encoder = msgspec.msgpack.Encoder()
_from_worker = msgspec.msgpack.Decoder(Annotated[list[FromWorker], msgspec.Meta(max_length=MESSAGES_MAX)])
_from_coordinator = msgspec.msgpack.Decoder(list[FromCoordinator])


def encode(messages: Sequence[FromWorker | FromCoordinator]) -> bytes:
    """Encode one batch as one WebSocket binary message."""
    return _encoder.encode(messages)


def decode_from_worker(data: bytes) -> list[FromWorker]:
    """Decode what a worker sent.

    Raises:
        msgspec.DecodeError: not msgpack, unknown tag, or a field of the wrong type or beyond its bound.
    """
    if len(data) >= WALKED_BYTES and not values_within(data, VALUES_MAX):
        raise msgspec.DecodeError(f"more than {VALUES_MAX:,} values in one message")
    messages: list[FromWorker] = _from_worker.decode(data)
    return messages


def decode_from_coordinator(data: bytes) -> list[FromCoordinator]:
    """Decode what the coordinator sent.

    Raises:
        msgspec.DecodeError: not msgpack, unknown tag, or a field of the wrong type.
    """
    return _from_coordinator.decode(data)
