"""One OpenAI-compatible server over HTTP: requests with bounds on every wait, streams read event by event.

It knows nothing about the requests: `openai` answers buyers with it, `openai_probe` finds out what the server can do.
"""

import asyncio
import io
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import msgspec

from comptoir.kit.address import BadAddress, http_address
from comptoir.link import Frame
from comptoir.worker.engines import openai_wire as wire
from comptoir.worker.engines.base import EngineError
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

MODELS_BYTES_MAX = 4 * 1024 * 1024
"""Largest list of models that is read."""

READ_BUFFER_BYTES = 256 * 1024
"""Bytes of an answer that are read ahead; beyond them, TCP slows the server down."""

KEEP_CONNECTION_S = 4.0
"""How long an unused connection is kept: below the 5 s after which uvicorn and llama.cpp close it on their side."""

ASKED_BYTES_MAX = 32 * 1024 * 1024
"""Largest answer of endpoints beside OpenAI's API; fits the token ids of a prompt of a million tokens."""

LARGE_BODY_BYTES = 1024 * 1024
"""Requests of this size or more are written in pieces, so that they don't block the event loop."""


_ENDPOINTS = ("/chat/completions", "/completions", "/embeddings", "/models")


class _Meta(msgspec.Struct):
    n_ctx: int | None = None
    n_ctx_train: int | None = None


class UpstreamModel(msgspec.Struct):
    """One entry of ``GET /models``, with the context length wherever servers put it."""

    id: str
    max_model_len: int | None = None
    context_length: int | None = None
    max_context_length: int | None = None
    meta: _Meta | None = None
    aliases: list[str] | None = None
    owned_by: str | None = None

    @property
    def context_in_force(self) -> int:
        """Return the context that the server runs it with, if the list says so; 0: it does not."""
        own = self.meta.n_ctx if self.meta else None
        return self.max_model_len or self.context_length or self.max_context_length or own or 0


class _Models(msgspec.Struct):
    data: list[UpstreamModel] | None = None


class Upstream:
    """One server at *base_url* (with or without ``/v1``, or the whole address of one of its endpoints)."""

    def __init__(self, base_url: str, *, api_key: str | None) -> None:
        """Raises EngineError if *base_url* can't be understood."""
        try:
            base_url = http_address(base_url)
        except BadAddress as error:
            raise EngineError("engine_spec", str(error)) from error
        for path in _ENDPOINTS:
            base_url = base_url.removesuffix(path)
        self.base = base_url if base_url.endswith("/v1") else base_url + "/v1"
        self.root = self.base.removesuffix("/v1")
        """Base address of endpoints that are not OpenAI's."""
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=KEEP_CONNECTION_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            headers=self._headers,
            read_bufsize=READ_BUFFER_BYTES,
        )

    async def close(self) -> None:
        """Close all connections; idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def models(self) -> list[UpstreamModel]:
        """Return what it lists; see `fetch_models`."""
        return await fetch_models(self._opened(), self.base)

    async def post(self, address: str, body: bytes) -> aiohttp.ClientResponse:
        """Post *body* (JSON) to *address* and return the answer, whose status is 200; the caller closes it.

        Raises:
            EngineError: no connection, silence, or another status, attributed by `openai_wire.refused`.
        """
        try:
            async with asyncio.timeout(FIRST_BYTE_TIMEOUT_S):
                response = await self._once_more_if_closed(address, body)
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

    async def _once_more_if_closed(self, address: str, body: bytes) -> aiohttp.ClientResponse:
        """Post, and again if a kept connection turns out to be closed before anything was answered.

        Servers close connections after a time, or after a number of requests (llama.cpp: 100), just when we reuse one.
        """
        try:
            return await self._post_once(address, body)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            return await self._post_once(address, body)

    async def _post_once(self, address: str, body: bytes) -> aiohttp.ClientResponse:
        return await self._opened().post(
            address,
            data=body if len(body) < LARGE_BODY_BYTES else io.BytesIO(body),
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
        )

    async def post_stream(self, path: str, body: bytes) -> aiohttp.ClientResponse:
        """Post to *path* below ``/v1`` and return an answer that is a stream of events.

        Raises:
            EngineError: as `post`, or the server does not stream.
        """
        response = await self.post(self.base + path, body)
        kind = response.headers.get("Content-Type", "")
        if kind.startswith("text/event-stream"):
            return response
        try:
            said = wire.error_message(await response.content.read(wire.ERROR_BODY_MAX))
        finally:
            response.close()
        raise EngineError("upstream_protocol", said or f"the engine's server does not stream, it sent {kind!r}")

    async def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Post *body* to *path* below the server's root and return the JSON object that it answers.

        Raises:
            EngineError: as `post`, or the answer is not a JSON object of at most `ASKED_BYTES_MAX`.
        """
        response = await self.post(self.root + path, msgspec.json.encode(body))
        try:
            return msgspec.json.decode(await whole(response, ASKED_BYTES_MAX), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise EngineError("upstream_protocol", f"{path} answered with no JSON object: {error}") from error
        finally:
            response.close()

    async def look(self, path: str) -> dict[str, Any]:
        """Return the JSON object at *path* below the server's root; empty when there is none."""
        try:
            async with asyncio.timeout(MODELS_TIMEOUT_S), self._opened().get(self.root + path) as response:
                if response.status != 200:
                    return {}
                return msgspec.json.decode(await whole(response, ASKED_BYTES_MAX), type=dict[str, Any])
        except (EngineError, TimeoutError, aiohttp.ClientError, OSError, msgspec.DecodeError):
            # Nothing readable there, which is a valid result.
            return {}

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise EngineError("engine_closed", "the engine is not started")
        return self._session


async def fetch_models(session: aiohttp.ClientSession, base: str) -> list[UpstreamModel]:
    """Read ``GET {base}/models``.

    Raises:
        EngineError: no connection, not 200, or not a list of models.
    """
    try:
        async with asyncio.timeout(MODELS_TIMEOUT_S), session.get(base + "/models", allow_redirects=False) as response:
            body = (
                await response.content.read(MODELS_BYTES_MAX)
                if response.status != 200
                else await whole(response, MODELS_BYTES_MAX)
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


async def events(response: aiohttp.ClientResponse, answer: wire.AnswerReader) -> AsyncGenerator[list[Frame], None]:
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


async def whole(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
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


async def read_to_end(response: aiohttp.ClientResponse) -> None:
    """Let the connection go back to the pool: read on to the end of the body, briefly."""
    try:
        async with asyncio.timeout(LAST_BYTES_TIMEOUT_S):
            while await response.content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError, OSError):
        # The answer is complete; a connection that does not end cleanly is closed by the caller instead of reused.
        return
