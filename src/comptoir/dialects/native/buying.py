"""Buy work of any kind that is sold here, and follow it, as the published APIs do for the kinds that they know."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from comptoir.blobs import UnknownFile
from comptoir.dialects.native import views
from comptoir.dialects.native.wire import JobView, NeedsFields
from comptoir.dispatch import Core, Order
from comptoir.dispatch.submit import SUBMIT_ERRORS
from comptoir.gateway import claim, find_job, follow, stream_job, submit_once
from comptoir.idempotency import IdempotencyMismatch
from comptoir.identity import Principal
from comptoir.jobs import RESTARTED, AnswerForgotten, LiveJob, UnknownJob
from comptoir.kinds import Chat, UnknownKind
from comptoir.kinds.files import Artifact, InputFile, artifacts_in
from comptoir.kit.errors import InvalidField
from comptoir.kit.http import Access, Endpoint, Request, Stream
from comptoir.kit.ids import public
from comptoir.kit.objects import FilesExtraMissing
from comptoir.kit.sse import event, numbering, one_line
from comptoir.link import COUNT_MAX, Frame

DIALECT_NAME = "native"

_encode = msgspec.json.Encoder().encode
_is_json = msgspec.json.Decoder(msgspec.Raw).decode


class BuyBody(msgspec.Struct, forbid_unknown_fields=True):
    """Work to be bought. It runs without a connected client; `GET /house/jobs/{id}/frames` follows it."""

    kind: Annotated[str, Meta(min_length=1, max_length=64)]
    """Name of a kind that is sold here."""
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    """Name under which hosts offer it."""
    body: msgspec.Raw
    """What the host gets, byte for byte; its format is defined by the kind (docs/kinds)."""
    output_max: Annotated[int, Meta(ge=1, le=COUNT_MAX)] | None = None
    """Most units of the kind's output; the hold covers them. If omitted: as many as the body can lead to, if known."""
    needs: NeedsFields | None = None
    """Requirements on the host; only hosts that meet them ever get the job, even after the first one is lost."""


class FrameView(msgspec.Struct, omit_defaults=True):
    """One piece of the output; its number is that of the event."""

    text: str = ""
    count: int = 0
    """Units of the kind's output that it stands for."""
    extra: msgspec.Raw = msgspec.Raw()
    """The engine's other fields for it, as JSON; absent: none, or not JSON."""


class EndView(msgspec.Struct):
    """How the job ended; the last event, called ``end``."""

    state: str
    finish_reason: str | None
    error_code: str | None
    error_message: str | None
    cost_uusd: int
    receipt: str | None


async def buy(core: Core, request: Request) -> JobView:
    """Buy work of any kind. The unused part of the hold is released."""
    body: BuyBody = request.body
    kind = core.jobs.kinds.get(body.kind)
    asked = bytes(body.body)
    if wrong := kind.check(asked):
        raise InvalidField("body", wrong)
    output_max = body.output_max or kind.output_max(asked)
    if not output_max and kind.paid_by_output:
        raise InvalidField("output_max", f"is needed: the most {kind.output.many} that may be made and paid")
    if output_max > COUNT_MAX:
        raise InvalidField(
            "body", f"leads to {kind.output.format(output_max)}, and a job has at most {kind.output.amount(COUNT_MAX)}"
        )
    bound = await claim(core, request)
    order = Order(
        owner_id=request.principal.id,
        dialect=DIALECT_NAME,
        kind=kind.name,
        model=body.model,
        body=asked,
        output_max=output_max,
        detached=True,
        needs=body.needs.needs() if body.needs is not None else None,
    )
    job = await submit_once(core, order, bound)
    return views.job(core, await core.jobs.get(job.id))


async def frames(core: Core, request: Request) -> Stream:
    """Follow a job's output from its first piece, or from the one after ``Last-Event-ID``, to its end."""
    who: Principal = request.principal
    owner_id = None if who.is_admin else who.id
    return await stream_job(core, request, request.params["id"], owner_id=owner_id, render=render_frames, end=_end)


class JobFilesView(msgspec.Struct):
    """The files of a job: what went in, and what came out so far."""

    inputs: list[InputFile]
    artifacts: list[Artifact]
    """Those that are part of the result, in the order in which they came."""


async def files(core: Core, request: Request) -> JobFilesView:
    """List the files of a job; none of a kind without files."""
    who: Principal = request.principal
    job = await find_job(core, None if who.is_admin else who.id, request.params["id"])
    if not job.kind.files:
        return JobFilesView([], [])
    job = await follow(core, job)
    body = job.body or (await core.jobs.get(job.id, light=False)).body
    return JobFilesView(list(job.kind.inputs(body)) if body else [], artifacts_in(job.frames))


def render_frames(pieces: Sequence[Frame], number: int, restarts: int = 0) -> bytes:
    """Return the events of *pieces*, the first of which is frame *number*, as one write."""
    before = numbering(restarts)
    return b"".join(
        [b"id: %b%d\ndata: %b\n\n" % (before, at, _encode(_shown(frame))) for at, frame in enumerate(pieces, number)]
    )


def _shown(frame: Frame) -> FrameView:
    view = FrameView(frame.text, frame.tokens)
    if frame.extra:
        try:
            _is_json(frame.extra)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return view  # Stored before it was checked when it came.
        view.extra = msgspec.Raw(one_line(frame.extra))
    return view


def _end(job: LiveJob, misled: bool) -> bytes:
    if misled:
        code, message = RESTARTED
        return event(_encode({"code": code, "message": message}), name="error")
    view = EndView(
        job.state,
        job.finish_reason or None,
        job.error_code or None,
        job.error_message or None,
        job.cost_uusd,
        public("rcpt", job.id),
    )
    return event(_encode(view), name="end")


ENDPOINTS = (
    Endpoint(
        "POST", "/jobs", buy, Access.BUYER, "Buy work of any kind that is sold here.", request=BuyBody, response=JobView,
        status=201, idempotent=True,
        errors=(IdempotencyMismatch, UnknownKind, FilesExtraMissing, UnknownFile, *SUBMIT_ERRORS),
        example={
            "kind": Chat.name, "model": "comptoir-demo", "output_max": 64,
            "body": {"messages": [{"role": "user", "content": "What is Comptoir?"}]},
        },
    ),
    Endpoint(
        "GET", "/jobs/{id}/frames", frames, Access.BUYER, "Follow a job's output, piece by piece.",
        errors=(UnknownJob, AnswerForgotten), media="text/event-stream",
        description="Server-sent events: one a piece, numbered, and an `end` that says how it went; read on with Last-Event-ID.",
    ),
    Endpoint(
        "GET", "/jobs/{id}/files", files, Access.BUYER, "List the files that went into a job, and those that it made.",
        response=JobFilesView, errors=(UnknownJob, AnswerForgotten),
    ),
)  # fmt: skip
