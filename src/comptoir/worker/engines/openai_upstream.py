"""One OpenAI-compatible server over HTTP: requests with bounds on every wait, streams read event by event.

It knows nothing about the requests: `openai` answers buyers with it, `openai_probe` finds out what the server can do.
"""

import asyncio
import io
import logging
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec

from comptoir.kit.address import BadAddress, http_address, is_near
from comptoir.link import Frame
from comptoir.worker.engines import loose_json
from comptoir.worker.engines import openai_wire as wire
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.hidden import Hidden
from comptoir.worker.engines.openai_answer import AnswerReader
from comptoir.worker.engines.sse import LINE_BYTES_MAX, SseParser, SseTooLong

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
"""Most seconds to reach the server."""

FIRST_BYTE_TIMEOUT_S = 300.0
"""Most seconds until the first byte of an answer: a long prompt on a slow machine takes minutes."""

IDLE_TIMEOUT_S = 60.0
"""Most seconds between two pieces of a stream."""

MODELS_TIMEOUT_S = 10.0
"""Most seconds for the list of models."""

LISTENS_TIMEOUT_S = 0.5
"""Most seconds for a connection that only shows that somebody listens; on one's own network it takes a millisecond."""

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


REDIRECTS_MAX = 3
"""Most redirects that are followed, all at the same server."""

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_ENDPOINTS = ("/chat/completions", "/completions", "/embeddings", "/models")

