"""What a browser asks for a foreign page: refused everywhere, for every method, before anything is read or done."""

import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from comptoir.dialects import DIALECTS
from comptoir.gateway import browser_policy
from comptoir.kit.http import Access, Dialect, Endpoint, HttpServer, WrongName, host_name, is_loopback_name
from comptoir.settings import Settings
from tests.dialects.asgi import JSON, LET_IN, Header, ask, sample, standing_in
from tests.post import Post, open_post

HERE = b"127.0.0.1:8080"
APP = b"https://app.example"
PLENTY = {"requests_per_minute_per_ip": 1_000_000, "requests_per_minute_per_key": 1_000_000, "argon2_memory_kib": 8}


def by_page(
    site: bytes = b"", mode: bytes = b"", dest: bytes = b"", *, origin: bytes = b"", host: bytes = HERE
) -> list[Header]:
    """Return the headers of a browser's request, a JSON body declared."""
    fetch = ((b"sec-fetch-site", site), (b"sec-fetch-mode", mode), (b"sec-fetch-dest", dest), (b"origin", origin))
    return [*JSON, (b"host", host), *((name, value) for name, value in fetch if value)]


FOREIGN: dict[str, tuple[int, list[Header]]] = {
    "fetch of another site": (403, by_page(b"cross-site", b"cors", b"empty", origin=b"https://evil.example")),
    "fetch of another port": (403, by_page(b"same-site", b"cors", b"empty", origin=b"http://127.0.0.1:9999")),
    "fetch of an older browser": (403, by_page(origin=b"https://evil.example")),
    "sandboxed frame": (403, by_page(b"cross-site", b"cors", b"empty", origin=b"null")),
    "null, of an older browser": (403, by_page(origin=b"null")),
    "empty origin": (403, by_page(b"cross-site", b"cors", b"empty")),
    "picture or script": (403, by_page(b"cross-site", b"no-cors", b"image")),
    "picture of another port": (403, by_page(b"same-site", b"no-cors", b"script")),
    "form": (403, by_page(b"cross-site", b"navigate", b"document", origin=b"https://evil.example")),
    "frame": (403, by_page(b"cross-site", b"navigate", b"iframe")),
    "its own word for it": (403, by_page(b"none", origin=b"https://evil.example")),
    "https where http is spoken": (403, by_page(origin=b"https://127.0.0.1")),
    "rebound name": (421, by_page(host=b"evil.example:8080")),
    "rebound name, fetched": (421, by_page(origin=b"http://evil.example:8080", host=b"evil.example:8080")),
    "rebound name, as its own": (421, by_page(b"same-origin", b"cors", b"empty", host=b"evil.example")),
    "name that looks like ours": (421, by_page(host=b"127.0.0.1.evil.example")),
    "name behind ours": (421, by_page(host=b"localhost@evil.example")),
    "no name": (421, by_page(host=b"")),
}
"""How foreign pages ask a post that listens on loopback, and what they get, whatever they ask for."""

UNDECLARED = {
    "text": b"text/plain;charset=UTF-8",
    "form": b"application/x-www-form-urlencoded",
    "files": b"multipart/form-data; boundary=x",
    "nothing": b"",
    "text that names JSON": b"text/plain; application/json",
    "nearly JSON": b"application/jsonx",
}
"""What a foreign page can declare a body as without the browser asking here first."""


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    """Give a post on loopback that pages of one foreign origin may use."""
    async with open_post(tmp_path, cors_origins=(APP.decode(),), **PLENTY) as one:
        yield one


def everything() -> Iterator[tuple[Dialect, Endpoint, str]]:
    """Yield every endpoint that is served, with its path, at the root and below its prefix."""
    for dialect in DIALECTS:
        for endpoint in dialect.endpoints:
            for prefix in {"", dialect.prefix} if dialect.at_root else {dialect.prefix}:
                yield dialect, endpoint, prefix + sample(endpoint.path)


