"""Forwarding of requests that only another coordinator can answer.

A polling host delivers a piece of a job that is owned elsewhere, or a buyer cancels one. The request is forwarded as it
came, credentials included, and its answer is returned.
"""

import asyncio
import logging
from typing import Any

from comptoir.cluster.messages import HttpAnswer, HttpCall
from comptoir.cluster.switchboard import Switchboard
from comptoir.dispatch import Core
from comptoir.kit.errors import Unavailable
from comptoir.kit.http import FORWARDED, HttpServer, Reply, Request

log = logging.getLogger(__name__)

ANSWER_S = 10.0
"""How long the other coordinator has to answer: longer than writing the end of a job may take."""

WAITING_MAX = 10_000
"""Most forwarded requests that are unanswered at once."""

HEADERS_DROPPED = (b"content-length", b"connection", b"transfer-encoding", b"content-type")

HEADERS_OF_THE_BODY = (b"content-encoding", b"content-length")
"""Say how the body came; what is forwarded is what it became."""


class Forwarding:
    """Forwards requests, and answers those forwarded here."""

    def __init__(self, core: Core, switchboard: Switchboard) -> None:
        self._core = core
        self._board = switchboard
        self._calls: dict[int, asyncio.Future[HttpAnswer]] = {}
        self._next = 0
        self._server: HttpServer | None = None
        switchboard.on(HttpCall, self._called)
        switchboard.on(HttpAnswer, self._answered)

    def begin(self, server: HttpServer) -> None:
        """Let *server* answer requests that others forward here."""
        self._server = server

    async def forward(self, request: Request, node_id: bytes) -> Reply:
        """Have another coordinator answer *request*.

        Raises:
            Unavailable: that coordinator is dead, the bus is down, or no answer came in time; safe to repeat.
        """
        if not self._board.up or node_id not in self._board.here or len(self._calls) >= WAITING_MAX:
            raise Unavailable("the coordinator that has this job can't be asked just now; try again")
        self._next += 1
        call_id = self._next
        future = self._calls[call_id] = asyncio.get_running_loop().create_future()
        scope = request.scope
        call = HttpCall(
            call_id,
            request.method,
            request.path,
            scope["query_string"],
            [(name, value) for name, value in scope["headers"] if name not in HEADERS_OF_THE_BODY],
            request.raw,
            request.peer,
        )
        self._board.send(node_id, call)
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await future
        except TimeoutError:
            raise Unavailable("the coordinator that has this job does not answer; try again") from None
        finally:
            self._calls.pop(call_id, None)
        media = next((value for name, value in answer.headers if name == b"content-type"), b"application/json")
        headers = tuple((name, value) for name, value in answer.headers if name not in HEADERS_DROPPED)
        return Reply(answer.status, answer.body, media=media.decode("latin-1"), headers=headers)

    def _answered(self, sender: bytes, answer: HttpAnswer) -> None:
        future = self._calls.get(answer.call_id)
        if future is not None and not future.done():
            future.set_result(answer)

    def _called(self, sender: bytes, call: HttpCall) -> None:
        self._core.background.spawn(self._answer(sender, call))

    async def _answer(self, sender: bytes, call: HttpCall) -> None:
        assert self._server is not None, "there is a server before anybody can call"
        status, headers, pieces = 503, list[tuple[bytes, bytes]](), list[bytes]()
        unread = True

        async def receive() -> dict[str, Any]:
            nonlocal unread
            if unread:
                unread = False
                return {"type": "http.request", "body": call.body, "more_body": False}
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        async def send(message: Any) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message["headers"])
            else:
                pieces.append(message.get("body", b""))

        scope = {
            "type": "http",
            "method": call.method,
            "path": call.path,
            "query_string": call.query,
            "headers": call.headers,
            "client": (call.peer, 0),
            "server": None,
            "scheme": "http",
            "root_path": "",
            FORWARDED: True,
        }
        try:
            await self._server(scope, receive, send)
        finally:
            self._board.send(sender, HttpAnswer(call.call_id, status, headers, b"".join(pieces)))
