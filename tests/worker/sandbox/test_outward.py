"""The only way out: to public addresses, by CONNECT, within a number of bytes; from inside there is nothing else."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from comptoir.kit.urlguard import UrlGuard
from comptoir.worker.sandbox.outward import HEAD_BYTES_MAX, Outward
from comptoir.worker.sandbox.types import SandboxLimits
from tests.worker.sandbox.conftest import Driver


@pytest.fixture
async def far() -> AsyncIterator[int]:
    """Give the port of a server that says everything back in capitals."""

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece.upper())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def ask(outward: Outward, head: bytes, sent: bytes = b"") -> bytes:
    """Ask at a door of *outward*; return all that comes back."""
    door = socket.create_server(("127.0.0.1", 0))
    await outward.serve(door)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.getsockname()[1])
    writer.write(head)
    if sent:
        # The proxy answers before it carries anything.
        said = await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        writer.write_eof()
        try:
            said += await reader.read()
        except ConnectionResetError:
            said += b"(reset)"
    else:
        said = await reader.read()
    writer.close()
    await outward.close()
    return said


class TestOutward:
    @pytest.mark.parametrize(
        "target",
        [
            "127.0.0.1:80",
            "localhost:80",
            "169.254.169.254:80",
            "10.0.0.1:443",
            "192.168.1.1:443",
            "[::1]:443",
            "[::ffff:127.0.0.1]:443",
            "2130706433:80",
            "0x7f.1:80",
            "metadata.google.internal:80",
            "example.com:22",
            "example.com",
            "user@example.com:443",
            ":443",
        ],
    )
    async def test_what_is_inside_or_no_web_port_is_refused(self, target: str) -> None:
        said = await ask(Outward(UrlGuard(), bytes_max=1000), f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())

        assert said.startswith(b"HTTP/1.1 403 ")

    async def test_a_name_that_leads_inside_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The address is judged that will be connected to, not the name."""
        loop = asyncio.get_running_loop()

        async def resolve(*_: object, **__: object) -> list[object]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))]

        monkeypatch.setattr(loop, "getaddrinfo", resolve)
        said = await ask(Outward(UrlGuard(), bytes_max=1000), b"CONNECT example.com:443 HTTP/1.1\r\n\r\n")

        assert said.startswith(b"HTTP/1.1 403 ")

    async def test_it_carries_both_ways(self, far: int) -> None:
        outward = Outward(UrlGuard(allow_private=True), bytes_max=1_000_000)
        said = await ask(outward, f"CONNECT 127.0.0.1:{far} HTTP/1.1\r\n\r\n".encode(), b"hello")

        assert said == b"HTTP/1.1 200 Connected\r\n\r\nHELLO"

    async def test_the_bytes_of_a_run_are_bounded(self, far: int) -> None:
        outward = Outward(UrlGuard(allow_private=True), bytes_max=100_000)
        said = await ask(outward, f"CONNECT 127.0.0.1:{far} HTTP/1.1\r\n\r\n".encode(), b"x" * 400_000)

        assert len(said) < 100_200

    @pytest.mark.parametrize(
        ("head", "status"),
        [
            (b"GET http://example.com/ HTTP/1.1\r\n\r\n", b"405"),
            (b"CONNECT\r\n\r\n", b"405"),
            (b"x" * (2 * HEAD_BYTES_MAX), b"400"),
        ],
    )
    async def test_nothing_else_is_spoken(self, head: bytes, status: bytes) -> None:
        said = await ask(Outward(UrlGuard(), bytes_max=1000), head)

        assert said.startswith(b"HTTP/1.1 " + status)


THROUGH = """
import socket, sys
made = socket.create_connection(("127.0.0.1", 3128), timeout=5)
made.sendall(f"CONNECT {sys.argv[1]} HTTP/1.1\\r\\n\\r\\n".encode())
print(made.recv(100).split(b"\\r\\n")[0].decode())
try:
    socket.create_connection(("1.1.1.1", 443), timeout=2)
except OSError as error:
    print(error.errno)
"""


class TestFromInside:
    def test_the_proxy_answers_inside_and_guards(self, driver: Driver) -> None:
        """And beside it there is no way: the network has no other interface than loopback."""
        limits = SandboxLimits(wall_s=30)
        outcome = driver.python(THROUGH, "169.254.169.254:80", network=True, limits=limits)

        assert outcome.out == b"HTTP/1.1 403 Not A Public Address\n101\n", (outcome.err, outcome.failed)

    def test_without_the_owners_word_nothing_answers(self, driver: Driver) -> None:
        outcome = driver.python(THROUGH, "169.254.169.254:80")

        assert b"ConnectionRefusedError" in outcome.err