_BEFORE_THE_FIRST = b"\xef\xbb\xbf \t\r\n"
"""A mark of UTF-8, and blank lines, with which some servers keep a connection open until the answer is there."""


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
        self.hidden = Hidden(self.root, api_key or "")
        self._session: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Open the connection pool, and the door to connections that nobody used before."""
        self._session = self._connections(
            aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=KEEP_CONNECTION_S)
        )
        self._fresh = self._connections(aiohttp.TCPConnector(limit=CONNECTIONS_MAX, force_close=True))

    def _connections(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            headers=self._headers,
            read_bufsize=READ_BUFFER_BYTES,
        )

    async def close(self) -> None:
        """Close all connections; idempotent."""
        for session in (self._session, self._fresh):
            if session is not None:
                await session.close()
        self._session = self._fresh = None

    async def models(self) -> list[UpstreamModel]:
        """Return what it lists; see `fetch_models`."""
        return await fetch_models(self._opened(), self.base)

    async def listens(self) -> bool:
        """Return whether a connection to the address can be made; True, unasked, for addresses outside.

        On this machine and beside it, that is how a dead server is noticed before a job is.
        """
        parts = urlsplit(self.base)
        if not is_near(self.base.partition("://")[2]):
            return True
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            async with asyncio.timeout(LISTENS_TIMEOUT_S):
                _, writer = await asyncio.open_connection(parts.hostname, port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def post(self, address: str, body: bytes) -> aiohttp.ClientResponse:
        """Post *body* (JSON) to *address* and return the answer, whose status is 200; the caller closes it.

        Raises:
            EngineError: no connection, silence, or another status, attributed by `openai_wire.refused`.
        """
        try:
            async with asyncio.timeout(FIRST_BYTE_TIMEOUT_S):
                response = await self._follow(address, body)
                if response.status == 200:
                    return response
                try:
                    text = await response.content.read(wire.ERROR_BODY_MAX + 1)
                finally:
                    response.close()
        except TimeoutError as error:
            raise EngineError("upstream_timeout", f"the server said nothing for {FIRST_BYTE_TIMEOUT_S:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            _log.info("%s can't be reached: %s", address, error)
            raise EngineError("upstream_unreachable", "the engine's server can't be reached") from error
        raise wire.refused(response.status, response.headers, text)

    async def _follow(self, address: str, body: bytes) -> aiohttp.ClientResponse:
        """Post, also where the server redirects to, as long as that is at the same server.

        Raises:
            EngineError: it is elsewhere, where neither prompt nor key may go.
        """
        for _ in range(REDIRECTS_MAX + 1):
            response = await self._once_more_if_closed(address, body)
            if response.status not in _REDIRECTS:
                return response
            response.close()
            target = _redirected(response)
            # The other three mean a GET of what was posted.
            if response.status not in (307, 308) or not _same_origin(address, target):
                _log.warning("%s redirects to %s: give that address with --engine, if it is yours", address, target)
                said = f"the engine's server redirects elsewhere (HTTP {response.status}), which is not followed"
                raise EngineError("upstream_redirect", said, status=response.status)
            address = target
        raise EngineError("upstream_redirect", "the engine's server redirects without end", status=response.status)

    async def _once_more_if_closed(self, address: str, body: bytes) -> aiohttp.ClientResponse:
        """Post, and again on a fresh connection if a kept one turns out to be closed before anything was answered.

        Servers close connections after a time, or after a number of requests (llama.cpp: 100), just when we reuse one.
        After a restart all of them are closed.
        """
        try:
            return await self._post_once(self._opened(), address, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError):
            assert self._fresh is not None, "both are opened together"
            return await self._post_once(self._fresh, address, body)

    async def _post_once(self, session: aiohttp.ClientSession, address: str, body: bytes) -> aiohttp.ClientResponse:
        return await session.post(
            address,
            data=body if len(body) < LARGE_BODY_BYTES else io.BytesIO(body),
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
        )

    async def post_stream(self, path: str, body: bytes) -> aiohttp.ClientResponse:
        """Post to *path* below ``/v1`` and return the answer, for `events`. Raises as `post`."""
        return await self.post(self.base + path, body)

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
            async with (
                asyncio.timeout(MODELS_TIMEOUT_S),
                self._opened().get(self.root + path, allow_redirects=False) as response,
            ):
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
        async with asyncio.timeout(MODELS_TIMEOUT_S):
            status, body = await _get_models(session, base + "/models")
    except TimeoutError as error:
        raise EngineError("upstream_timeout", f"{base}/models did not answer within {MODELS_TIMEOUT_S:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise EngineError("upstream_unreachable", f"no server at {base} ({error}): is it running?") from error
    if status != 200:
        hint = ": check the engine's api_key" if status in (401, 403) else ""
        raise EngineError("upstream_error", f"{base}/models answered HTTP {status}{hint}", status=status)
    try:
        return _listed(body)
    except (msgspec.MsgspecError, loose_json.NotJson) as error:
        raise EngineError("upstream_protocol", f"{base}/models is not OpenAI's list of models: {error}") from error


def _listed(body: bytes) -> list[UpstreamModel]:
    """Read a list of models; one that is spelled otherwise than OpenAI's costs at most what it says of itself.

    Raises:
        msgspec.MsgspecError, loose_json.NotJson: it is no such list.
    """
    try:
        return msgspec.json.decode(body, type=_Models).data or []
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # Read again, loosely.
    value = loose_json.cleaned(loose_json.loads(body))
    models: list[UpstreamModel] = []
    listed = value.get("data") if isinstance(value, dict) else value
    for item in msgspec.convert(listed, list[Any]):
        try:
            models.append(msgspec.convert(item, UpstreamModel, strict=False))
        except msgspec.ValidationError:
            if isinstance(item, dict) and isinstance(item.get("id"), str):
                models.append(UpstreamModel(item["id"]))
    if listed and not models:
        raise loose_json.NotJson("nothing in it has an id")
    return models


async def _get_models(session: aiohttp.ClientSession, address: str) -> tuple[int, bytes]:
    """Return status and body, also from where the server redirects to, as long as that is at the same server."""
    for _ in range(REDIRECTS_MAX + 1):
        async with session.get(address, allow_redirects=False) as response:
            if response.status not in _REDIRECTS:
                return response.status, await whole(response, MODELS_BYTES_MAX) if response.status == 200 else b""
            target = _redirected(response)
        if not _same_origin(address, target):
            said = f"{address} redirects to {target}, which is not followed: give that address, if it is yours"
            raise EngineError("upstream_redirect", said, status=response.status)
        address = target
    raise EngineError("upstream_redirect", f"{address} redirects without end", status=response.status)


def _redirected(response: aiohttp.ClientResponse) -> str:
    """Return where a redirect leads to; empty if it says nothing that is understood."""
    try:
        return urljoin(str(response.url), response.headers.get("Location", ""))
    except ValueError:
        return ""


def _same_origin(address: str, target: str) -> bool:
    """Tell whether two addresses are of one server: the same scheme, name and port."""
    try:
        one, other = ((parts.scheme, parts.hostname, parts.port) for parts in map(urlsplit, (address, target)))
    except ValueError:
        return False
    return one == other


async def events(response: aiohttp.ClientResponse, answer: AnswerReader) -> AsyncGenerator[list[Frame], None]:
    """Yield the frames of each piece of the body until the answer is complete.

    The body's first character tells a stream of events from an answer in one object, whatever its type is said to be.
    """
    parser = SseParser()
    content = response.content
    begun = False
    limit_s = FIRST_BYTE_TIMEOUT_S
    try:
        while not answer.complete:
            async with asyncio.timeout(limit_s):
                piece = await content.readany()
            limit_s = IDLE_TIMEOUT_S
            if not begun and piece:
                piece = piece.lstrip(_BEFORE_THE_FIRST)
                if not piece:
                    continue
                begun = True
                if piece.startswith(b"{"):
                    yield answer.read_whole(piece + await whole(response, LINE_BYTES_MAX))
                    return
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
            raise EngineError("upstream_cut", "the engine's connection broke mid-answer") from error
    if not answer.complete and not answer.finished:
        kind = response.headers.get("Content-Type", "")
        if not answer.begun and not kind.startswith("text/event-stream"):
            raise EngineError("upstream_protocol", f"the engine's server does not stream, it sent {kind[:64]!r}")
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
        raise EngineError("upstream_cut", "the engine's connection broke mid-answer") from error
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
