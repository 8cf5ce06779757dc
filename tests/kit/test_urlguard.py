"""The guard for foreign URLs: the classic ways in, each of them shut, at all three walls."""

import ipaddress
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from comptoir.kit.errors import InvalidField
from comptoir.kit.urlguard import AddressRefused, AnswerTooLong, GuardedResolver, UrlGuard, is_outside, read_bounded
from tests.tcp import stop

INSIDE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.170",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "2002:7f00:1::",
    "2001:0:1:2:3:4:5:6",
    "fe80::1",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "100::1",
    "2001:db8::1",
    "fe80::1%eth0",
]
OUTSIDE = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]

REFUSED = [
    ("", "1 to 2048"),
    ("https://a.example/" + "x" * 2048, "1 to 2048"),
    ("ftp://a.example/", "http"),
    ("file:///etc/passwd", "http"),
    ("gopher://a.example/", "http"),
    ("//a.example/", "http"),
    ("a.example", "http"),
    ("http:///path", "host name"),
    ("http://user@a.example/", "user name"),
    ("http://user:secret@a.example/", "user name"),
    ("http://a.example@127.0.0.1/", "user name"),
    ("http://@127.0.0.1/", "user name"),
    ("http://a.example\\@127.0.0.1/", "backslashes"),
    ("http://a.example /", "spaces"),
    ("http://a.example/\r\nX: y", "spaces"),
    ("http://\uff11\uff12\uff17.0.0.1/", "ASCII"),
    ("http://127。0。0。1/", "ASCII"),
    ("http://%31%32%37.0.0.1/", "host name"),
    ("http://a..example/", "host name"),
    ("http://-a.example/", "host name"),
    ("http://a.example:22/", "port"),
    ("http://a.example:25/", "port"),
    ("http://a.example:0/", "port"),
    ("http://a.example:99999/", "not a URL"),
    ("http://a.example:x/", "not a URL"),
    ("http://2130706433/", "four decimal"),
    ("http://0x7f000001/", "four decimal"),
    ("http://0x7f.0.0.1/", "four decimal"),
    ("http://017700000001/", "four decimal"),
    ("http://0177.0.0.1/", "four decimal"),
    ("http://127.1/", "four decimal"),
    ("http://127.0.0.1.1/", "four decimal"),
    ("http://256.1.1.1/", "four decimal"),
    ("http://1.2.3.0x4/", "four decimal"),
    ("http://localhost/", "private"),
    ("http://LOCALHOST./", "private"),
    ("http://a.localhost/", "private"),
    ("http://metadata.google.internal/", "private"),
    ("http://printer.local/", "private"),
    ("http://[::1/", "not a URL"),
    ("http://[1::2::3]/", "URL|IPv6"),
    ("http://[v1.fe80::a]/", "URL|IPv6"),
    *[(f"http://{'[' + a + ']' if ':' in a else a}:8080/v1", "private|URL|IPv6") for a in INSIDE],
    ("http://127.0.0.1./", "private"),
]


class TestIsOutside:
    @pytest.mark.parametrize("address", INSIDE)
    def test_inner_addresses_are_not(self, address: str) -> None:
        assert not is_outside(ipaddress.ip_address(address))

    @pytest.mark.parametrize("address", OUTSIDE)
    def test_public_addresses_are(self, address: str) -> None:
        assert is_outside(ipaddress.ip_address(address))


class TestCheck:
    @pytest.mark.parametrize(("url", "why"), REFUSED)
    def test_refuses_and_names_the_field(self, url: str, why: str) -> None:
        with pytest.raises(InvalidField, match=why) as caught:
            UrlGuard().check("endpoint_url", url)

        assert caught.value.field == "endpoint_url"

    @pytest.mark.parametrize(
        "url",
        [
            "https://my-gpu-host.example.com/infer",
            "http://a.example:8080",
            "https://a.example:443/x?y=z#q",
            "http://8.8.8.8/",
            "http://[2606:4700::1111]:8000/v1",
            "HTTPS://XN--BCHER-KVA.example/",
            "http://a_b.example/@x",
        ],
    )
    def test_lets_ordinary_ones_pass(self, url: str) -> None:
        UrlGuard().check("endpoint_url", url)

    def test_a_closed_installation_may_open_its_own_network(self) -> None:
        for url in ("http://127.0.0.1:9/", "http://localhost:8000/", "http://10.0.0.1/", "http://[::1]:8000/"):
            UrlGuard(allow_private=True).check("endpoint_url", url)


