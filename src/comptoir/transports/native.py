"""The native shape: the link's messages in JSON, for hosts that poll or are pushed (docs/dialects/native.md).

Each struct mirrors one of `comptoir.link`; bytes are base64, and a lease has its public name (``att_…``), because it is
the attempt that job views and receipts show. So such a host can get any kind of work, with everything a worker gets.
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
"""Most bytes of an engine's error body, as over the link."""

Lease = Annotated[str, Meta(max_length=64)]
Count = Annotated[int, Meta(ge=0, le=link.COUNT_MAX)]


class NativeFrame(msgspec.Struct, omit_defaults=True, gc=False):
    """One numbered piece of an answer."""

    text: Annotated[str, Meta(max_length=TEXT_CHARS_MAX)] = ""
    tokens: Count = 1
    """Units that this piece stands for (LLM tokens in a chat); 0 for none."""
    extra: Annotated[bytes, Meta(max_length=TEXT_CHARS_MAX)] = b""
    """JSON object with the engine's other fields for this piece, byte for byte as it is hashed."""


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
    """Request body, byte for byte as it was bought."""
    deadline_ms: int
    left_ms: int
    """Milliseconds to the deadline when this was sent."""
    start_seq: int
    """Number of the first frame to send; above 0 when the job continues another host's frames."""
    prefix: list[NativeFrame]
    """The frames before *start_seq*."""
    chain: bytes
    """Running hash before *start_seq*; empty if that is 0."""
    max_tokens: int
    """Most units of the whole answer that the hold covers; 0: only the body limits it."""


class NativeFrames(msgspec.Struct):
    """Frames ``seq, seq+1, …`` of a lease. Frames already received are ignored; a gap is refused."""

    lease: Lease
    seq: Count
    items: Annotated[list[NativeFrame], Meta(max_length=ITEMS_MAX)]

    def frames(self) -> list[link.Frame]:
        """Return the frames as dispatch takes them."""
        return [link.Frame(item.text, item.tokens, item.extra) for item in self.items]


class NativeDone(msgspec.Struct):
    """The answer is complete."""

    lease: Lease
    end_seq: Count
    """Number after the last frame."""
    finish_reason: Annotated[str, Meta(max_length=64)] = "stop"
    usage: NativeUsage = msgspec.field(default_factory=NativeUsage)
    chain: Annotated[bytes, Meta(max_length=32)] = b""
    """Running hash after the last frame, 32 bytes; compared if given."""
    signature: Annotated[bytes, Meta(max_length=64)] = b""
    """Ed25519 over `comptoir.link.segment_bytes`, 64 bytes; from a host that registered a key."""

    def counted(self) -> link.Usage:
        """Return the usage as dispatch takes it."""
        return link.Usage(self.usage.prompt_tokens, self.usage.completion_tokens, self.usage.details)


class NativeFail(msgspec.Struct):
    """The host could not answer, or not continue; what it delivered before is kept."""

    lease: Lease
    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=4096)] = ""
    fault: Literal["buyer", "host", "capacity", "coordinator"] = "host"
    status: Annotated[int, Meta(ge=0, le=599)] = 0
    """HTTP status of the engine's answer, 0 if there was none."""
    body: Annotated[bytes, Meta(max_length=BODY_BYTES_MAX)] = b""
    """The engine's own error body."""
    retry_after_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0


class FramesLine(NativeFrames, tag_field="type", tag="frames"):
    """Frames, as a line of a push host's answer."""


class DoneLine(NativeDone, tag_field="type", tag="done"):
    """The end, as a line of a push host's answer."""


class FailLine(NativeFail, tag_field="type", tag="fail"):
    """A failure, as a line of a push host's answer."""


NativeLine = FramesLine | DoneLine | FailLine
_line = msgspec.json.Decoder(NativeLine)


def decode_line(data: bytes) -> NativeLine:
    """Decode one line of a push host's answer.

    Raises:
        msgspec.DecodeError: not JSON, none of the three types, or a field is out of bounds.
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
    """Return the lease with this public name; None: *text* is not one."""
    return parse("att", text)