def shaped(dialect: Dialect, body: bytes) -> bool:
    """Tell whether *body* is a refusal as this dialect says them; at the root a shared path is the root dialect's."""
    for shape in (dialect.error_body, DIALECTS[0].error_body):
        try:
            msgspec.json.decode(body, type=shape)
        except msgspec.DecodeError:
            continue
        return True
    return False


async def wrong_answers(app: HttpServer, headers: list[Header], expected: int, key: str = "") -> list[str]:
    """Ask *app* for everything; return what was answered otherwise than with a refusal of *expected* in the dialect's
    shape."""
    found = []
    for dialect, endpoint, path in everything():
        got = await ask(app, endpoint.method, path, key=key, headers=headers)
        if got.status != expected or not shaped(dialect, got.body) or "access-control-allow-origin" in got.headers:
            found.append(f"{endpoint.method} {path}: {got.status} {got.body[:80]!r}")
    return found


class TestForeignPages:
    def test_there_is_much_to_ask_for(self) -> None:
        assert len(list(everything())) > 100

    @pytest.mark.parametrize("way", FOREIGN)
    async def test_nothing_answers_them_with_or_without_a_key(self, post: Post, way: str) -> None:
        """A key that a page knows changes nothing: only origins that the operator named may use one."""
        app, (status, headers) = standing_in(post.core), FOREIGN[way]
        assert await wrong_answers(app, headers, status) == []
        assert await wrong_answers(app, headers, status, key=post.admin_key) == []

    @pytest.mark.parametrize("way", FOREIGN)
    async def test_no_method_and_no_path_does(self, post: Post, way: str) -> None:
        app, (status, headers) = standing_in(post.core), FOREIGN[way]
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
            for path in (
                "/",
                "/health",
                "/hosts/register",
                "/v1/models",
                "/api/jobs",
                "/house/keys",
                "/nowhere",
                "/ui/page.css",
            ):
                got = await ask(app, method, path, headers=headers)
                assert got.status == status and "allow" not in got.headers, (method, path)

    @pytest.mark.parametrize("way", FOREIGN)
    async def test_no_socket_does(self, post: Post, way: str) -> None:
        app, (status, headers) = standing_in(post.core), FOREIGN[way]
        for dialect in DIALECTS:
            for socket in dialect.sockets:
                for path in {socket.path, dialect.prefix + socket.path}:
                    assert (await ask(app, "GET", path, socket=True, headers=headers)).status == status

    @pytest.mark.parametrize("declared", UNDECLARED)
    async def test_a_body_without_a_key_has_to_be_declared_as_json(self, post: Post, declared: str) -> None:
        """From programs too: an older browser says nothing of its page, and this much it can't send unasked."""
        app, media = standing_in(post.core), UNDECLARED[declared]
        headers = [(b"host", HERE), *([(b"content-type", media)] if media else [])]
        bodies = [(d, e, path) for d, e, path in everything() if e.request is not None or e.raw]
        open_to_all = [(d, e, path) for d, e, path in bodies if e.access in (Access.PUBLIC, Access.OPTIONAL)]
        assert len(open_to_all) >= 10
        for dialect, endpoint, path in open_to_all:
            got = await ask(app, endpoint.method, path, headers=headers)
            assert got.status == 415 and shaped(dialect, got.body), path
        # With a key programs declare what they like: `curl -d` says that its JSON is a form.
        for _, endpoint, path in bodies:
            key = post.admin_key if endpoint.access is not Access.PUBLIC else ""
            if key and endpoint.access is not Access.HOST:
                assert (await ask(app, endpoint.method, path, key=key, headers=headers)).status == LET_IN, path

    async def test_a_page_can_not_become_a_host(self, post: Post) -> None:
        """The attack itself: a page posted text to /hosts/register, became a host at price 0 and was given the owner's
        prompts."""
        body = b'{"gpu":"x","models":["m"],"price_per_token":0,"endpoint_url":"https://evil.example/infer"}'
        said = []
        async with aiohttp.ClientSession(post.url) as session:
            for headers in (
                {"content-type": "text/plain", "origin": "https://evil.example", "sec-fetch-site": "cross-site"},
                {"content-type": "text/plain"},
                {"content-type": "application/json", "origin": "null"},
                {"content-type": "application/json", "host": "evil.example"},
            ):
                async with session.post("/hosts/register", data=body, headers=headers) as answer:
                    said.append((answer.status, list(await answer.json())))
        assert said == [(403, ["detail"]), (415, ["detail"]), (403, ["detail"]), (421, ["detail"])]
        assert len(post.core.fleet) == 0