class Answers(AbstractResolver):
    """A resolver that gives the next of its answers each time it is asked."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=a,
                port=port,
                family=socket.AF_INET6 if ":" in a else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for a in addresses
        ]

    async def close(self) -> None:
        self.answers = []


class TestGuardedResolver:
    async def test_keeps_only_outer_addresses(self) -> None:
        resolver = GuardedResolver(UrlGuard(), Answers(["127.0.0.1", "8.8.8.8", "::ffff:10.0.0.1", "fe80::1"]))

        assert [each["host"] for each in await resolver.resolve("a.example", 80)] == ["8.8.8.8"]

    async def test_refuses_a_name_that_only_resolves_inside(self) -> None:
        with pytest.raises(AddressRefused):
            await GuardedResolver(UrlGuard(), Answers(["10.0.0.1"])).resolve("a.example", 80)


class TestSocket:
    @pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254"])
    def test_is_never_made_for_an_inner_address(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with pytest.raises(AddressRefused):
            UrlGuard().socket((family, socket.SOCK_STREAM, 0, "", (address, 80)))


@pytest.fixture
async def inner_port() -> AsyncIterator[int]:
    """A server on the loopback: a secret, a redirect to it, and a long answer."""

    async def secret(request: web.Request) -> web.Response:
        return web.Response(text="secret")

    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound("/secret")

    async def long(request: web.Request) -> web.Response:
        answer = web.Response(body=b"x" * 1_000_000)
        answer.enable_compression(web.ContentCoding.gzip)
        return answer

    app = web.Application()
    app.add_routes([web.get("/secret", secret), web.get("/away", away), web.get("/long", long)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await stop(runner)


class TestRequest:
    async def test_a_name_that_resolves_inside_is_not_called(self, inner_port: int) -> None:
        guard = UrlGuard()
        async with aiohttp.ClientSession(connector=guard.connector(resolver=Answers(["127.0.0.1"]))) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                async with guard.request(session, "GET", f"http://a.example:{inner_port}/secret", timeout_s=5):
                    pytest.fail("it was called")

    async def test_a_resolver_that_lies_does_not_get_past_the_connection(self, inner_port: int) -> None:
        """As when a name is rebound between look and call: here the resolver's wall is left out altogether."""
        guard = UrlGuard()
        connector = aiohttp.TCPConnector(resolver=Answers(["127.0.0.1"]), socket_factory=guard.socket)
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                async with guard.request(session, "GET", f"http://a.example:{inner_port}/secret", timeout_s=5):
                    pytest.fail("it was called")

    async def test_an_address_in_the_url_does_not_get_past_the_connection(self, inner_port: int) -> None:
        """aiohttp asks no resolver for an address, so only the socket's wall stands there."""
        async with aiohttp.ClientSession(connector=UrlGuard().connector()) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"http://127.0.0.1:{inner_port}/secret")

    async def test_a_spelling_that_is_refused_is_not_called(self) -> None:
        guard = UrlGuard()
        async with aiohttp.ClientSession(connector=guard.connector()) as session:
            with pytest.raises(InvalidField):
                async with guard.request(session, "GET", "http://0x7f.1/", timeout_s=5):
                    pytest.fail("it was called")

    async def test_a_redirect_is_the_answer_and_not_followed(self, inner_port: int) -> None:
        guard = UrlGuard(allow_private=True)
        url = f"http://127.0.0.1:{inner_port}/away"
        async with (
            aiohttp.ClientSession(connector=guard.connector()) as session,
            guard.request(session, "GET", url, timeout_s=5) as response,
        ):
            assert response.status == 302

    async def test_reading_is_bounded_after_decompression(self, inner_port: int) -> None:
        guard = UrlGuard(allow_private=True)
        async with aiohttp.ClientSession(connector=guard.connector()) as session:
            url = f"http://127.0.0.1:{inner_port}"
            async with guard.request(session, "GET", url + "/long", timeout_s=5) as response:
                assert int(response.headers["Content-Length"]) < 10_000
                with pytest.raises(AnswerTooLong):
                    await read_bounded(response, bytes_max=999_999)
            async with guard.request(session, "GET", url + "/secret", timeout_s=5) as response:
                assert await read_bounded(response, bytes_max=6) == b"secret"
