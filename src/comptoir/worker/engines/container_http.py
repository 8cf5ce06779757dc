"""One container over HTTP: its runs, and what it reports about itself. Every wait and every body is bounded.

Connections are kept alive and reused. A run is posted once; only if a kept connection turns out to be closed already,
it is posted again on a new one. Redirects are not followed, and cookies not kept.
"""

import asyncio
import contextlib
import io
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any

import aiohttp

from comptoir.worker.engines import container_wire as wire
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.container_spec import ContainerSpec
from comptoir.worker.engines.hidden import Hidden

CONNECT_TIMEOUT_S = 5.0
"""Most seconds to reach a container."""

PROBE_TIMEOUT_S = 2.5
"""Most seconds for an answer to each of the two paths that show whether a container is up."""

ABOUT_TIMEOUT_S = 4.0
"""Most seconds for what a container reports about itself; the coordinator waits for 5 s."""

ABOUT_BYTES_MAX = 64 * 1024
"""Longest ``/service-resources``; that of Ritual's services has about 5 kB."""

ERROR_TIMEOUT_S = 5.0
"""Most seconds for the body of an error; the status alone is enough."""

CONNECTIONS_MAX = 512
"""Most connections over all containers; their concurrency is the real bound."""

KEEP_CONNECTION_S = 1.5
"""How long an unused connection is kept: below the 2 s after which gunicorn closes it on its side."""

READ_BUFFER_BYTES = 256 * 1024
"""Bytes of an answer that are read ahead; beyond them, TCP slows the container down."""

LARGE_BODY_BYTES = 1024 * 1024
"""Inputs of this size or more are written in pieces, so that they don't block the event loop."""

_UNREACHED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_BROKEN = (aiohttp.ClientError, OSError)


def open_session(*, kept: bool = True) -> aiohttp.ClientSession:
    """Return the connections that all containers of a worker share; the caller closes it.

    Args:
        kept: keep connections for later runs; otherwise each is new, and closed after its answer.
    """
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=KEEP_CONNECTION_S)
        if kept
        else aiohttp.TCPConnector(limit=CONNECTIONS_MAX, force_close=True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        # The bytes of an output are the container's own, not those of its compression.
        headers={"Accept-Encoding": "identity"},
        # Cookies of one buyer's run must not reach another's.
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=READ_BUFFER_BYTES,
        trace_configs=[trace],
    )