class TestAllowedPages:
    FETCH = by_page(b"cross-site", b"cors", b"empty", origin=APP)

    async def test_they_need_a_key_everywhere(self, post: Post) -> None:
        app = standing_in(post.core)
        for dialect, endpoint, path in everything():
            got = await ask(app, endpoint.method, path, headers=self.FETCH)
            assert got.status == 403 and shaped(dialect, got.body), path
            # The page may read why.
            assert got.headers["access-control-allow-origin"] == APP.decode()

    async def test_with_one_they_are_answered(self, post: Post) -> None:
        app = standing_in(post.core)
        for _, endpoint, path in everything():
            if endpoint.access is not Access.HOST:
                got = await ask(app, endpoint.method, path, key=post.admin_key, headers=self.FETCH)
                assert got.status == LET_IN and got.headers["access-control-allow-origin"] == APP.decode(), path

    async def test_a_wrong_one_opens_not_even_what_is_public(self, post: Post) -> None:
        app = standing_in(post.core)
        for _, endpoint, path in everything():
            got = await ask(app, endpoint.method, path, key="ck_" + "A" * 43, headers=self.FETCH)
            assert got.status == 401, path

    async def test_a_password_is_no_key(self, post: Post) -> None:
        """Browsers remember passwords and send them with whatever any page asks."""
        app, basic = standing_in(post.core), b"Basic " + base64.b64encode(b"ada:correct-horse")
        for path in ("/users/me", "/house/models", "/hosts"):
            got = await ask(app, "GET", path, headers=[*self.FETCH, (b"authorization", basic)])
            assert got.status == 403, path
        assert (await ask(app, "GET", "/users/me", headers=[(b"authorization", basic)])).status == LET_IN

    async def test_their_browsers_are_told_so_beforehand(self, post: Post) -> None:
        app = standing_in(post.core)
        preflight = [*self.FETCH[1:], (b"access-control-request-headers", b"authorization")]
        got = await ask(app, "OPTIONS", "/v1/chat/completions", headers=preflight)
        assert got.status == 204 and got.headers["access-control-allow-headers"] == "authorization"

    async def test_every_origin_still_needs_a_key(self, tmp_path: Path) -> None:
        async with open_post(tmp_path, cors_origins=("*",), **PLENTY) as post:
            app = standing_in(post.core)
            headers = by_page(b"cross-site", b"cors", b"empty", origin=b"https://evil.example")
            for _, endpoint, path in everything():
                assert (await ask(app, endpoint.method, path, headers=headers)).status == 403, path


class TestOwnPages:
    @pytest.mark.parametrize(
        "headers",
        [
            by_page(b"same-origin", b"cors", b"empty", origin=b"http://127.0.0.1:8080"),
            by_page(b"same-origin", b"no-cors", b"script"),
            by_page(b"none", b"navigate", b"document"),
            by_page(origin=b"http://127.0.0.1:8080"),
            by_page(origin=b"http://localhost:8080", host=b"localhost:8080"),
            by_page(origin=b"http://[::1]:8080", host=b"[::1]:8080"),
            # Behind a proxy that puts its own Host in place of the browser's.
            by_page(b"same-origin", b"cors", b"empty", origin=b"https://post.example"),
        ],
    )
    async def test_they_are_answered_as_programs_are(self, post: Post, headers: list[Header]) -> None:
        app = standing_in(post.core)
        for _, endpoint, path in everything():
            if endpoint.access in (Access.PUBLIC, Access.OPTIONAL):
                assert (await ask(app, endpoint.method, path, headers=headers)).status == LET_IN, path

    async def test_a_link_is_followed_to_what_is_public_and_to_nothing_else(self, post: Post) -> None:
        app = standing_in(post.core)
        headers = [(b"host", HERE), *by_page(b"cross-site", b"navigate", b"document")[2:]]
        for _, endpoint, path in everything():
            got = (await ask(app, endpoint.method, path, headers=headers)).status
            if endpoint.method not in ("GET", "HEAD"):
                assert got == 403, path
            else:
                assert got == (LET_IN if endpoint.access is Access.PUBLIC else 401), path


