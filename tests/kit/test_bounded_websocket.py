"""Half-sent messages, handshakes and unread answers of WebSockets, each within its bound."""

import asyncio
import base64
import contextlib
import logging
import struct
from typing import Any

import pytest

from comptoir.kit.http.turns import TURN_BYTES
from comptoir.kit.http.websocket import PARSE_BYTES
from tests.kit.bounded_server import KIB, Bounded, serving
from tests.kit.test_bounded_http import hung_up

UPGRADE = (
    b"GET %s HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: " + base64.b64encode(bytes(16)) + b"\r\n"
)


def frame(payload: bytes, *, opcode: int = 2, fin: bool = True, size: int | None = None) -> bytes:
    """Return a masked frame (with a mask of zeros); *size* says more than there is."""
    length = len(payload) if size is None else size
    return struct.pack("!BBQ", (0x80 if fin else 0) | opcode, 0x80 | 127, length) + bytes(4) + payload


async def opened(server: Bounded, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(UPGRADE % b"/socket" + b"\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


class TestPaths:
    @pytest.mark.parametrize("path", [b"//socket", b"/socket/", b"//socket//"])
    async def test_slashes_too_many_lead_there_too(self, path: bytes) -> None:
        async with serving() as server, server.client() as (reader, writer):
            writer.write(UPGRADE % path + b"\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            writer.write(frame(b"heard"))
            await server.until(lambda: server.messages == [b"heard"])

    async def test_a_request_that_asks_for_no_websocket_is_told_so(self) -> None:
        async with serving() as server:
            answer = await server.ask(b"GET /socket/ HTTP/1.0\r\nhost: x\r\n\r\n")

        assert answer.startswith(b"HTTP/1.1 400 ") and b"\r\nupgrade: websocket\r\nconnection: upgrade\r\n" in answer


class TestMessages:
    async def test_a_whole_one_arrives_and_nothing_is_counted_of_it(self) -> None:
        async with serving() as server, server.client() as (reader, writer):
            await opened(server, reader, writer)
            whole = frame(bytes(300 * KIB))
            writer.write(whole[:1000])
            await server.until(lambda: server.traffic.messages.held > 900)
            writer.write(whole[1000:] + frame(b"second"))
            await server.until(lambda: len(server.messages) == 2)

            assert server.traffic.messages.held == 0
            server.later(60.0)
            assert server.traffic.connections == 1

    @pytest.mark.parametrize("fragments", [False, True], ids=["one frame", "empty fragments"])
    async def test_half_ones_are_bounded_all_together(self, fragments: bool) -> None:
        """Empty fragments cost no bytes of a message, and memory for each."""
        half = (
            frame(b"", fin=False) + frame(b"", opcode=0, fin=False) * 1_500
            if fragments
            else frame(bytes(90 * KIB), size=1 << 19)
        )
        async with (
            serving(links_bytes_max=150 * KIB) as server,
            server.client() as (r1, w1),
            server.client() as (r2, w2),
        ):
            await opened(server, r1, w1)
            await opened(server, r2, w2)
            w1.write(half)
            await server.until(lambda: server.traffic.messages.held > 80 * KIB)
            w2.write(half)
            await hung_up(r2)

            assert server.traffic.refused == {"links_bytes_max": 1}
            assert server.traffic.connections == 1

    async def test_one_that_comes_too_slowly_is_cut(self) -> None:
        async with serving(body_grace_s=10.0) as server, server.client() as (reader, writer):
            await opened(server, reader, writer)
            writer.write(frame(b"half", size=100))
            await server.until(lambda: server.traffic.messages.held)
            server.later(9.0)
            assert server.traffic.connections == 1

            server.later(10.5)

            await hung_up(reader)
            assert server.traffic.refused == {"body_bytes_per_s_min": 1}

    async def test_what_makes_many_whole_at_once_is_parsed_in_turns(self) -> None:
        """5,000 links that each sent a byte at the same moment kept all others waiting for 0.2 s."""
        many = 2 * TURN_BYTES // PARSE_BYTES
        async with serving() as server, contextlib.AsyncExitStack() as stack:
            writers = []
            for _ in range(many):
                reader, writer = await stack.enter_async_context(server.client())
                await opened(server, reader, writer)
                writer.write(frame(b"half", size=5))
                writers.append(writer)
            await server.until(lambda: server.traffic.messages.held == many * 4)
            for writer in writers:
                writer.write(b"!")
            most, before = 0, 0
            while len(server.messages) < many:
                await asyncio.sleep(0)
                most, before = max(most, len(server.messages) - before), len(server.messages)

        assert most <= TURN_BYTES // PARSE_BYTES

    async def test_one_that_waits_for_its_turn_arrives_though_its_sender_hangs_up(self) -> None:
        async with serving() as server, server.client() as (reader, writer):
            await opened(server, reader, writer)
            writer.write(frame(b"half", size=5))
            await server.until(lambda: server.traffic.messages.held)
            waiting = [server.traffic.turns.spend(f"other {number}", TURN_BYTES) for number in range(2_000)]
            writer.write(b"!")
            writer.close()

            await server.until(lambda: server.messages == [b"half!"])
            assert not all(turn is None or turn.done() for turn in waiting)


class TestPeers:
    async def test_one_that_breaks_the_protocol_before_it_is_let_in_is_cut(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving() as server, server.client() as (reader, writer):
            writer.write(UPGRADE % b"/undecided" + b"\r\n")
            await server.until(lambda: server.messages == [b"asked"])
            writer.write(b"\xff\xff")

            await hung_up(reader)
        assert caplog.records == []

    @pytest.mark.parametrize(
        "line", [b"a: " + b"x" * 9_000 + b"\r\n", b"a: b\r\n" * 150], ids=["long line", "many lines"]
    )
    async def test_a_handshake_that_the_library_refuses_does_not_stay_open(self, line: bytes) -> None:
        async with serving(head_s=10.0) as server, server.client() as (_, writer):
            writer.write(UPGRADE % b"/socket" + line + b"\r\n")
            await asyncio.sleep(0.005)
            server.later(10.5)

            await server.until(lambda: server.traffic.connections == 0)

    async def test_one_that_only_pings_and_never_reads_is_cut(self) -> None:
        async with serving() as server, server.client() as (reader, writer):
            await opened(server, reader, writer)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            pings = frame(bytes(125), opcode=9)
            async with asyncio.timeout(20):
                while server.traffic.connections:
                    writer.write(pings * 2_000)
                    await asyncio.sleep(0)

            assert server.traffic.refused == {"reader_stall_s": 1}

    async def test_refused_ones_are_no_lines_of_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        """Row 18: 1,500 of them were 1,500 lines of level ERROR."""
        caplog.set_level(logging.WARNING)
        async with serving(refusing=True) as server:
            answer = await server.ask(UPGRADE % b"/socket" + b"\r\n")
            other: Any = await server.ask(UPGRADE % b"/nowhere" + b"\r\n")

        assert answer.startswith(b"HTTP/1.1 403 ")
        assert other.startswith(b"HTTP/1.1 400 ") and b"nothing is served at /nowhere" in other
        assert caplog.records == []
