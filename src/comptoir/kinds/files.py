"""Jobs with files: how an order names what goes into a program, and how frames say what comes out of it.

A kind of programs subclasses `FileKind`. The body of its orders is a JSON object with ``inputs``, a list of
`InputFile`; its frames may have a `FileExtra` beside their text. Files themselves never travel on the link: the worker
fetches inputs and delivers artifacts over plain HTTP, under its lease (docs/files.md).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from comptoir.kinds.extras import FINISH_REASON_CHARS_MAX, BadExtra, PlainExtra, read_extra
from comptoir.kinds.kind import Kind, Progress, Resume, finish_reason_in
from comptoir.kinds.named_files import (
    ARTIFACTS_MAX,
    INPUTS_MAX,
    NAME_CHARS_MAX,
    Artifact,
    Bytes,
    InputFile,
    Name,
    Sha256,
)
from comptoir.kinds.output import NO_OUTPUT, Size, text_size
from comptoir.link import Frame

FILE_EXTRA_BYTES_MAX = 1024 * 1024
"""Longest extra of one frame: a result that is JSON stands in one."""


ARTIFACT, FETCHED, BEGUN_AGAIN = b'"artifact"', b'"fetched"', b'"begun_again":true'
"""By what it is seen quickly that an extra may have this; one that says so otherwise is refused."""


class Fetched(msgspec.Struct, frozen=True):
    """An input that the host fetched from an address: its word, since only it has seen the bytes."""

    number: Annotated[int, Meta(ge=0, lt=INPUTS_MAX)]
    """Place in the order's ``inputs``."""
    size: Bytes
    sha256: Sha256


class WorkProgress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a job is, by its host's word; shown, never billed."""

    done: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Part of the whole. None: the whole is not known."""
    note: Annotated[str, Meta(max_length=500)] = ""
    """What it is doing, for people."""
    count: Annotated[int, Meta(ge=0, le=2**53 - 1)] | None = None
    """Units of the kind's output so far, of which some may not be billed yet."""