async def _note_reuse(session: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.append(True)


class ContainerClient:
    """One container at *spec*'s address; *slots* runs at once where the spec does not say."""

    def __init__(self, spec: ContainerSpec, *, slots: int) -> None:
        self.spec = spec
        self.running = 0
        self.about_last = b""
        """Its last report about itself, used while it is too busy to answer."""
        self._hidden = Hidden(spec.url, spec.bearer)
        self._places = asyncio.Semaphore(spec.concurrency or slots)
        self._headers = {"Authorization": f"Bearer {spec.bearer}"} if spec.bearer else {}
        self._session: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._reached = False

    def open(self, session: aiohttp.ClientSession, *, fresh: aiohttp.ClientSession) -> None:
        """Use *session* from now on, and *fresh*, which keeps no connection, where a kept one is found closed."""
        self._session, self._fresh = session, fresh

    async def answers(self) -> bool:
        """Whether it is up: any HTTP answer counts. One that is running is not asked, as it may serve one at a time."""
        if self.running and self._reached:
            return True
        for path in ("/service-resources", "/"):
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S), self._get(path):
                    self._reached = True
                    return True
            except (*_BROKEN, TimeoutError):
                # Unreachable, or this path is not served as HTTP.
                continue
        return False

    async def about(self, model_id: str | None = None) -> bytes:
        """Return ``GET /service-resources[?model_id=]`` verbatim; empty if it is not valid JSON within bounds."""
        query = {"model_id": model_id} if model_id is not None else {}
        try:
            async with asyncio.timeout(ABOUT_TIMEOUT_S), self._get("/service-resources", query) as response:
                if response.status // 100 != 2:
                    return b""
                body = await _up_to(response.content, ABOUT_BYTES_MAX + 1)
        except (*_BROKEN, TimeoutError):
            # Having no answer is a valid result here.
            return b""
        return body if len(body) <= ABOUT_BYTES_MAX and wire.is_json(body) else b""

    async def output(self, body: bytes) -> str:
        """Run it on *body* and return its output, the JSON verbatim.

        Raises:
            EngineError: it can't be reached, fails, is too slow, or its output is too large or not JSON.
        """
        patience = _Patience(self.spec.timeout_s)
        pieces = [piece async for piece in self.stream(body, patience)]
        return wire.read_output(b"".join(pieces), self._hidden)

    async def stream(self, body: bytes, patience: "_Patience | None" = None) -> AsyncGenerator[bytes, None]:
        """Run it on *body* and yield the bytes of its output as they come.

        Raises:
            EngineError: as `output`; a connection that ends before the output is complete is never a clean end.
        """
        patience = patience or _Patience(self.spec.timeout_s)
        size = 0
        async with self._answer(body, patience) as response:
            while piece := await self._piece(response, patience):
                size += len(piece)
                if size > self.spec.output_bytes_max:
                    most = f"the container's output is larger than the {self.spec.output_bytes_max} bytes allowed here"
                    raise EngineError("container_output_too_large", most)
                yield piece

    @contextlib.asynccontextmanager
    async def _answer(self, body: bytes, patience: "_Patience") -> AsyncIterator[aiohttp.ClientResponse]:
        """Hold a slot and the successful response to *body* until the block ends; an unread rest is aborted."""
        try:
            async with patience.waiting():
                await self._places.acquire()
        except TimeoutError as error:
            busy = f"the container was busy with other runs for {self.spec.timeout_s:g} s"
            raise EngineError("container_busy", busy, fault="capacity") from error
        self.running += 1
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._post(body, patience)
            self._reached = True
            if response.status // 100 != 2:
                raise await self._refused(response, patience)
            yield response
        finally:
            self.running -= 1
            self._places.release()
            if response is not None:
                # One that was read to its end has given its connection back already; any other is aborted here.
                response.close()

    async def _post(self, body: bytes, patience: "_Patience") -> aiohttp.ClientResponse:
        try:
            async with patience.waiting():
                reused: list[bool] = []
                try:
                    return await self._post_once(self._opened(), body, reused)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError):
                    # The far side closed a kept connection just as we used it; if it crashed over this run, it gets it
                    # twice.
                    if not reused:
                        raise
                    assert self._fresh is not None, "both are opened together"
                    return await self._post_once(self._fresh, body, [])
        except _UNREACHED as error:
            self._reached = False
            raise EngineError("container_unreachable", "the container can't be reached") from error
        except TimeoutError as error:
            raise self._too_slow() from error
        except _BROKEN as error:
            raise EngineError("container_cut", "the container's connection broke before it answered") from error

    async def _post_once(
        self, session: aiohttp.ClientSession, body: bytes, reused: list[bool]
    ) -> aiohttp.ClientResponse:
        return await session.post(
            self.spec.url + "/service_output",
            data=body if len(body) < LARGE_BODY_BYTES else io.BytesIO(body),
            headers={"Content-Type": "application/json", **self._headers},
            allow_redirects=False,
            trace_request_ctx=reused,
        )

    async def _piece(self, response: aiohttp.ClientResponse, patience: "_Patience") -> bytes:
        try:
            async with patience.waiting():
                return await response.content.readany()
        except TimeoutError as error:
            raise self._too_slow() from error
        except _BROKEN as error:
            cut = "the container's connection broke before its output was complete"
            raise EngineError("container_cut", cut) from error

    async def _refused(self, response: aiohttp.ClientResponse, patience: "_Patience") -> EngineError:
        body = b""
        with contextlib.suppress(*_BROKEN, TimeoutError):
            async with asyncio.timeout(ERROR_TIMEOUT_S), patience.waiting():
                body = await _up_to(response.content, wire.ERROR_BODY_MAX + 1)
        return wire.refused(response.status, response.headers, body, self._hidden)

    def _too_slow(self) -> EngineError:
        return EngineError("container_timeout", f"the container was not done within {self.spec.timeout_s:g} s")

    def _get(
        self, path: str, query: Mapping[str, str] | None = None
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        address = self.spec.url + path
        return self._opened().get(address, params=query, headers=self._headers, allow_redirects=False)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise EngineError("engine_closed", "the engine is not started")
        return self._session


class _Patience:
    """The time limit of a run: only waiting for the container counts, not the time that its reader takes."""

    def __init__(self, seconds: float) -> None:
        self._left_s = seconds

    @contextlib.asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Count the time of the block; raises TimeoutError in it when the limit is reached."""
        clock = asyncio.get_running_loop().time
        began_s = clock()
        try:
            async with asyncio.timeout(self._left_s):
                yield
        finally:
            self._left_s -= clock() - began_s


async def _up_to(content: aiohttp.StreamReader, bytes_max: int) -> bytes:
    """Read a body, or its first *bytes_max* bytes."""
    read = b""
    while len(read) < bytes_max and (piece := await content.readany()):
        read += piece
    return read[:bytes_max]
