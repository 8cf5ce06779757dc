"""Endpoints of the OpenAI dialect."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType

import msgspec

from comptoir.dialects.openai.errors import (
    Header,
    failure_of,
    render_broken,
    render_error,
    render_failure,
    restarted,
    status_of,
)
from comptoir.dialects.openai.headers import answer_headers
from comptoir.dialects.openai.render import CHAT, COMPLETION, Form, StreamWriter, error_event, whole
from comptoir.dialects.openai.translate import chat_order, completion_order, embedding_order
from comptoir.dialects.openai.vectors import NoVectors, embeddings_body
from comptoir.dialects.openai.wire import (
    ChatBody,
    ChatCompletion,
    CompletionBody,
    EmbeddingBody,
    Embeddings,
    ErrorBody,
    ModelArchitecture,
    ModelCard,
    ModelList,
    OpenAICompletion,
)
from comptoir.dispatch.cancel import hang_up
from comptoir.dispatch.core import Core
from comptoir.dispatch.errors import UnknownModel
from comptoir.dispatch.submit import SUBMIT_ERRORS, Order, submit
from comptoir.gateway import (
    Rendered,
    Room,
    claim,
    follow,
    leave,
    refollow,
    restarted_elsewhere,
    room_for,
    room_for_answer,
    submit_once,
    until_answered,
)
from comptoir.hosts import ModelSummary
from comptoir.idempotency import IdempotencyMismatch
from comptoir.jobs import AnswerForgotten, JobState, LiveJob, Reader
from comptoir.kinds import makes_text
from comptoir.kinds.capabilities import able
from comptoir.kinds.tokens.capabilities import REASONING, SCHEMA, TOOLS, VISION
from comptoir.kit.http import Access, Dialect, Endpoint, Reply, Request, Stream
from comptoir.kit.sse import PING
from comptoir.link import Frame

Answer = Reply | Stream


async def chat_completions(core: Core, request: Request) -> Answer:
    """Answer a conversation, streamed or whole."""
    job = await _place(core, request, chat_order(core, request))
    return await _answered(core, request, CHAT, job, choices=request.body.n or 1)


async def completions(core: Core, request: Request) -> Answer:
    """Complete one or several texts, streamed or whole."""
    body: CompletionBody = request.body
    job = await _place(core, request, completion_order(core, request))
    prompt = body.prompt
    prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
    return await _answered(core, request, COMPLETION, job, choices=prompts * (body.n or 1))


async def embeddings(core: Core, request: Request) -> Reply:
    """Turn texts into vectors."""
    job = await until_answered(core, await _place(core, request, embedding_order(request)))
    if job.state is not JobState.COMPLETED:
        return render_failure(job)
    release = await room_for_answer(core, request, job)
    as_base64 = request.body.encoding_format == "base64"
    try:
        body = await embeddings_body(job, as_base64=as_base64)
    except NoVectors as error:
        return render_broken(f"the host sent no embeddings: {error}")
    return Reply(200, body, headers=_job_headers(job), release=release)


async def _place(core: Core, request: Request, order: Order) -> LiveJob:
    """Submit *order* for the waiting client: hanging up cancels the job.

    A repeat under the same Idempotency-Key attaches to the first request's job instead of buying again. With such a
    key, the job continues when the client is gone, because it may repeat the request.

    Raises: as `submit` and `claim`; Unavailable while no live coordinator owns the first request's job.
    """
    claimed = await claim(core, request)
    if claimed is None:
        job = await submit(core, order)
        request.when_gone(partial(hang_up, core, job))
        return job
    job = await submit_once(core, msgspec.structs.replace(order, detached=True), claimed)
    return await follow(core, job)


async def list_models(core: Core, request: Request) -> Reply:
    """List the models that hosts offer now."""
    return core.state(Rendered).reply(_cards, core.fleet.models())


def _cards(summaries: list[ModelSummary]) -> ModelList:
    return ModelList([_card(summary) for summary in summaries])


async def get_model(core: Core, request: Request) -> ModelCard:
    """Describe one model."""
    summary = core.fleet.model(request.params["id"])
    if summary is None:
        raise UnknownModel(request.params["id"], tuple(offered.name for offered in core.fleet.models()))
    return _card(summary)


async def _answered(core: Core, request: Request, form: Form, job: LiveJob, *, choices: int) -> Answer:
    body: ChatBody | CompletionBody = request.body
    if body.stream:
        include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        writer = StreamWriter(form, job, choices=choices, include_usage=include_usage)
        return await _streamed(core, request, job, writer)
    job = await until_answered(core, job)
    if job.state is not JobState.COMPLETED:
        return render_failure(job)
    release = await room_for_answer(core, request, job)
    return Reply(200, whole(form, job, choices=choices), headers=_job_headers(job), release=release)


async def _streamed(core: Core, request: Request, job: LiveJob, writer: StreamWriter) -> Answer:
    """Wait for the first frame, so that an error before it has its own status; at most one ping interval."""
    ping_s = core.settings.sse_ping_s
    reader = Reader(job)
    first = await reader.next(timeout_s=ping_s)
    while first is None and restarted_elsewhere(job):
        # Nothing of it was shown here yet.
        job = await refollow(core, job)
        reader = Reader(job)
        first = await reader.next(timeout_s=ping_s)
    if first is None and job.state is not JobState.COMPLETED:
        return render_failure(job)
    pieces = _pieces(core, reader, writer, first, room=room_for(core, request))
    return Stream(pieces, headers=((b"x-comptoir-job", _public(b"job_", job.id)),))


async def _pieces(
    core: Core, reader: Reader, writer: StreamWriter, batch: list[Frame] | None, *, room: Room
) -> AsyncIterator[bytes]:
    """Yield all waiting frames as one piece each time; the last piece always says how the job ended."""
    ping_s = core.settings.sse_ping_s
    try:
        while batch is not None:
            if reader.batch_bytes:
                await room.hold_batch(reader.batch_bytes)
            piece = writer.frames(batch) if batch else PING
            if piece:
                yield piece
            room.release()
            batch = await reader.next(timeout_s=ping_s)
    finally:
        room.release()
    job = reader.job
    if reader.outdated or restarted_elsewhere(job):
        leave(core, job)
        yield error_event(restarted())
        return
    yield writer.end(job) if job.state is JobState.COMPLETED else error_event(failure_of(job)[1])


def _job_headers(job: LiveJob) -> tuple[Header, ...]:
    return (
        (b"x-comptoir-job", _public(b"job_", job.id)),
        (b"x-comptoir-receipt", _public(b"rcpt_", job.receipt_id or job.id)),
        (b"x-comptoir-cost-uusd", b"%d" % job.cost_uusd),
    )


def _public(prefix: bytes, raw: bytes) -> bytes:
    return prefix + raw.hex().encode()


PARAMETERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        TOOLS: ("tools", "tool_choice"),
        SCHEMA: ("response_format", "structured_outputs"),
        REASONING: ("reasoning", "include_reasoning", "reasoning_effort"),
    }
)
"""Parameters that take a capability, in the words of the catalogues that clients read."""

TEXT_PARAMETERS = ("max_tokens", "temperature", "top_p", "stop", "seed", "frequency_penalty", "presence_penalty")
"""Parameters that every engine takes for text."""


def _card(summary: ModelSummary) -> ModelCard:
    has = able(summary.capabilities)
    text = makes_text(summary.kinds)
    beyond = [name for one in PARAMETERS if one in has for name in PARAMETERS[one]]
    return ModelCard(
        id=summary.name,
        created=summary.since_ms // 1000,
        context_length=summary.max_tokens,
        kinds=list(summary.kinds),
        hosts=summary.available_hosts,
        price_in_uusd_per_mtok=summary.min_price_in_uusd_per_mtok,
        price_out_uusd_per_mtok=summary.min_price_out_uusd_per_mtok,
        capabilities=dict(summary.capabilities),
        architecture=ModelArchitecture(
            ["text", "image"] if VISION in has else ["text"], ["text" if text else "embeddings"]
        ),
        supported_parameters=[*TEXT_PARAMETERS, *beyond] if text else [],
    )


BUYING_ERRORS = (IdempotencyMismatch, *SUBMIT_ERRORS, AnswerForgotten)

STREAMED = ("text/event-stream",)

ENGINE_STATUSES = (
    (400, "The engine refused the request; its own words."),
    (413, "The engine found the request too large."),
    (422, "The engine could not process the request."),
    (429, "The engine is busy; retry-after says for how long."),
    (500, "The engine failed; its own words."),
    (502, "The host failed, and no other could take over."),
    (503, "No host could answer now."),
    (504, "Nobody answered in time."),
)
"""Statuses of an engine or its host that are passed on, beside our own refusals."""


def _buys(
    path: str,
    handler: Callable[[Core, Request], Awaitable[Answer | Reply]],
    summary: str,
    *,
    request: type,
    response: type,
    example: dict[str, object],
    streams: bool = True,
) -> Endpoint:
    return Endpoint(
        "POST", path, handler, Access.BUYER, summary, request=request, response=response, errors=BUYING_ERRORS,
        idempotent=True, example=example, raw=True, more=ENGINE_STATUSES, media_also=STREAMED if streams else (),
    )  # fmt: skip


ENDPOINTS = (
    _buys(
        "/v1/chat/completions", chat_completions, "Answer a conversation.", request=ChatBody, response=ChatCompletion,
        example={"model": "comptoir-demo", "messages": [{"role": "user", "content": "What is Comptoir?"}]},
    ),
    _buys(
        "/v1/completions", completions, "Complete a text.", request=CompletionBody, response=OpenAICompletion,
        example={"model": "comptoir-demo", "prompt": "Comptoir is", "max_tokens": 32},
    ),
    _buys(
        "/v1/embeddings", embeddings, "Turn texts into vectors.", request=EmbeddingBody, response=Embeddings,
        streams=False, example={"model": "bge-small", "input": ["What is Comptoir?"], "encoding_format": "float"},
    ),
    Endpoint("GET", "/v1/models", list_models, Access.BUYER, "List the models on offer.", response=ModelList),
    Endpoint(
        "GET", "/v1/models/{id:path}", get_model, Access.BUYER, "Describe one model.", response=ModelCard,
        errors=(UnknownModel,),
    ),
)  # fmt: skip

INSTEAD = {
    "/v1/responses": "/v1/chat/completions",
    "/v1/messages": "/v1/chat/completions",
    "/v1/engines": "/v1/models",
    "/api/chat": "/v1/chat/completions",
    "/api/generate": "/v1/completions",
    "/api/embed": "/v1/embeddings",
    "/api/embeddings": "/v1/embeddings",
    "/api/tags": "/v1/models",
}
"""What other APIs (OpenAI's newer one, Anthropic's, Ollama's) have for the same: not alike letter by letter."""

DIALECT = Dialect(
    name="openai",
    title="OpenAI-compatible API",
    prefix="/openai",
    endpoints=ENDPOINTS,
    render_error=render_error,
    description="What OpenAI's clients rely on, paid by the token from a Comptoir account (docs/dialects/openai.md).",
    headers=answer_headers,
    owns=("/v1",),
    instead=INSTEAD,
    error_statuses=status_of,
    error_body=ErrorBody,
)
