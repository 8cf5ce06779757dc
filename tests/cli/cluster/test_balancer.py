"""The balancer over real sockets, on both event loops it may run on: what goes in comes out, and who is dead is passed
by."""

import asyncio
import contextlib
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from comptoir.cli.cluster.balancer import HIGH_WATER_BYTES, Balancer
from comptoir.kit.http import ACCEPT_TURNS
from tests.post import free_port

Run = Callable[[Coroutine[Any, Any, None]], None]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

MIB = 1 << 20


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a scenario on an event loop of each kind, within a minute."""

    def play(scenario: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await scenario

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded())

    return play


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say everything back as it comes, then end."""
    while piece := await reader.read(65_536):
        writer.write(piece)
        await writer.drain()
    writer.close()


class Backend:
    """A server on a port of its own that can be told to be gone."""

    def __init__(self, handler: Handler = echo) -> None:
        self.port = free_port()
        self.address = ("127.0.0.1", self.port)
        self.writers: list[asyncio.StreamWriter] = []
        self.ended = asyncio.Event()
        """A connection was closed or cut by the other side."""
        self._handler = handler
        self._dead = False
        self._server: asyncio.Server | None = None

    async def start(self) -> "Backend":
        self._dead = False
        self._server = await asyncio.start_server(self._met, "127.0.0.1", self.port, backlog=4096)
        return self

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        if self._dead:
            writer.transport.abort()
            return
        try:
            await self._handler(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        self.ended.set()

    async def die(self) -> None:
        """Be gone as a killed process is: nobody listens, every connection is reset."""
        if self._server is not None:
            self._server.close()
        self._dead = True
        for writer in self.writers:
            writer.transport.abort()
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def balanced(*backends: Backend) -> AsyncIterator[Balancer]:
    balancer = Balancer(
        socket.create_server(("127.0.0.1", 0), backlog=4096), [(await one.start()).address for one in backends]
    )
    await balancer.start()
    try:
        yield balancer
    finally:
        await balancer.stop()
        for one in backends:
            await one.die()


async def ask(balancer: Balancer, text: bytes = b"hello") -> bytes:
    """Say *text*, end, and return all that comes back."""
    reader, writer = await asyncio.open_connection(*balancer.address)
    try:
        writer.write(text)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


class TestBytes:
    def test_a_half_closed_connection_stays_open_the_other_way(self, run: Run) -> None:
        """The client has said all; only then the answer begins, and it arrives whole."""

        async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked = await reader.read()
            writer.write(hashlib.sha256(asked).digest())
            await writer.drain()
            writer.close()

        async def scenario() -> None:
            text = os.urandom(3 * MIB)
            async with balanced(Backend(answer_at_the_end)) as balancer:
                assert await ask(balancer, text) == hashlib.sha256(text).digest()

        run(scenario())

    def test_what_is_sent_before_a_backend_was_found_arrives(self, run: Run) -> None:
        """The first connection is refused, so the bytes have to wait somewhere."""

        async def scenario() -> None:
            dead, alive = Backend(), Backend()
            async with balanced(alive) as balancer:
                balancer.backends = [type(balancer.backends[0])(dead.address), *balancer.backends]
                for _ in range(4):
                    assert await ask(balancer, b"x" * 200_000) == b"x" * 200_000

        run(scenario())

    def test_a_slow_reader_stops_the_sender_and_not_the_memory(self, run: Run) -> None:
        """A gigabyte would not come to rest here: the backend is made to wait in its own socket."""

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.set_write_buffer_limits(high=0)
            flooded.append(0)
            for _ in range(4096):
                writer.write(bytes(MIB // 4))
                flooded[0] += MIB // 4
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await writer.drain()
                        continue
                stuck.set()
                await writer.drain()

        flooded: list[int] = []
        stuck = asyncio.Event()

        async def scenario() -> None:
            async with balanced(Backend(flood)) as balancer:
                client = socket.create_connection(balancer.address)
                try:
                    await stuck.wait()
                    held = sum(
                        side.transport.get_write_buffer_size() for side in balancer._sides if side.transport is not None
                    )

                    assert flooded[0] < 64 * MIB, "the sockets' own buffers, and no more"
                    assert held < HIGH_WATER_BYTES + MIB
                finally:
                    client.close()

        run(scenario())


class TestChoice:
    def test_connections_go_to_the_backend_with_the_fewest(self, run: Run) -> None:
        async def scenario() -> None:
            backends = [Backend() for _ in range(3)]
            async with balanced(*backends) as balancer:
                held = [await asyncio.open_connection(*balancer.address) for _ in range(30)]
                for reader, writer in held:
                    writer.write(b"x")
                    assert await reader.readexactly(1) == b"x"

                assert [one.connections for one in balancer.backends] == [10, 10, 10]
                for _, writer in held:
                    writer.close()

        run(scenario())

    def test_short_connections_go_in_turn(self, run: Run) -> None:
        async def scenario() -> None:
            async with balanced(Backend(), Backend(), Backend()) as balancer:
                for _ in range(9):
                    assert await ask(balancer) == b"hello"

                assert [one.served for one in balancer.backends] == [3, 3, 3]

        run(scenario())

    def test_a_closed_backend_keeps_what_it_has_and_gets_no_more(self, run: Run) -> None:
        """That is how a coordinator drains."""

        async def scenario() -> None:
            async with balanced(Backend()) as balancer:
                reader, writer = await asyncio.open_connection(*balancer.address)
                writer.write(b"a")
                assert await reader.readexactly(1) == b"a"
                other = await Backend().start()
                balancer.offer(other.address)
                balancer.offer(balancer.backends[0].address, open=False)

                for _ in range(5):
                    assert await ask(balancer) == b"hello"
                writer.write(b"b")
                assert await reader.readexactly(1) == b"b"

                assert [one.served for one in balancer.backends] == [1, 5]
                writer.close()
                await other.die()

        run(scenario())


class TestDeath:
    def test_a_killed_backend_is_passed_by_and_no_client_notices(self, run: Run) -> None:
        async def scenario() -> None:
            dead, alive = Backend(), Backend()
            async with balanced(dead, alive) as balancer:
                await dead.die()
                for _ in range(10):
                    assert await ask(balancer) == b"hello"

                loop = asyncio.get_running_loop()
                assert balancer.backends[0].skipped_until_s > loop.time() - 60
                assert [one.served for one in balancer.backends] == [0, 10]
                assert balancer.backends[0].connections == 0

        run(scenario())

    def test_one_that_came_back_is_used_again_when_its_second_is_over(self, run: Run) -> None:
        async def scenario() -> None:
            first, second = Backend(), Backend()
            async with balanced(first, second) as balancer:
                await first.die()
                await ask(balancer)
                await ask(balancer)
                await first.start()

                # A second passes, without waiting for it.
                balancer.backends[0].skipped_until_s = 0.0
                for _ in range(4):
                    assert await ask(balancer) == b"hello"

                assert balancer.backends[0].served == 2

        run(scenario())

    def test_connections_of_a_killed_backend_end(self, run: Run) -> None:
        async def scenario() -> None:
            backend = Backend()
            async with balanced(backend) as balancer:
                reader, writer = await asyncio.open_connection(*balancer.address)
                writer.write(b"x")
                await reader.readexactly(1)
                await backend.die()

                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await reader.readexactly(1)
                writer.close()

        run(scenario())

    def test_a_client_that_hangs_up_is_known_to_the_backend(self, run: Run) -> None:
        """Whoever computes an answer for it has to stop, and what arrived is paid."""

        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(b"token ")
                await writer.drain()
                await asyncio.sleep(0.001)

        async def scenario() -> None:
            backend = Backend(stream)
            async with balanced(backend) as balancer:
                reader, writer = await asyncio.open_connection(*balancer.address)
                await reader.readexactly(6)
                writer.close()

                await backend.ended.wait()
                assert balancer.connections == 0

        run(scenario())

    def test_without_any_backend_the_client_hears_so_at_once(self, run: Run) -> None:
        async def scenario() -> None:
            async with balanced() as balancer:
                reader, writer = await asyncio.open_connection(*balancer.address)
                with pytest.raises(ConnectionResetError):
                    await reader.readexactly(1)

                assert balancer.refused == 1
                writer.close()

        run(scenario())


class TestMany:
    def test_a_thousand_connections_at_once(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        # A busy machine may take longer than a second for all of them, and nobody is to be passed by here.
        monkeypatch.setattr("comptoir.cli.cluster.balancer.CONNECT_WITHIN_S", 60.0)

        async def one(balancer: Balancer, number: int, all_here: asyncio.Barrier) -> None:
            reader, writer = await asyncio.open_connection(*balancer.address)
            await all_here.wait()
            text = f"connection {number}\n".encode()
            writer.write(text)
            assert await reader.readline() == text
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()

        async def scenario() -> None:
            backends = [Backend() for _ in range(3)]
            async with balanced(*backends) as balancer:
                all_here = asyncio.Barrier(1000)
                await asyncio.gather(*(one(balancer, number, all_here) for number in range(1000)))

                assert sum(one.served for one in balancer.backends) == 1000
                assert max(one.served for one in balancer.backends) <= 340
                assert balancer.refused == 0
                await asyncio.sleep(0)

        run(scenario())
