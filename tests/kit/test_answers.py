"""A whole answer is written at once, byte for byte as uvicorn would have sent it in two messages."""

import re
from typing import Any

import pytest

from comptoir.kit.http import server as http_server
from tests.kit.bounded_server import Bounded, serving

DATE = re.compile(rb"date: [^\r]*")

GET = b"GET /small HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /take HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
LAST = b"GET /small HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"

ASKED = {
    "an answer": GET,
    "an answer to a body": POST,
    "no such path": GET.replace(b"/small", b"/nothing"),
    "no such method": GET.replace(b"GET", b"DELETE"),
    "options": GET.replace(b"GET", b"OPTIONS"),
    "head": GET.replace(b"GET", b"HEAD"),
    "HTTP/1.0": GET.replace(b"1.1", b"1.0"),
    "an answer that stays below 100-continue": POST.replace(b"host: x", b"host: x\r\nexpect: 100-continue"),
    "three in a row": GET + POST + GET,
}


async def answered(server: Bounded, sent: bytes) -> bytes:
    """Return all that comes until the server closes after one more request."""
    found = b""
    async with server.client() as (reader, writer):
        writer.write(sent + LAST)
        while piece := await reader.read(1 << 16):
            found += piece
    return DATE.sub(b"date: then", found)


class TestAnswers:
    async def test_they_are_what_uvicorn_sends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        at_once = []

        def counted(*args: Any) -> bool:
            at_once.append(own(*args))
            return at_once[-1]

        own = http_server.answer
        async with serving() as server:
            monkeypatch.setattr(http_server, "answer", counted)
            fast = {name: await answered(server, sent) for name, sent in ASKED.items()}
            monkeypatch.setattr(http_server, "answer", lambda *_: False)
            slow = {name: await answered(server, sent) for name, sent in ASKED.items()}

        assert fast == slow
        assert at_once.count(True) > 6 and at_once.count(False) > 3
        assert all(len(answer) > 60 for answer in fast.values())

    async def test_no_value_of_a_header_begins_another(self) -> None:
        async with serving() as server:
            answer = await answered(server, GET.replace(b"/small", b"/bad"))

        assert answer.startswith(b"HTTP/1.1 400 ") and answer.endswith(b"small")
        assert b"smuggled" not in answer
