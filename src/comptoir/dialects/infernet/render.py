"""Results in the published form, from a job's frames."""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from comptoir.dialects.infernet.translate import WORDS, job_uuid
from comptoir.dialects.infernet.wire import ContainerResult, JobResult
from comptoir.jobs import FINAL, JobState, LiveJob
from comptoir.link import Frame

FORGOTTEN = "the result is no longer kept"
"""Error in place of a result that was deleted after ``retention_days``."""


class _BytesExtra(msgspec.Struct):
    base64: str = ""


_extra = msgspec.json.Decoder(_BytesExtra).decode


def piece_of(frame: Frame) -> bytes:
    """Return the bytes of a stream in a frame; empty if it has something else, or nothing."""
    if frame.text:
        return frame.text.encode()
    if not frame.extra:
        return b""
    try:
        return base64.b64decode(_extra(frame.extra).base64, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        return b""


def result_of(job: LiveJob, frames: Sequence[Frame], *, intermediate: bool) -> JobResult:
    """Return the status and results of *job*.

    Args:
        frames: of the whole answer so far; a chain has one per container, except for the last one of a stream.
    """
    last = len(job.stages) - 1
    if job.lease is not None:
        # What the open lease has sent is no output before its host has completed it and it was checked.
        frames = frames[: job.segment_start]
    outputs = [
        ContainerResult(stage.model, output=_json(frame)) for stage, frame in zip(job.stages, frames, strict=False)
    ]
    before = outputs[:last]
    result: ContainerResult | None = None
    if job.state is JobState.COMPLETED and not frames:
        result = ContainerResult(
            job.stages[last].model if job.stages else job.model, error=job.error_message or FORGOTTEN
        )
    elif job.state is JobState.COMPLETED:
        result = outputs[last] if job.detached and len(outputs) > last else _streamed(job, frames[last:])
    elif job.state in FINAL:
        failed = job.stages[min(len(before), last)].model if job.stages else ""
        result = ContainerResult(failed, error=job.error_message or FORGOTTEN)
    words = WORDS.get(job.state, "failed")
    shown: list[ContainerResult] | Any = before if intermediate else msgspec.UNSET
    return JobResult(job_uuid(job.id), words, result, shown)


def _json(frame: Frame) -> msgspec.Raw:
    """Return a container's answer, byte for byte; it was parsed as JSON when it came."""
    return msgspec.Raw(frame.text.encode())


def _streamed(job: LiveJob, frames: Sequence[Frame]) -> ContainerResult:
    """Return a stream's result: its text, or base64 if it is not text, so that nothing is lost."""
    content = b"".join(map(piece_of, frames))
    try:
        output = {"output": content.decode()}
    except UnicodeDecodeError:
        output = {"output_base64": base64.b64encode(content).decode()}
    return ContainerResult(job.stages[-1].model if job.stages else job.model, output=output)
