"""Jobs as their buyer sees them: submit, list, show, follow, cancel."""

from collections.abc import Sequence

import msgspec

from comptoir.dialects.infrintia import wire
from comptoir.dialects.infrintia.render import STATES, WORDS, job_error, job_line
from comptoir.dispatch import Core, Order
from comptoir.gateway import claim, find_job, follow, in_slices, stop, stream_job, submit_once, take_room
from comptoir.jobs import RESTARTED, AnswerForgotten, JobFinished, JobState, LiveJob
from comptoir.kinds import Chat, bought
from comptoir.kit.clock import iso_utc
from comptoir.kit.errors import InvalidField
from comptoir.kit.http import Request, Stream
from comptoir.kit.ids import parse, public
from comptoir.kit.money import to_credits
from comptoir.kit.sse import DONE, event, numbering
from comptoir.link import Frame

encode = msgspec.json.Encoder().encode


class _OpenAIMessage(msgspec.Struct):
    role: str
    content: str


class _OpenAIBody(msgspec.Struct):
    """The OpenAI-style body that goes to the host."""

    model: str
    messages: list[_OpenAIMessage]
    max_tokens: int
    temperature: float
    stream: bool = True


async def run_model(core: Core, request: Request) -> wire.Accepted:
    """Buy an answer. The reserved credits cover every token that may come; unused ones are released."""
    body: wire.RunModel = request.body
    settings = core.settings
    max_tokens = body.max_tokens if body.max_tokens is not None else settings.max_tokens_default
    if max_tokens > settings.max_tokens_max:
        raise InvalidField("max_tokens", f"must be 1 to {settings.max_tokens_max}, not {max_tokens}")
    bound = await claim(core, request)
    asked = encode(_OpenAIBody(body.model, [_OpenAIMessage("user", body.input_text)], max_tokens, body.temperature))
    order = Order(
        owner_id=request.principal.id,
        dialect="infrintia",
        kind=Chat.name,
        model=body.model,
        body=asked,
        output_max=max_tokens,
        detached=True,
    )
    job = await submit_once(core, order, bound)
    # "queued" is what the reference answers; a free host may have the job already, GET /jobs/{id} says so.
    return wire.Accepted(
        public("job", job.id), "queued", job.model, to_credits(job.terms.hold_uusd), iso_utc(job.created_ms)
    )


async def page(core: Core, request: Request) -> wire.InfrintiaJobs:
    """List the caller's jobs, newest first."""
    asked: wire.InfrintiaJobsQuery = request.query
    states = STATES[asked.status] if asked.status is not None else ()
    before = parse("job", asked.before) if asked.before is not None else None
    if asked.before is not None and before is None:
        raise InvalidField("before", "must be the id of a job: what 'next' was on the page before")
    found = await core.jobs.lists.page(
        request.principal.id, states=states, limit=asked.limit, offset=asked.offset, before=before
    )
    lines = await in_slices(job_line, found.rows)
    return wire.InfrintiaJobs(
        lines, found.total, public("job", found.next) if found.next is not None else msgspec.UNSET
    )


async def show(core: Core, request: Request) -> wire.InfrintiaJob:
    """Show one job of the caller."""
    return await _view(core, request, await find_job(core, request.principal.id, request.params["id"]))


async def cancel(core: Core, request: Request) -> wire.InfrintiaJob:
    """Stop a job: what was delivered is billed, the rest is released. A cancelled job stays cancelled."""
    job = await find_job(core, request.principal.id, request.params["id"])
    if job.over and job.state != JobState.CANCELLED:
        raise JobFinished(WORDS[job.state])
    if not job.over:
        job = await stop(core, job)
        if job.state != JobState.CANCELLED:
            raise JobFinished(WORDS[job.state])
    return await _view(core, request, job)


async def _view(core: Core, request: Request, job: LiveJob) -> wire.InfrintiaJob:
    finished_ms = None
    kept = job.over
    if job.over:
        finished_ms = (await core.jobs.get(job.id)).finished_ms
        try:
            job = await follow(core, job)
            await take_room(core, request, job)
        except AnswerForgotten:
            kept = False
    return wire.InfrintiaJob(
        job_id=public("job", job.id),
        model=bought(job.model, job.stages),
        status=WORDS[job.state],
        jobs_before=core.jobs.queue.before(job.id) if job.state == JobState.QUEUED else None,
        credits_reserved=to_credits(job.terms.hold_uusd),
        credits_used=to_credits(job.cost_uusd),
        tokens=job.usage.completion_tokens if job.over else job.count,
        created_at=iso_utc(job.created_ms),
        started_at=iso_utc(job.started_ms) if job.started_ms else None,
        finished_at=iso_utc(finished_ms) if finished_ms is not None else None,
        host_id=public("host", job.host_id) if job.host_id is not None else None,
        finish_reason=job.finish_reason or None,
        output_text="".join(frame.text for frame in job.frames) if kept else None,
        error=job_error(job.state, code=job.error_code, message=job.error_message),
        receipt_id=public("rcpt", job.id) if job.over else None,
    )


# -- the stream ----------------------------------------------------------------------------------------------------


async def stream(core: Core, request: Request) -> Stream:
    """Follow a job from its first token, or from the one after ``Last-Event-ID``, to its end.

    Events are numbered, so that a browser's EventSource resumes where its connection broke. Disconnecting does not stop
    the job. If the answer has been restarted since, which the numbers show, the stream is an error that says so.
    """
    return await stream_job(
        core, request, request.params["id"], owner_id=request.principal.id, render=render_tokens, end=_end
    )


def _end(job: LiveJob, misled: bool) -> bytes:
    if misled:
        return event(encode({"error": wire.JobError(*RESTARTED)}), name="error") + DONE
    error = job_error(job.state, code=job.error_code, message=job.error_message)
    return (event(encode({"error": error}), name="error") if error is not None else b"") + DONE


def render_tokens(frames: Sequence[Frame], number: int, restarts: int = 0) -> bytes:
    """Return the events of *frames*, starting with number *number*, as one write; frames without text have none."""
    before = numbering(restarts)
    return b"".join(
        [
            b'id: %b%d\ndata: {"token": %b}\n\n' % (before, at, encode(frame.text))
            for at, frame in enumerate(frames, number)
            if frame.text
        ]
    )
