"""One connection's bytes and time: heads, bodies, places and readers, each within its bound, and all of it given
back."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from comptoir.kit.errors import Unavailable
from comptoir.kit.http import BoundedHttpProtocol, ByteBudget, HttpTraffic
from comptoir.kit.http.bounds import HEADERS_MAX, PIECE_BYTES, Bounds
from comptoir.kit.http.connection import NEW_CONNECTION_BYTES
from comptoir.kit.http.turns import TURN_BYTES
from tests.kit.bounded_server import KEEP_ALIVE_S, KIB, LaterLoop, serving

HEAD = b"GET /small HTTP/1.1\r\nhost: x\r\n"
POST = b"POST /take HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


async def hung_up(reader: asyncio.StreamReader) -> None:
    """Wait until the server has closed, without a word."""
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 10) == b""


class TestHeads:
    async def test_a_head_that_never_ends_is_refused_at_its_bound(self) -> None:
        """Row 1: parsed piece by piece its cost grew with its square, and 60 MB of one stopped the process for 8 s."""
        async with serving(head_bytes_max=64 * KIB) as server, server.client() as (reader, writer):
            writer.write(HEAD + b"a: ")
            sent = 0
            while not writer.is_closing() and sent < 4_000:
                writer.write(b"x" * KIB)
                sent += 1
                await asyncio.sleep(0)
            answer = await reader.read(64 * KIB)

            assert answer.startswith(b"HTTP/1.1 431 ")
            assert b"shaped:the head of the request is larger than 65536 bytes" in answer
            assert server.traffic.heads.held == 0
            assert server.traffic.refused == {"head_bytes_max": 1}

    @pytest.mark.parametrize(
        "rest",
        [
            b"a: " + b"x" * 70 * KIB + b"\r\n\r\n",
            b"a: x\r\n" * (HEADERS_MAX + 1) + b"\r\n",
            b"a: x\r\n" * (HEADERS_MAX + 1),
        ],
        ids=["large in one piece", "too many lines", "too many lines and no end"],
    )
    async def test_so_is_one_that(self, rest: bytes) -> None:
        async with serving() as server:
            assert (await server.ask(HEAD + rest)).startswith(b"HTTP/1.1 431 ")

    async def test_one_that_is_too_long_only_with_its_last_piece(self) -> None:
        async with serving() as server, server.client() as (reader, writer):
            writer.write(HEAD + b"a: " + b"x" * 60 * KIB)
            await server.until(lambda: server.traffic.heads.held > 60 * KIB)
            writer.write(b"x" * 10 * KIB + b"\r\n\r\n")

            assert (await reader.read(KIB)).startswith(b"HTTP/1.1 431 ")

    async def test_a_head_in_pieces_within_its_bound_is_served(self) -> None:
        async with serving() as server, server.client() as (reader, writer):
            for piece in (HEAD, b"a: " + b"x" * 50 * KIB, b"\r\nb: y\r\n", b"\r\n"):
                writer.write(piece)
                await asyncio.sleep(0.002)

            assert (await reader.readuntil(b"small")).startswith(b"HTTP/1.1 200 ")
            assert server.traffic.heads.held == 0

    async def test_a_large_body_before_the_next_head_is_none_of_its_bytes(self) -> None:
        async with serving() as server, server.client() as (reader, writer):
            writer.write(POST % (300 * KIB) + bytes(300 * KIB) + HEAD + b"a: b")
            await reader.readuntil(b"taken")
            writer.write(b"\r\n\r\n")

            assert (await reader.readuntil(b"small")).startswith(b"HTTP/1.1 200 ")

    async def test_half_heads_are_bounded_all_together(self) -> None:
        """5,000 heads of 63 KiB that wait for their end would be 300 MB."""
        async with serving(heads_bytes_max=100 * KIB) as server, server.client() as (_, first):
            first.write(HEAD + b"a: " + b"x" * 60 * KIB)
            await server.until(lambda: server.traffic.heads.held > 60 * KIB)

            answer = await server.ask(HEAD + b"a: " + b"x" * 60 * KIB, address="127.0.0.2")

            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 5" in answer
            assert (await server.ask(HEAD + b"\r\n")).startswith(b"HTTP/1.1 200 ")

    async def test_a_head_that_takes_too_long_is_refused(self) -> None:
        async with serving(head_s=10.0) as server, server.client() as (reader, writer):
            writer.write(HEAD)
            await server.until(lambda: server.traffic.heads.held)
            server.later(9.0)
            assert server.traffic.connections == 1

            server.later(10.5)

            assert (await reader.read(KIB)).startswith(b"HTTP/1.1 408 ")
            assert await reader.read() == b""

    @pytest.mark.parametrize("before", [b"", b"\r\n"], ids=["never", "after empty lines"])
    async def test_a_connection_that_says_no_word_is_closed(self, before: bytes) -> None:
        async with serving(head_s=10.0) as server, server.client() as (reader, writer):
            writer.write(before)
            await asyncio.sleep(0.005)
            server.later(10.5)

            await hung_up(reader)

    async def test_one_that_asks_no_more_is_closed_a_while_after_its_last_answer(self) -> None:
        """Not after its first, though one timer serves both; and empty lines ask nothing."""
        async with serving() as server, server.client() as (reader, writer):
            writer.write(HEAD + b"\r\n")
            await reader.readuntil(b"small")
            (connection,) = server.connections
            connection.loop = loop = LaterLoop(connection.loop)
            for ahead_s in (KEEP_ALIVE_S - 1, KEEP_ALIVE_S + 1):
                loop.ahead_s = ahead_s
                connection.timeout_keep_alive_handler()
                writer.write(HEAD + b"\r\n")
                await reader.readuntil(b"small")
            writer.write(b"\r\n")
            loop.ahead_s += KEEP_ALIVE_S + 1

            connection.timeout_keep_alive_handler()

            await hung_up(reader)

    async def test_one_that_waits_for_its_answer_is_not(self) -> None:
        async with serving() as server, server.client() as (reader, writer):
            writer.write(HEAD + b"\r\n")
            await reader.readuntil(b"small")
            (connection,) = server.connections
            writer.write(
                b"POST /wait HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n"
            )
            await server.until(lambda: not connection.cycle.response_complete)
            connection.loop = loop = LaterLoop(connection.loop)
            loop.ahead_s = KEEP_ALIVE_S + 1
            connection.timeout_keep_alive_handler()
            server.go_on.set()

            assert (await reader.readuntil(b"waited")).startswith(b"HTTP/1.1 200 ")

    async def test_a_client_between_two_requests_is_left_alone(self) -> None:
        async with serving(head_s=10.0) as server, server.client() as (reader, writer):
            writer.write(HEAD + b"\r\n")
            await reader.readuntil(b"small")
            server.later(60.0)
            writer.write(HEAD + b"\r\n")

            assert (await reader.readuntil(b"small")).startswith(b"HTTP/1.1 200 ")


class TestBodies:
    async def test_one_that_comes_too_slowly_is_refused_in_the_dialects_shape(self) -> None:
        async with (
            serving(body_bytes_per_s_min=1_000, body_grace_s=10.0) as server,
            server.client() as (reader, writer),
        ):
            writer.write(POST % 100_000 + bytes(5_000))
            await server.until(lambda: server.traffic.bodies.held == 5_000)
            server.later(10.5)

            answer = await reader.read(KIB)

            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"shaped:the body came with less than 1000 bytes a second" in answer
            server.later(10.5)
            await server.until(lambda: server.traffic.connections == 0)

    async def test_one_that_was_fast_at_first_has_to_stay_so(self) -> None:
        async with (
            serving(body_bytes_per_s_min=1_000, body_grace_s=10.0) as server,
            server.client() as (reader, writer),
        ):
            writer.write(POST % 100_000 + bytes(50_000))
            await server.until(lambda: server.traffic.bodies.held == 50_000)
            now_s = asyncio.get_running_loop().time()
            server.traffic.sweep(now_s)
            writer.write(bytes(20_000))
            await server.until(lambda: server.traffic.bodies.held == 70_000)
            server.traffic.sweep(now_s + 10.5)
            assert not server.traffic.refused

            server.traffic.sweep(now_s + 21.0)

            assert (await reader.read(KIB)).startswith(b"HTTP/1.1 408 ")

    async def test_those_of_one_address_are_bounded_and_given_back(self) -> None:
        """Row 11: 20 bodies of 33 MB without a key held 611 MB."""
        async with serving(bodies_bytes_per_address_max=100_000) as server, server.client() as (reader, writer):
            writer.write(POST.replace(b"take", b"wait") % 90_000 + bytes(90_000))
            await server.until(lambda: server.traffic.bodies.held == 90_000)

            refused = await server.ask(POST % 20_000 + bytes(20_000))
            other = await server.ask(POST % 20_000 + bytes(20_000), address="127.0.0.2")
            server.go_on.set()
            await reader.readuntil(b"waited")
            again = await server.ask(POST % 20_000 + bytes(20_000))

            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 5" in refused
            assert other.startswith(b"HTTP/1.1 200 ")
            assert again.startswith(b"HTTP/1.1 200 ")
            assert server.traffic.refused == {"bodies_bytes_max": 1}

    async def test_those_of_all_are_bounded_and_a_refused_one_is_no_whole_one(self) -> None:
        async with serving(bodies_bytes_max=100_000) as server, server.client() as (_, writer):
            writer.write(POST % 90_000 + bytes(80_000))
            await server.until(lambda: server.traffic.bodies.held == 80_000)

            refused = await server.ask(POST % 60_000 + bytes(60_000), address="127.0.0.2")
            writer.transport.abort()
            await server.until(lambda: server.traffic.bodies.held == 0)

            assert refused.startswith(b"HTTP/1.1 503 ")
            assert server.got == []

    async def test_a_small_first_piece_is_not_counted_and_the_next_one_is(self) -> None:
        async with serving(bodies_bytes_max=100_000) as server, server.client() as (reader, writer):
            writer.write(POST.replace(b"take", b"wait") % 3_000 + bytes(1_000))
            await server.ask(POST % 3_000 + bytes(3_000))  # By then what was sent before it has come.
            before = server.traffic.bodies.held
            writer.write(bytes(2_000))
            await server.until(lambda: server.traffic.bodies.held == 2_000)
            server.go_on.set()
            await reader.readuntil(b"waited")

            assert before == 0
            assert server.traffic.bodies.held == 0

    async def test_after_a_refusal_the_connection_serves_on(self) -> None:
        async with serving(bodies_bytes_max=100_000) as server, server.client() as (reader, writer):
            writer.write(POST % 150_000 + bytes(150_000))
            assert (await reader.readuntil(b"try again")).startswith(b"HTTP/1.1 503 ")
            writer.write(POST % 10 + bytes(10))

            assert (await reader.readuntil(b"taken")).startswith(b"HTTP/1.1 200 ")

    async def test_what_nobody_reads_is_not_kept_and_not_waited_for_long(self) -> None:
        """A body behind a path that takes none: the answer is there, and the rest of it could come for ever."""
        async with serving(body_grace_s=10.0) as server, server.client() as (reader, writer):
            writer.write(HEAD + b"content-length: 1000000\r\n\r\n" + bytes(200_000))
            await reader.readuntil(b"small")
            assert server.traffic.bodies.held == 0
            writer.write(bytes(200_000))
            await asyncio.sleep(0.005)
            assert server.traffic.bodies.held == 0

            server.later(10.5)

            await server.until(lambda: server.traffic.connections == 0)


class TestPlaces:
    async def test_one_too_many_of_an_address_is_closed_at_once(self) -> None:
        async with serving(connections_per_address_max=2) as server:
            async with server.client(), server.client() as (reader, _):
                await server.until(lambda: server.traffic.connections == 2)
                async with server.client() as (third, _):
                    await hung_up(third)
                assert (await server.ask(HEAD + b"\r\n", address="127.0.0.2")).startswith(b"HTTP/1.1 200 ")
                assert not reader.at_eof()
            await server.until(lambda: server.traffic.connections == 0)

            assert (await server.ask(HEAD + b"\r\n")).startswith(b"HTTP/1.1 200 ")
            assert server.traffic.refused == {"connections_per_address_max": 1}

    async def test_and_one_too_many_in_all(self) -> None:
        async with serving(connections_max=1) as server, server.client():
            await server.until(lambda: server.traffic.connections == 1)
            async with server.client("127.0.0.2") as (second, _):
                await hung_up(second)

    def test_a_proxy_is_no_address_and_a_64_of_ipv6_is_one(self) -> None:
        traffic = HttpTraffic(exempt=("10.0.0.0/8", "fd00::1"))

        assert traffic.key_of(("10.1.2.3", 1)) == ""
        assert traffic.key_of(("fd00::1", 1, 0, 0)) == ""
        assert traffic.key_of(("11.1.2.3", 1)) == "11.1.2.3"
        assert traffic.key_of(("2001:db8::1", 1, 0, 0)) == traffic.key_of(("2001:db8::ffff", 1, 0, 0))
        assert traffic.key_of("/tmp/socket") == ""


class TestReaders:
    async def test_one_that_never_reads_has_one_piece_made_beyond_the_kernels_buffer_and_is_cut(self) -> None:
        """Row 10: 60 readers that never read were 1.6 GB."""
        async with serving(reader_stall_s=30.0) as server, server.client() as (_, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
            made = -1
            while made != server.pieces:
                made = server.pieces
                await asyncio.sleep(0.02)
            (connection,) = server.traffic._watched
            unread = connection.transport.get_write_buffer_size()  # type: ignore[attr-defined]
            assert 0 < unread <= 2 * PIECE_BYTES
            server.later(29.0)
            assert server.traffic.connections == 1

            server.later(30.5)

            await server.until(lambda: server.traffic.connections == 0)
            assert server.traffic.refused == {"reader_stall_s": 1}


class TestTurns:
    async def test_large_answers_and_streams_share_the_turns(self) -> None:
        """Each within its own bound, 5,000 of them held the loop for 8 s."""
        async with serving() as server, contextlib.AsyncExitStack() as stack:
            for number in range(40):
                reader, writer = await stack.enter_async_context(server.client(f"127.0.0.{1 + number % 4}"))
                writer.write(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
                stack.enter_context(_reading(reader))
            most, before = 0, 0
            while server.pieces < 2_000:
                await asyncio.sleep(0)
                most, before = max(most, server.pieces - before), server.pieces

        assert most <= 2 * 40 + TURN_BYTES // (4 * KIB)  # Each makes one more, and waits with it.

    async def test_of_connections_that_come_at_once_a_few_begin_in_each(self) -> None:
        async with serving() as server, contextlib.AsyncExitStack() as stack:
            for _ in range(100):
                # The loop stands while they are made, so that all are there when it looks.
                one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                one.sendall(POST % 3 + b"abc")
            most, before = 0, 0
            while len(server.got) < 100:
                await asyncio.sleep(0)
                most, before = max(most, len(server.got) - before), len(server.got)

        assert most <= TURN_BYTES // NEW_CONNECTION_BYTES

    async def test_large_bodies_have_a_turn_each(self) -> None:
        size = 300 * KIB
        async with serving(body_bytes_max=size) as server:
            sent = b"POST /take HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            sent += b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (size, bytes(size))
            asked = [asyncio.ensure_future(server.ask(sent)) for _ in range(10)]
            most, before = 0, 0
            while not all(one.done() for one in asked):
                await asyncio.sleep(0)
                most, before = max(most, len(server.got) - before), len(server.got)

        assert (most, server.got) == (1, [size] * 10)

    async def test_what_nobody_takes_is_read_in_turns_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """300 bodies of 15 MB that were refused held each turn for 15 ms: all that had come was read in it."""
        read = 0
        taken = BoundedHttpProtocol._take

        def take(self: BoundedHttpProtocol, data: bytes) -> None:
            nonlocal read
            read += len(data)
            taken(self, data)

        monkeypatch.setattr(BoundedHttpProtocol, "_take", take)
        size, many = 1 << 20, 20
        async with serving(bodies_bytes_max=KIB) as server, contextlib.AsyncExitStack() as stack:
            left = {}
            for _ in range(many):
                one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                one.sendall(POST % size + bytes(KIB))
                one.setblocking(False)
                left[one] = size - KIB
            await server.until(lambda: read >= many * KIB)
            large, before = 0, read
            while read < many * size:
                for one, rest in left.items():
                    with contextlib.suppress(BlockingIOError):
                        left[one] -= one.send(bytes(rest)) if rest else 0
                await asyncio.sleep(0)
                large, before = large + (read - before > 2 * TURN_BYTES), read

        assert large <= 1  # One piece of each, after which the next ones wait.


@contextlib.contextmanager
def _reading(reader: asyncio.StreamReader) -> Iterator[None]:
    async def read() -> None:
        while await reader.read(64 * KIB):
            pass

    task = asyncio.ensure_future(read())
    try:
        yield
    finally:
        task.cancel()


class TestByteBudget:
    async def test_who_waits_is_let_in_in_order_when_there_is_room(self) -> None:
        budget = ByteBudget(100, 60)
        assert await budget.reserve("a", 60, timeout_s=1) == 60
        assert await budget.reserve("b", 40, timeout_s=1) == 40
        third = asyncio.ensure_future(budget.reserve("c", 50, timeout_s=10))
        fourth = asyncio.ensure_future(budget.reserve("c", 10, timeout_s=10))
        await asyncio.sleep(0)

        budget.give("a", 60)
        assert await third == 50
        assert await fourth == 10

        budget.give("b", 40)
        budget.give("c", 50)
        budget.give("c", 10)
        assert budget.held == 0

    async def test_who_waits_too_long_is_refused_and_holds_nothing(self) -> None:
        budget = ByteBudget(100)
        await budget.reserve("a", 100, timeout_s=1)

        with pytest.raises(Unavailable):
            await budget.reserve("b", 1, timeout_s=0.001)

        budget.give("a", 100)
        assert budget.take("b", 100)

    async def test_more_than_there_ever_is_counts_as_all(self) -> None:
        budget = ByteBudget(100, 60)

        assert await budget.reserve("a", 1_000, timeout_s=1) == 60


class TestBounds:
    def test_the_defaults_of_a_server_are_those_of_the_settings(self) -> None:
        from_settings = Bounds()

        assert from_settings.head_bytes_max == 64 * KIB
