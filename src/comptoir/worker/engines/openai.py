"""Any server that speaks OpenAI's API: vLLM, SGLang, llama.cpp, Ollama, TGI, LM Studio.

Chat and completion are always streamed from the server, whatever the buyer asked for; the coordinator renders the
buyer's form. Errors are attributed by `openai_wire.refused`; a stream that ends without ``[DONE]`` and without a
finish reason is a fault of the host, never a silent end.
"""

import asyncio
import contextlib
import io
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import aiohttp
import msgspec

from comptoir.link import Frame, ModelOffer
from comptoir.worker.engines import openai_wire as wire
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.engines.sse import SseParser, SseTooLong

CONNECT_TIMEOUT_S = 5.0
"""Most seconds to reach the server."""

FIRST_BYTE_TIMEOUT_S = 300.0
"""Most seconds until the first byte of an answer: a long prompt on a slow machine takes minutes."""

IDLE_TIMEOUT_S = 60.0
"""Most seconds between two pieces of a stream."""

MODELS_TIMEOUT_S = 10.0
"""Most seconds for the list of models."""

LAST_BYTES_TIMEOUT_S = 0.5
"""After ``[DONE]``: most seconds to wait for the end of the HTTP body, which makes the connection reusable."""

CONNECTIONS_MAX = 512
"""Most connections to one server; the worker's slots are the real bound."""

EMBEDDINGS_BYTES_MAX = 40 * 1024 * 1024
"""Largest embeddings answer; it travels as one frame of the link."""

MODELS_BYTES_MAX = 4 * 1024 * 1024
"""Largest list of models that is read."""

READ_BUFFER_BYTES = 256 * 1024
"""Bytes of an answer read ahead; beyond, TCP holds the server back."""

CONTEXT_TOKENS_UNKNOWN = 4096
"""Context length offered when the server does not say."""

KEEP_CONNECTION_S = 4.0
"""How long an unused connection is kept: below the 5 s after which uvicorn and llama.cpp close it on their side."""

LARGE_BODY_BYTES = 1024 * 1024
"""Requests from here on are written in pieces, so that they don't hold up the event loop."""

CONTEXT_TOKENS_MAX = 10_000_000
"""Longest context that is offered, whatever a server says."""

_PATHS = {"chat": "/chat/completions", "completion": "/completions", "embedding": "/embeddings"}
_EMBEDDING_NAME = re.compile(r"embed|(^|[/_-])(bge|e5|gte|minilm)([-_.]|$)", re.IGNORECASE)


class _Meta(msgspec.Struct):
    n_ctx: int | None = None
    n_ctx_train: int | None = None


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None
    context_length: int | None = None
    max_context_length: int | None = None
    meta: _Meta | None = None
    aliases: list[str] | None = None
    owned_by: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model] | None = None


