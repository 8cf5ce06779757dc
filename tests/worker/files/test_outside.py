"""What a buyer's address gives is fetched once, bounded, and never from inside a network; else the buyer reads why."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from comptoir.kinds.files import Fetched, InputFile
from comptoir.kit.urlguard import UrlGuard
from comptoir.worker.engines.base import EngineError
from comptoir.worker.files import InputRules, outside
from tests.worker.files.conftest import Host, host_of
from tests.worker.files.stores import FileStore, send, serving, sha256

CONTENT = os.urandom(1024 * 1024 + 7)


class Misled(UrlGuard):
    """Believes a name server that says of every name that it is this machine."""

    def connector(self, *, resolver: AbstractResolver | None = None, limit: int = 100) -> aiohttp.TCPConnector:
        return super().connector(resolver=Loopback(), limit=limit)


class Loopback(AbstractResolver):
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


class Address:
    """Whatever a buyer's address answers: *steps* first, then the content."""

    def __init__(self) -> None:
        self.url = ""
        self.steps: list[int | str | web.Response] = []
        self.cuts: list[int] = []
        self.ranges: list[str] = []
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.seen: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.seen.append(dict(request.headers))
        step = self.steps.pop(0) if self.steps else None
        if isinstance(step, int):
            return web.Response(status=step)
        if isinstance(step, str):
            return web.Response(status=302, headers={"Location": step})
        if step is not None:
            return step
        return await send(request, CONTENT, cuts=self.cuts, ranges=self.ranges, headers=self.headers)


@asynccontextmanager
async def address() -> AsyncIterator[Address]:
    far = Address()
    async with serving(far.handle, "/{rest:.*}") as far.url:
        yield far


async def fetch(host: Host, url: str, **said: Any) -> tuple[bytes, Fetched | None]:
    path, fetched = await host.lease(InputFile("in", url=url, **said)).fetch(0)
    return path.read_bytes(), fetched


async def refused(host: Host, url: str, **said: Any) -> tuple[str, str, str]:
    with pytest.raises(EngineError) as raised:
        await fetch(host, url, **said)
    return raised.value.code, raised.value.fault, raised.value.message


class TestFetch:
    async def test_its_hash_is_told(self, host: Host) -> None:
        async with address() as far:
            content, fetched = await fetch(host, far.url + "/a", sha256=sha256(CONTENT), size=len(CONTENT))

            assert content == CONTENT and fetched == Fetched(0, len(CONTENT), sha256(CONTENT))
            assert "Authorization" not in far.seen[0] and "X-Comptoir-Lease" not in far.seen[0]

    async def test_it_goes_on_after_a_cut_if_the_content_has_a_name(self, host: Host) -> None:
        async with address() as far:
            far.headers, far.cuts = {"ETag": '"v1"'}, [100_000]
            content, _ = await fetch(host, far.url)

            assert content == CONTENT and len(far.ranges) == 1

    @pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"v1"'}])
    async def test_without_a_name_it_begins_again(self, host: Host, headers: dict[str, str]) -> None:
        """Half of one version and half of the next would be nobody's file."""
        async with address() as far:
            far.headers, far.cuts = headers, [100_000]
            content, _ = await fetch(host, far.url)

            assert content == CONTENT and far.ranges == []

    async def test_redirects_are_followed_and_counted(self, host: Host) -> None:
        async with address() as far:
            far.steps = ["/b", far.url + "/c#part"]
            content, _ = await fetch(host, far.url + "/a")
            assert content == CONTENT

            far.steps = ["/again"] * (outside.REDIRECTS_MAX + 1)
            code, fault, message = await refused(host, far.url + "/a")
            assert (code, fault) == ("input_not_had", "buyer") and "leads on" in message

    @pytest.mark.parametrize("busy", [500, 503, 429])
    async def test_a_busy_one_is_asked_again_and_not_for_ever(self, host: Host, busy: int) -> None:
        async with address() as far:
            far.steps = [busy] * (outside.ADDRESS_TRIES - 1)
            assert (await fetch(host, far.url))[0] == CONTENT

            far.steps, far.asked = [busy] * 100, 0
            assert (await refused(host, far.url))[:2] == ("input_not_had", "buyer")
            assert far.asked == outside.ADDRESS_TRIES

    @pytest.mark.parametrize(
        ("step", "said", "why"),
        [
            (404, {}, "HTTP 404"),
            (403, {}, "HTTP 403"),
            (204, {}, "HTTP 204"),
            (None, {"sha256": "0" * 64}, "the order says"),
            (None, {"size": len(CONTENT) - 1}, "the order says"),
            (None, {"size": len(CONTENT) + 1}, "the order says"),
            (web.Response(body=b"x", headers={"Content-Encoding": "br"}), {}, "encoding"),
            ("file:///etc/passwd", {}, "must not be fetched"),
            ("http://u:p@127.0.0.1/", {}, "must not be fetched"),
            ("ftp://example.com/x", {}, "must not be fetched"),
        ],
    )
    async def test_what_is_not_there_is_the_buyers_fault(
        self, host: Host, step: int | str | web.Response | None, said: dict[str, Any], why: str
    ) -> None:
        async with address() as far:
            far.steps = [] if step is None else [step]
            code, fault, message = await refused(host, far.url, **said)

            assert (code, fault) == ("input_not_had", "buyer") and why in message and far.asked == 1

    async def test_a_dead_address_is_the_buyers_fault(self, host: Host) -> None:
        async with address() as far:
            dead = far.url

        assert (await refused(host, dead))[:2] == ("input_not_had", "buyer")

    @pytest.mark.parametrize(
        "where", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::ffff:127.0.0.1]:{port}/"]
    )
    async def test_nothing_inside_a_network_is_fetched(self, store: FileStore, folder: Path, where: str) -> None:
        async with address() as far, host_of(store, folder) as host:
            port = far.url.rpartition(":")[2]
            code, fault, message = await refused(host, where.format(port=port))

            assert (code, fault) == ("input_not_had", "buyer") and "private network" in message
            assert far.asked == 0

    async def test_a_name_that_leads_inside_is_found_out_at_the_connection(
        self, store: FileStore, folder: Path
    ) -> None:
        async with address() as far, host_of(store, folder, guard=Misled()) as host:
            port = far.url.rpartition(":")[2]
            code, fault, message = await refused(host, f"http://files.example.com:{port}/")

            assert (code, fault) == ("input_not_had", "buyer") and "private network" in message
            assert far.asked == 0

    async def test_an_owner_bounds_addresses_too(self, store: FileStore, folder: Path) -> None:
        """And together with the files: what is said of an address need not be true."""
        rules = InputRules(bytes_max=len(CONTENT) + 10, private_addresses=True)
        async with address() as far, host_of(store, folder, rules) as host:
            asked = InputFile("in", url=far.url)
            files = host.lease(asked, asked)
            await files.fetch(0)
            with pytest.raises(EngineError) as raised:
                await files.fetch(1)

        assert (raised.value.code, raised.value.fault) == ("inputs_too_large", "capacity")