class ProgramFailure(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a program failed by its own doing: the host did what was asked, and is paid for it."""

    reason: Annotated[str, Meta(min_length=1, max_length=FINISH_REASON_CHARS_MAX)]
    """The job's finish reason: what the program did, or which of its limits it reached."""
    message: Annotated[str, Meta(max_length=500)] = ""
    """More of it, for people."""
    exit_code: Annotated[int, Meta(ge=0, le=255)] | None = None
    """As a shell says it; None: it was stopped."""


class FileExtra(PlainExtra, omit_defaults=True):
    """What may stand beside a frame's text, which is a piece of the program's output (its log)."""

    stream: Literal["", "stdout", "stderr"] = ""
    """Where the text comes from; empty: nothing was said, or it is not known."""
    progress: WorkProgress | None = None
    artifact: Artifact | None = None
    fetched: Fetched | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """What the program returned, any JSON."""
    begun_again: bool = False
    """This host begins from the start: what earlier hosts said and delivered is no part of the result. First frame of a
    host that can't go on from where the one before it was lost."""
    failed: ProgramFailure | None = None
    """In the last frame of a program that failed by its own doing."""


_DELIVERED = (b'"artifact"', b'"result"', b'"failed"', b'"finish_reason"')
"""Without one of these in its extra, a frame delivers nothing; most have none."""

_encode = msgspec.json.Encoder().encode
_extra_in = msgspec.json.Decoder(FileExtra).decode


def file_frame(text: str = "", count: int = 0, **fields: object) -> Frame:
    """Return a frame of *text* that stands for *count* units, with the *fields* of `FileExtra`."""
    return Frame(text, count, _encode(FileExtra(**fields)) if fields else b"")  # type: ignore[arg-type]


def extra_of(frame: Frame) -> FileExtra:
    """Return what stands beside *frame*'s text; nothing if it can't be read, which `Kind.check_extra` refuses."""
    if not frame.extra:
        return FileExtra()
    try:
        return _extra_in(frame.extra)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return FileExtra()


def _delivers(extra: bytes) -> bool:
    if not any(mark in extra for mark in _DELIVERED):
        return False
    try:
        said = _extra_in(extra)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False  # It is refused by `Kind.check_extra`.
    if said.artifact is not None or said.failed is not None:
        return True
    return said.result is not msgspec.UNSET or bool(said.finish_reason)


def current(frames: Sequence[Frame]) -> Sequence[Frame]:
    """Return the frames since the last host that began again."""
    for at in range(len(frames) - 1, -1, -1):
        if BEGUN_AGAIN in frames[at].extra and extra_of(frames[at]).begun_again:
            return frames[at:]
    return frames


def artifact_in(extra: bytes) -> Artifact | None:
    """Return the file that a frame's *extra* says was made; None: it names none."""
    return extra_of(Frame("", 0, extra)).artifact if ARTIFACT in extra else None


def artifacts_in(frames: Sequence[Frame]) -> list[Artifact]:
    """Return the artifacts that are part of the result, in the order in which they came."""
    found = [artifact_in(frame.extra) for frame in current(frames)]
    return [artifact for artifact in found if artifact is not None]


def file_fetched(extra: bytes) -> Fetched | None:
    """Return what a frame's *extra* says was fetched; None: nothing."""
    return extra_of(Frame("", 0, extra)).fetched if FETCHED in extra else None


def fetched_in(frames: Sequence[Frame]) -> dict[int, Fetched]:
    """Return what the host whose frames are the result fetched from addresses, by the input's number."""
    found = [file_fetched(frame.extra) for frame in current(frames)]
    return {each.number: each for each in found if each is not None}


class _Inputs(msgspec.Struct):
    inputs: Annotated[tuple[InputFile, ...], Meta(max_length=INPUTS_MAX)] = ()


_inputs_in = msgspec.json.Decoder(_Inputs).decode
_fields_in = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class FileKind(Kind):
    """A kind of programs, with files as inputs and results.

    Its units come in frames of whole results, and logs and progress count nothing: a host that is lost half-way has
    earned what it delivered whole, and one that begins again is paid for the whole. Its engines send a frame at least
    every second from the start of the lease on, also while they fetch and prepare: progress, if there is nothing else.
    """

    files = True
    input_field = "inputs"
    noun = "program"
    may_hedge = False
    steady = False
    quiet_s = 5.0

    def inputs(self, body: bytes) -> tuple[InputFile, ...]:
        """Return the inputs that an order's (checked) body names."""
        return _inputs_in(body).inputs

    def with_facts(self, body: bytes, facts: Mapping[int, InputFile]) -> bytes:
        """Return *body* with some inputs replaced, by their place; every other field stays as it is, byte for byte."""
        if not facts:
            return body
        fields = _fields_in(body)
        inputs = [facts.get(at, each) for at, each in enumerate(self.inputs(body))]
        return _encode(fields | {"inputs": inputs})

    def output_in(self, text: str, extras: Sequence[bytes]) -> Size:
        """Count what is delivered whole, as its frames say it: files, results, and how the program ended.

        What it prints and how far it is are shown as they come, and nothing is paid for them; but where time is sold,
        they show that it passes.
        """
        if self.timed:
            solid, blank = text_size(text) if text else NO_OUTPUT
            return solid + len(extras), blank
        return sum([len(extra) for extra in extras if _delivers(extra)]), 0

    def used(self, frames: Sequence[Frame]) -> int:
        """Return the units of the newest progress that has any, where time is sold; else only what came is paid."""
        for frame in reversed(frames) if self.timed else ():
            if b'"progress"' in frame.extra and (progress := extra_of(frame).progress) is not None and progress.count:
                return progress.count
        return 0

    def check_extra(self, extra: bytes) -> None:
        """Refuse what is no `FileExtra`, and JSON that not everybody can read, in its result as well; and what spells
        something that is looked for (`ARTIFACT`, `FETCHED`, `BEGUN_AGAIN`) so that it is not found."""
        read_extra(extra, PlainExtra, bytes_max=FILE_EXTRA_BYTES_MAX)
        try:
            # From the bytes: a result stays raw, which values that are decoded already can't be.
            read = _extra_in(extra)
        except msgspec.DecodeError as error:
            raise BadExtra(str(error)) from error
        looked_for = (
            (ARTIFACT, read.artifact is not None),
            (FETCHED, read.fetched is not None),
            (BEGUN_AGAIN, read.begun_again),
        )
        for spelling, there in looked_for:
            if there and spelling not in extra:
                raise BadExtra(f"{spelling.decode()} has to be written like this")

    def resume(self, job: Progress) -> Resume:
        """Another host gets what was delivered; its engine goes on from there, or says that it begins again."""
        return Resume.FROM_PIECE

    def finished_already(self, job: Progress) -> str:
        """Return the finish reason in the last frame: units come whole, so a bound of them ends nothing by itself."""
        return finish_reason_in(job.frames)


__all__ = [
    "ARTIFACTS_MAX",
    "FILE_EXTRA_BYTES_MAX",
    "INPUTS_MAX",
    "NAME_CHARS_MAX",
    "Artifact",
    "BadExtra",
    "Fetched",
    "FileExtra",
    "FileKind",
    "InputFile",
    "Name",
    "ProgramFailure",
    "WorkProgress",
    "artifact_in",
    "artifacts_in",
    "current",
    "extra_of",
    "fetched_in",
    "file_fetched",
    "file_frame",
]