class TestNames:
    @pytest.mark.parametrize(
        ("settings", "host", "known"),
        [
            ({}, "localhost:8080", True),
            ({}, "a.localhost", True),
            ({}, "LOCALHOST.", True),
            ({}, "127.9.9.9", True),
            ({}, "[::1]:1", True),
            ({}, "[::ffff:127.0.0.1]", True),
            ({}, "192.168.1.2", False),
            ({}, "post.example", False),
            ({}, "localhost.evil.example", False),
            ({}, "127.0.0.1:80:80", False),
            ({}, "localhost/..", False),
            ({"host": "localhost"}, "post.example", False),
            ({"host": "::1"}, "post.example", False),
            ({"server_names": ("post.example",)}, "POST.example.:443", True),
            ({"server_names": ("post.example",)}, "other.example", False),
            ({"server_names": ("*",)}, "other.example", True),
            ({"public_url": "https://post.example/api"}, "post.example", True),
            ({"public_url": "https://post.example/api"}, "other.example", False),
            ({"host": "0.0.0.0"}, "other.example", True),
            ({"host": "0.0.0.0", "server_names": ("post.example",)}, "other.example", False),
            ({"host": "0.0.0.0", "server_names": ("post.example", "10.0.0.7")}, "10.0.0.7:8080", True),
            ({"host": "0.0.0.0", "server_names": ("post.example",)}, "127.0.0.1:8080", True),
        ],
    )
    async def test_a_server_answers_to_its_own(self, settings: dict[str, object], host: str, known: bool) -> None:
        policy = browser_policy(msgspec.convert({"data": "x", **settings}, Settings))
        app = HttpServer(None, DIALECTS, gate=lambda *_: None, body_bytes_max=1, browsers=policy)
        got = await ask(app, "OPTIONS", "/health", headers=[(b"host", host.encode())])
        assert got.status == (204 if known else 421)

    def test_what_is_refused_is_said_in_few_words(self) -> None:
        assert len(WrongName("x" * 60_000).message) < 300

    @pytest.mark.parametrize("host", ["", "a@localhost", "localhost#", "[::1", "localhost:99999"])
    def test_what_is_no_host_has_no_name(self, host: str) -> None:
        assert not is_loopback_name(host_name(host))


class TestRepeatedHeaders:
    @pytest.mark.parametrize(
        "name", ["authorization", "x-api-key", "x-admin-key", "host", "origin", "content-type", "idempotency-key"]
    )
    async def test_what_decides_who_asks_is_sent_once(self, post: Post, name: str) -> None:
        """Of two keys one place believed the first and another the last."""
        app = standing_in(post.core)
        value = f"Bearer {post.buyer_key}".encode()
        headers = [*JSON, (name.encode(), value), (name.encode(), value)]
        for dialect, endpoint, path in everything():
            got = await ask(app, endpoint.method, path, headers=headers)
            assert got.status == 400 and name.encode() in got.body.lower() and shaped(dialect, got.body), path

    async def test_two_keys_in_an_address_are_one_too_many(self, post: Post) -> None:
        async with aiohttp.ClientSession(post.url) as session:
            for query, status in (
                (f"api_key={post.buyer_key}", 200),
                (f"api_key={post.buyer_key}&api_key={post.admin_key}", 400),
            ):
                async with session.get(f"/users/me?{query}") as answer:
                    assert answer.status == status
