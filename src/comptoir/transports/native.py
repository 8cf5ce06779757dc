"""The native shape: the link's messages in JSON, for hosts that poll or are pushed (docs/dialects/native.md).

Each struct is the twin of one of `comptoir.link`; bytes are base64, and a lease has its public name (``att_…``), because it is the
attempt that job views and receipts show. So any kind of work reaches such a host, with everything that a worker is told.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from comptoir import link
from comptoir.kit.ids import parse, public

NATIVE = "native"
"""Name of the shape (`hosts.HostRow.speaks`)."""

ITEMS_MAX = 8192
"""Frames in one message."""

TEXT_CHARS_MAX = 1 << 20
BODY_BYTES_MAX = 16 * 1024
"""Of an engine's own error body, as over the link."""

Lease = Annotated[str, Meta(max_length=64)]
Count = Annotated[int, Meta(ge=0, le=link.COUNT_MAX)]


class NativeFrame(msgspec.Struct, omit_defaults=True, gc=False):
    """One numbered piece of an answer."""

    text: Annotated[str, Meta(max_length=TEXT_CHARS_MAX)] = ""
    tokens: Count = 1
    """Units this piece stands for (LLM tokens of a chat); 0 for pieces that carry none."""
    extra: Annotated[bytes, Meta(max_length=TEXT_CHARS_MAX)] = b""
    """JSON object with what else the engine said of this piece, to the byte as it is hashed."""


class NativeUsage(msgspec.Struct, omit_defaults=True):
    """What the engine counted."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    details: Annotated[bytes, Meta(max_length=link.USAGE_BYTES_MAX)] = b""
    """The engine's whole ``usage`` object (JSON), if it has one."""


class NativeJob(msgspec.Struct):
    """A lease on a job."""

    lease: str
    job_id: str
    kind: str
    model: str
    body: bytes
    """As it was bought, to the byte."""
    deadline_ms: int
    left_ms: int
    """Milliseconds to the deadline when this was sent."""
    start_seq: int
    """Number of the first frame to send; above 0 when the job goes on from another host."""
    prefix: list[NativeFrame]
    """The frames before *start_seq*."""
    chain: bytes
    """Running hash before *start_seq*; empty where that is 0."""
    max_tokens: int
    """Most units of the whole answer, as the hold covers them; 0: the body alone says."""


class NativeFrames(msgspec.Struct):
    """Frames ``seq, seq+1, …`` of a lease. Repeats of frames already held are ignored; a gap is refused."""

    lease: Lease
    seq: Count
    items: Annotated[list[NativeFrame], Meta(max_length=ITEMS_MAX)]

    def frames(self) -> list[link.Frame]:
        """Return them as the verbs take them."""
        return [link.Frame(item.text, item.tokens, item.extra) for item in self.items]


class NativeDone(msgspec.Struct):
    """The answer is complete."""

    lease: Lease
    end_seq: Count
    """Number after the last frame."""
    finish_reason: Annotated[str, Meta(max_length=64)] = "stop"
    usage: NativeUsage = msgspec.field(default_factory=NativeUsage)
    chain: Annotated[bytes, Meta(max_length=32)] = b""
    """Running hash after the last frame, 32 bytes; it is compared if it is given."""
    signature: Annotated[bytes, Meta(max_length=64)] = b""
    """Ed25519 over `comptoir.link.segment_bytes`, 64 bytes; from a host that registered a key."""

    def counted(self) -> link.Usage:
        """Return what was counted as the verbs take it."""
        return link.Usage(self.usage.prompt_tokens, self.usage.completion_tokens, self.usage.details)


class NativeFail(msgspec.Struct):
    """The host could not (go on to) answer; what was delivered before stays delivered."""

    lease: Lease
    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=4096)] = ""
    fault: Literal["buyer", "host", "capacity", "coordinator"] = "host"
    status: Annotated[int, Meta(ge=0, le=599)] = 0
    """HTTP status of the engine's answer, 0 when there was none."""
    body: Annotated[bytes, Meta(max_length=BODY_BYTES_MAX)] = b""
    """The engine's own error body."""
    retry_after_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0


class FramesLine(NativeFrames, tag_field="type", tag="frames"):
    """Frames, as a line of a pushed host's answer."""


class DoneLine(NativeDone, tag_field="type", tag="done"):
    """The end, as a line of a pushed host's answer."""


class FailLine(NativeFail, tag_field="type", tag="fail"):
    """A failure, as a line of a pushed host's answer."""


NativeLine = FramesLine | DoneLine | FailLine
_line = msgspec.json.Decoder(NativeLine)


def decode_line(data: bytes) -> NativeLine:
    """Decode one line of a pushed host's answer.

    Raises:
        msgspec.DecodeError: not JSON, none of the three, or a field is out of bounds.
    """
    line: NativeLine = _line.decode(data)
    return line


def spell(job: link.Job) -> NativeJob:
    """Return a job as a native host gets it."""
    return NativeJob(
        lease_name(job.lease),
        public("job", job.job_id),
        job.kind,
        job.model,
        job.body,
        job.deadline_ms,
        job.left_ms,
        job.start_seq,
        spell_frames(job.prefix),
        job.chain,
        job.max_tokens,
    )


def spell_frames(frames: Sequence[link.Frame]) -> list[NativeFrame]:
    """Return frames as a native host gets them."""
    return [NativeFrame(frame.text, frame.tokens, frame.extra) for frame in frames]


def lease_name(lease: bytes) -> str:
    """Return a lease's public name."""
    return public("att", lease)


def lease_named(text: str) -> bytes | None:
    """Return the lease of a public name; None: it is none."""
    return parse("att", text)
