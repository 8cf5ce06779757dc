"""Clients of HTTP/1.0, and those that ask before they send a body (``Expect: 100-continue``)."""

import asyncio
import contextlib

import pytest

from tests.kit.bounded_server import KIB, Bounded, serving

KEPT = {"without keep-alive": b"", "with keep-alive": b"connection: keep-alive\r\n"}

HEAD = b"POST /take HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
JSON = b"content-type: application/json\r\n"


async def to_the_end(server: Bounded, sent: bytes) -> tuple[bytes, bytes]:
    """Send, read until the server closes; return the head in lower case, and the rest."""
    async with server.client() as (reader, writer):
        writer.write(sent)
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    return head.lower(), body


class TestOldClients:
    @pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
    async def test_an_answer_ends_with_its_connection(self, kept: bytes) -> None:
        async with serving() as server:
            for method, path, expected in (
                (b"GET", b"/small", b"small"),
                (b"GET", b"/few", b"one two three"),
                (b"HEAD", b"/few", b""),
                (b"GET", b"/nowhere", b"shaped:nothing is served at /nowhere"),
                (b"POST", b"/take", b"taken"),
            ):
                asked = b"%b %b HTTP/1.0\r\n%b%bcontent-length: 2\r\n\r\n{}" % (method, path, JSON, kept)
                head, body = await to_the_end(server, asked)
                assert body == expected, path
                assert b"transfer-encoding" not in head and b"connection: close" in head
            assert server.got == [2]

    async def test_a_stream_that_breaks_does_not_look_whole(self) -> None:
        async with serving() as server:
            for version in (b"1.0", b"1.1"):
                found = b""
                async with server.client() as (reader, writer):
                    writer.write(b"GET /breaks HTTP/%b\r\nhost: x\r\n\r\n" % version)
                    with contextlib.suppress(ConnectionResetError):
                        while piece := await asyncio.wait_for(reader.read(KIB), 10):
                            found += piece
                        assert version == b"1.1" and not found.endswith(b"0\r\n\r\n")

    async def test_newer_ones_get_chunks(self) -> None:
        async with serving() as server:
            head, body = await to_the_end(server, b"GET /few HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")

        assert b"transfer-encoding: chunked" in head and body.startswith(b"4\r\none \r\n")

    async def test_they_are_not_told_to_continue(self) -> None:
        async with serving() as server:
            asked = HEAD.replace(b"1.1", b"1.0") + JSON + b"content-length: 2\r\n\r\n{}"
            head, body = await to_the_end(server, asked)

        assert (head.partition(b"\r\n")[0], body) == (b"http/1.1 200 ok", b"taken")


class TestExpect:
    async def test_a_large_body_is_asked_for_and_taken(self) -> None:
        async with serving() as server, server.client() as (reader, writer):
            writer.write(HEAD + JSON + b"content-length: %d\r\n\r\n" % (300 * KIB))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(bytes(300 * KIB))

            assert (await reader.readuntil(b"taken")).startswith(b"HTTP/1.1 200 ")
            assert server.got == [300 * KIB]

    @pytest.mark.parametrize(
        ("lines", "refusing", "words"),
        [
            (JSON + b"content-length: 9999999", False, b"larger than 1048576 bytes"),
            (JSON + b"content-length: 2\r\ncontent-encoding: br", False, b"Content-Encoding: br"),
            (b"content-length: 2\r\ncontent-type: text/plain", False, b"without a key a body needs"),
            (JSON + b"content-length: 2", True, b"nobody is let in"),
        ],
    )
    async def test_one_that_is_refused_by_its_head_is_not(self, lines: bytes, refusing: bool, words: bytes) -> None:
        async with serving(refusing=refusing) as server, server.client() as (reader, writer):
            writer.write(HEAD + lines + b"\r\n\r\n")
            answer = await reader.read(KIB)

        assert answer.startswith(b"HTTP/1.1 40") and words in answer
