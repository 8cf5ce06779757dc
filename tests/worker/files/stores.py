"""The far sides of a host's files, as real servers: a coordinator's, and any address of a buyer's."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from comptoir.kit.ids import new_id, public
from tests.tcp import stop

KEY = "hk_live_files"
NUMBER_ONE = (1).to_bytes(15, "big")
JOB, LEASE = public("job", b"J" + NUMBER_ONE), public("att", b"L" + NUMBER_ONE)
"""Those of `coordinator_stand_in.make_job` number 1."""
PIECE_BYTES = 64 * 1024

Answer = tuple[int, str] | tuple[int, str, dict[str, str]]
"""Status, the error's code, headers."""


class Upload:
    """One artifact as it has come so far."""

    def __init__(self, size: int, said: dict[str, str]) -> None:
        self.size, self.said = size, said
        self.content = bytearray()


class FileStore:
    """Serves inputs and takes artifacts as a coordinator does, strictly: what it is not asked as agreed it refuses.

    *cuts* are the bytes after which the next answers or bodies are cut, *answers* what is answered first instead.
    """

    def __init__(self) -> None:
        self.url = ""
        self.inputs: list[bytes] = []
        self.uploads: dict[str, Upload] = {}
        self.cuts: list[int] = []
        self.answers: list[Answer] = []
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.begun: dict[str, str] = {}
        self.knows_ranges = True
        self.over = asyncio.Event()
        self.stands_still = 0
        """How many of the next bodies are not read, and not answered either."""
        self.lose_replies = 0
        """How many of the next replies are lost after what was asked is done."""
        self.on_request: Callable[[str], None] = lambda what: None

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
        body = json.dumps({"error": {"code": code, "message": f"said {code}"}})
        return web.Response(status=status, text=body, content_type="application/json", headers=headers)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        what = f"{request.method} {request.path.partition('/jobs/')[2]}"
        self.requests.append(what)
        self.on_request(what)
        if self.answers:
            await request.read()  # An answer before the end of a body may be lost with the connection.
            status, code, *rest = self.answers.pop(0)
            return self._refuse(status, code, rest[0] if rest else None)
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return self._refuse(401, "Unauthorized")
        if request.headers.get("X-Comptoir-Lease") != LEASE or request.match_info["job"] != JOB:
            return self._refuse(409, "NotYourLease")
        if request.match_info["part"] == "inputs":
            return await self._input(request)
        if request.headers.get("Tus-Resumable") != "1.0.0":
            return self._refuse(412, "PreconditionFailed")
        reply = await self._artifact(request)
        if self.lose_replies:
            self.lose_replies -= 1
            return cut(request)
        return reply

    async def _input(self, request: web.Request) -> web.StreamResponse:
        number = int(request.match_info.get("rest", ""))
        if number >= len(self.inputs):
            return self._refuse(404, "UnknownFile")
        content = self.inputs[number]
        return await send(request, content, cuts=self.cuts, ranges=self.ranges if self.knows_ranges else None)

    async def _artifact(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return self._begin(request)
        upload = self.uploads.get(request.match_info.get("rest", ""))
        if upload is None:
            return self._refuse(404, "UnknownFile")
        if request.method == "PATCH":
            if int(request.headers["Upload-Offset"]) != len(upload.content):
                return self._refuse(409, "OffsetMismatch")
            if self.stands_still:
                self.stands_still -= 1
                await self.over.wait()
                return web.Response()
            stop_at = self.cuts.pop(0) if self.cuts else None
            while piece := await request.content.readany():
                if stop_at is not None and len(piece) >= stop_at:
                    upload.content += piece[:stop_at]
                    return cut(request)
                stop_at = None if stop_at is None else stop_at - len(piece)
                upload.content += piece
            assert len(upload.content) <= upload.size
        return web.Response(status=204, headers={"Upload-Offset": str(len(upload.content))})

    def _begin(self, request: web.Request) -> web.Response:
        words = (pair.split(" ") for pair in request.headers["Upload-Metadata"].split(","))
        said = {key: base64.b64decode(value).decode() for key, value in words}
        file_id = self.begun.setdefault(request.headers["Idempotency-Key"], public("file", new_id()))
        self.uploads.setdefault(file_id, Upload(int(request.headers["Upload-Length"]), said))
        return web.Response(status=201, headers={"Location": f"/house/host/jobs/{JOB}/artifacts/{file_id}"})


def cut(request: web.Request) -> web.Response:
    """End the connection without another byte."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def send(
    request: web.Request,
    content: bytes,
    *,
    cuts: list[int],
    ranges: list[str] | None,
    headers: dict[str, str] | None = None,
) -> web.StreamResponse:
    """Send *content*, or the range that was asked for; break off after the first of *cuts*. None: knows no ranges."""
    asked = request.headers.get("Range", "") if ranges is not None else ""
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    if asked and ranges is not None:
        ranges.append(asked)
    rest = content[start:]
    response = web.StreamResponse(status=206 if asked else 200, headers=headers)
    if asked:
        response.headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    response.content_length = len(rest)
    await response.prepare(request)
    left = cuts.pop(0) if cuts else len(rest) + 1
    for at in range(0, len(rest), PIECE_BYTES):
        piece = rest[at : at + PIECE_BYTES]
        await response.write(piece[:left])
        left -= len(piece)
        if left <= 0:
            assert request.transport is not None
            # What was written so far leaves first: an abort would throw it away.
            request.transport.close()
            break
    return response


@asynccontextmanager
async def serving(handle: Callable[[web.Request], Awaitable[web.StreamResponse]], *paths: str) -> AsyncIterator[str]:
    """Serve *handle* at *paths* and give the address."""
    app = web.Application(client_max_size=1 << 30)
    for path in paths:
        app.router.add_route("*", path, handle)
    runner = web.AppRunner(app, shutdown_timeout=0, lingering_time=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server: Any = site._server
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await stop(runner)


@asynccontextmanager
async def file_store() -> AsyncIterator[FileStore]:
    store = FileStore()
    place = "/house/host/jobs/{job}/{part:inputs|artifacts}"
    async with serving(store.handle, place, place + "/{rest}") as store.url:
        try:
            yield store
        finally:
            store.over.set()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def start_of(range_: str) -> int:
    found = re.fullmatch(r"bytes=(\d+)-", range_)
    assert found is not None
    return int(found[1])