class OpenAIEngine:
    """One OpenAI-compatible server at *base_url* (with or without ``/v1``).

    *aliases* maps offered names to the server's model ids; with it only those are offered. *kinds* (``chat``,
    ``completion``, ``embedding``, joined by ``+``) replaces the guess by model name; *context_tokens* is offered where
    the server names no context length.
    """

    name = "openai"

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None = None,
        aliases: Mapping[str, str] | None = None,
        kinds: str | None = None,
        context_tokens: int = CONTEXT_TOKENS_UNKNOWN,
    ) -> None:
        base_url = base_url.rstrip("/")
        self._base = base_url if base_url.endswith("/v1") else base_url + "/v1"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._aliases = dict(aliases or {})
        self._kinds = kinds.split("+") if kinds else None
        if unknown := set(self._kinds or ()) - set(_PATHS):
            raise EngineError("engine_spec", f"kinds are chat, completion, embedding; not {', '.join(sorted(unknown))}")
        self._context_tokens = context_tokens
        self._upstream_names: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Connect and discover the models.

        Raises:
            EngineError: the server can't be reached, refuses the key, or serves no model.
        """
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=KEEP_CONNECTION_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            headers=self._headers,
            read_bufsize=READ_BUFFER_BYTES,
        )
        if not await self.models():
            raise EngineError("no_models", f"{self._base}/models lists no model to offer: load one there first")

    async def models(self) -> list[ModelOffer]:
        """Return what the server lists now, under the names it is offered by.

        Raises:
            EngineError: it can't be reached or does not answer as OpenAI's API does.
        """
        listed = await fetch_models(self._opened(), self._base)
        by_id = {model.id: model for model in listed}
        offered: dict[str, _Model] = {}
        if self._aliases:
            offered = {name: by_id[own] for name, own in self._aliases.items() if own in by_id}
        else:
            for model in listed:
                for name in (_offered_name(model.id), *(model.aliases or ())):
                    offered.setdefault(name, model)
        self._upstream_names = {name: model.id for name, model in offered.items()}
        return [
            ModelOffer(name=name, kinds=self._kinds or _kinds(model.id), context_tokens=self._context(model))
            for name, model in offered.items()
        ]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Ask the server; see `Engine.run`. Closing the iterator closes the connection to the server at once."""
        if request.prefix:
            raise EngineError(
                "continuation_unsupported", "this engine can't go on from another host's frames", fault="coordinator"
            )
        path = _PATHS.get(request.kind)
        model = self._upstream_names.get(request.model)
        if path is None or model is None:
            raise EngineError("model_not_served", f"no {request.kind} with {request.model!r} at {self._base}")
        body = wire.upstream_body(
            request.body, model=model, stream=request.kind != "embedding", max_tokens=request.max_tokens
        )
        response = await self._post(path, body)
        try:
            if request.kind == "embedding":
                frame, finish = wire.read_embeddings(await _whole(response, EMBEDDINGS_BYTES_MAX))
                yield frame
                yield finish
                return
            kind = response.headers.get("Content-Type", "")
            if not kind.startswith("text/event-stream"):
                said = wire.error_message(await response.content.read(wire.ERROR_BODY_MAX))
                raise EngineError("upstream_protocol", said or f"the engine's server does not stream, it sent {kind!r}")
            answer = wire.AnswerReader()
            async with contextlib.aclosing(_events(response, answer)) as pieces:
                async for frames in pieces:
                    for frame in frames:
                        yield frame
            last, finish = answer.last()
            if last is not None:
                yield last
            yield finish
            await _read_to_end(response)
        finally:
            # A body read to its end has given its connection back already; any other is aborted here.
            response.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, path: str, body: bytes) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(FIRST_BYTE_TIMEOUT_S):
                response = await self._opened().post(
                    self._base + path,
                    data=body if len(body) < LARGE_BODY_BYTES else io.BytesIO(body),
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,
                )
                if response.status == 200:
                    return response
                try:
                    text = await response.content.read(wire.ERROR_BODY_MAX + 1)
                finally:
                    response.close()
        except TimeoutError as error:
            raise EngineError("upstream_timeout", f"the server said nothing for {FIRST_BYTE_TIMEOUT_S:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineError("upstream_unreachable", f"the engine's server can't be reached: {error}") from error
        raise wire.refused(response.status, response.headers, text)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise EngineError("engine_closed", "the engine is not started")
        return self._session

    def _context(self, model: _Model) -> int:
        meta = model.meta
        stated = (
            model.max_model_len
            or model.context_length
            or model.max_context_length
            or (meta and (meta.n_ctx or meta.n_ctx_train))
            or 0
        )
        return min(stated, CONTEXT_TOKENS_MAX) if stated > 0 else self._context_tokens


async def fetch_models(session: aiohttp.ClientSession, base: str) -> list[Any]:
    """Read ``GET {base}/models``.

    Raises:
        EngineError: no connection, not 200, or not a list of models.
    """
    try:
        async with asyncio.timeout(MODELS_TIMEOUT_S), session.get(base + "/models", allow_redirects=False) as response:
            body = (
                await response.content.read(MODELS_BYTES_MAX)
                if response.status != 200
                else await _whole(response, MODELS_BYTES_MAX)
            )
    except TimeoutError as error:
        raise EngineError("upstream_timeout", f"{base}/models did not answer within {MODELS_TIMEOUT_S:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise EngineError("upstream_unreachable", f"no server at {base} ({error}): is it running?") from error
    if response.status != 200:
        hint = ": check the engine's api_key" if response.status in (401, 403) else ""
        said = f"{base}/models answered HTTP {response.status}{hint}"
        raise EngineError("upstream_error", said, status=response.status)
    try:
        return msgspec.json.decode(body, type=_Models).data or []
    except msgspec.DecodeError as error:
        raise EngineError("upstream_protocol", f"{base}/models is not OpenAI's list of models: {error}") from error


async def _events(response: aiohttp.ClientResponse, answer: wire.AnswerReader) -> AsyncGenerator[list[Frame], None]:
    """Yield the frames of each piece of the body until the answer is complete."""
    parser = SseParser()
    content = response.content
    limit_s = FIRST_BYTE_TIMEOUT_S
    try:
        while not answer.complete:
            async with asyncio.timeout(limit_s):
                piece = await content.readany()
            limit_s = IDLE_TIMEOUT_S
            frames: list[Frame] = []
            try:
                for name, data in parser.feed(piece) if piece else parser.end():
                    frames += answer.read(name, data)
            except EngineError:
                # What came before the error in the same piece was made and is delivered.
                if frames:
                    yield frames
                raise
            if frames:
                yield frames
            if not piece:
                break
    except TimeoutError as error:
        raise EngineError("upstream_timeout", f"the server fell silent for {limit_s:g} s mid-answer") from error
    except SseTooLong as error:
        raise EngineError("upstream_protocol", str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        if not answer.finished:
            raise EngineError("upstream_cut", f"the engine's connection broke mid-answer: {error}") from error
    if not answer.complete and not answer.finished:
        raise EngineError("upstream_cut", "the engine's stream ended before the answer was complete")


async def _whole(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """Read a whole body of at most *bytes_max* bytes."""
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := await _idle_limited(response.content):
            pieces.append(piece)
            size += len(piece)
            if size > bytes_max:
                raise EngineError("upstream_protocol", f"the engine's server answered with more than {bytes_max} bytes")
    except TimeoutError as error:
        raise EngineError("upstream_timeout", "the engine's server fell silent mid-answer") from error
    except (aiohttp.ClientError, OSError) as error:
        raise EngineError("upstream_cut", f"the engine's connection broke mid-answer: {error}") from error
    return b"".join(pieces)


async def _idle_limited(content: aiohttp.StreamReader) -> bytes:
    async with asyncio.timeout(IDLE_TIMEOUT_S):
        return await content.readany()


async def _read_to_end(response: aiohttp.ClientResponse) -> None:
    """Let the connection go back to the pool: read on to the end of the body, briefly."""
    try:
        async with asyncio.timeout(LAST_BYTES_TIMEOUT_S):
            while await response.content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError, OSError):
        # The answer is complete; a connection that does not end cleanly is closed by the caller instead of reused.
        return


def _offered_name(model_id: str) -> str:
    """Offer a file path (llama.cpp names models so) by the file's stem, anything else as it is."""
    if model_id.endswith(".gguf"):
        return re.split(r"[/\\]", model_id)[-1].removesuffix(".gguf")
    return model_id


def _kinds(model_id: str) -> list[str]:
    """Guess from the name, as no server says it: embedding models serve nothing else."""
    return ["embedding"] if _EMBEDDING_NAME.search(model_id) else ["chat", "completion"]
