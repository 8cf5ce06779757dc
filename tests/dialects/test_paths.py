"""Paths as clients spell them: slashes too many lead where the published path leads, and a path that nothing serves
names the nearest one that is."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from comptoir.dialects import DIALECTS
from comptoir.gateway import Gate
from comptoir.kit.http import Dialect
from comptoir.kit.http.paths import Paths, plain
from comptoir.kit.ratelimit import RateLimiter
from comptoir.worker.events import Reconnecting
from tests.dialects.asgi import LET_IN, Answer, ask, sample, standing_in
from tests.post import Post, open_post
from tests.tcp import serving

SPELLINGS = {
    "a slash at the end": lambda path: path + "/",
    "several at the end": lambda path: path + "///",
    "the first doubled": lambda path: "/" + path,
    "each doubled": lambda path: path.replace("/", "//"),
    "each doubled, and at the end": lambda path: path.replace("/", "//") + "//",
}

UNLIMITED = {"requests_per_minute_per_ip": 1_000_000, "requests_per_minute_per_key": 1_000_000}


def published() -> Iterator[tuple[Dialect, str, str, str]]:
    """Give each path with its dialect and method, and as it is written where it is served."""
    for dialect in DIALECTS:
        for endpoint in dialect.endpoints:
            for prefix in ([""] if dialect.at_root else []) + [dialect.prefix]:
                yield dialect, endpoint.method, endpoint.path, prefix + sample(endpoint.path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def post(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Post]:
    async with open_post(tmp_path_factory.mktemp("paths"), **UNLIMITED) as opened:
        yield opened


pytestmark = pytest.mark.asyncio(loop_scope="module")


def words(answer: Answer) -> str:
    """Return what a refusal says, in any dialect's shape."""
    body = msgspec.json.decode(answer.body)
    found = body.get("error", body.get("detail"))
    return str(found.get("message") if isinstance(found, dict) else found) + str(body.get("nearest", ""))


class TestSlashes:
    @pytest.mark.parametrize("spelling", SPELLINGS)
    async def test_they_lead_where_the_path_leads(self, post: Post, spelling: str) -> None:
        app = standing_in(post.core, lambda d, e: f"{d.name} {e.method} {e.path}".encode())
        wrong = []
        for _, method, _, path in published():
            as_published = await ask(app, method, path, key=post.admin_key)
            got = await ask(app, method, SPELLINGS[spelling](path), key=post.admin_key)
            if (got.status, got.body) != (as_published.status, as_published.body) or got.status == 404:
                wrong.append((method, path, got.status))
        assert wrong == []

    @pytest.mark.parametrize("spelling", SPELLINGS)
    async def test_other_methods_and_sockets_too(self, post: Post, spelling: str) -> None:
        app = standing_in(post.core)
        for method, path, status in (
            ("HEAD", "/v1/models", LET_IN),
            ("OPTIONS", "/v1/chat/completions", 204),
            ("GET", "/v1/chat/completions", 405),
            ("DELETE", "/house/jobs", 405),
        ):
            got = await ask(app, method, SPELLINGS[spelling](path), key=post.admin_key)
            assert got.status == status, (method, path)
        host_key = post.admin_key  # A user's: the gate of the link refuses it, so the path led there.
        assert (await ask(app, "GET", SPELLINGS[spelling]("/link"), key=host_key, socket=True)).status == 403

    async def test_those_inside_a_models_name_stay(self, post: Post) -> None:
        paths: Paths[str] = Paths()
        paths.add("GET", "/v1/models", "list")
        paths.add("GET", "/v1/models/{id:path}", "one")
        paths.add("POST", "/jobs/{id}/cancel", "cancel")
        for path, expected in {
            "/v1/models/": ("list", {}, "/v1/models"),
            "//v1//models//": ("list", {}, "/v1/models"),
            "/v1/models/org/name": ("one", {"id": "org/name"}, "/v1/models/org/name"),
            "//v1//models//org/name//": ("one", {"id": "org/name"}, "/v1/models/org/name"),
            "/v1/models/org//name": ("one", {"id": "org//name"}, "/v1/models/org//name"),
            "/v1//models/a/": ("one", {"id": "a"}, "/v1/models/a"),
            "/": None,
            "*": None,
        }.items():
            assert paths.find("GET", path) == expected, path
        assert paths.find("POST", "//jobs//7/cancel/") == ("cancel", {"id": "7"}, "/jobs/7/cancel")
        assert paths.find("POST", "/jobs/7/8/cancel") is None
        assert paths.find("GET", "/v1/models/" + "/" * 65_000 + "x\n") is None

    async def test_limits_by_path_count_them_as_one(self, post: Post) -> None:
        """A dialect that limits requests by path and address is not fooled by slashes."""
        (limited,) = [dialect for dialect in DIALECTS if dialect.own_rate is not None]
        app = standing_in(post.core)
        gate = app._gate
        assert isinstance(gate, Gate)
        gate.by_path[limited.name] = RateLimiter(per_minute=2, clock=post.core.clock)

        spelled = ("/api/jobs", "//api/jobs", limited.prefix + "/api//jobs/", "/api/jobs/")
        assert [(await ask(app, "GET", path)).status for path in spelled] == [LET_IN, LET_IN, 429, 429]


NEAREST = [
    ("POST", "/v1/chat/completion", "/v1/chat/completions"),
    ("POST", "/chat/completions", "/v1/chat/completions"),
    ("POST", "/api/v1/chat/completions", "/v1/chat/completions"),
    ("POST", "/v1/v1/chat/completions", "/v1/chat/completions"),
    ("GET", "/v1/chat/completion/", "/v1/chat/completions"),
    ("POST", "/openai/v1/chat/completion", "/openai/v1/chat/completions"),
    ("POST", "/openai/v1/responses", "/openai/v1/chat/completions"),
    ("POST", "/v1/responses", "/v1/chat/completions"),
    ("POST", "//v1/messages/", "/v1/chat/completions"),
    ("POST", "/api/chat", "/v1/chat/completions"),
    ("GET", "/api/tags", "/v1/models"),
    ("POST", "/v1/embedding", "/v1/embeddings"),
    ("GET", "/v1/model", "/v1/models"),
    ("GET", "/job/42", "/jobs/{id}"),
    ("POST", "/jobs/42/cancle", "/jobs/{id}/cancel"),
    ("POST", "/infrintia/job/42/cancel", "/infrintia/jobs/{id}/cancel"),
    ("POST", "/api/jobz", "/api/jobs"),
    ("POST", "/house/jobz", "/house/jobs"),
    ("POST", "/hous/jobs", "/house/jobs"),
    ("GET", "/comptoir/links", "/comptoir/link"),
    ("GET", "/healthz", "/health"),
    ("POST", "/v1/images/generations", ""),
    ("POST", "/v1/audio/transcriptions", ""),
    ("GET", "/infrintia/nowhere", ""),
    ("GET", "/wp-login.php", ""),
    ("GET", "/.env", ""),
    ("OPTIONS", "*", ""),
]


class TestNearest:
    @pytest.mark.parametrize(("method", "path", "nearest"), NEAREST)
    async def test_a_404_names_it(self, post: Post, method: str, path: str, nearest: str) -> None:
        app = standing_in(post.core)
        asked = await ask(app, method, path)
        as_socket = await ask(app, "GET", path, socket=True)

        assert asked.status == as_socket.status == 404
        found = re.search(r"/[\w/{}]+$", words(asked).partition("served is")[2] or words(asked).partition("Found")[2])
        assert (found[0] if found else "") == nearest
        if nearest:
            assert (await ask(app, method, sample(nearest), key=post.admin_key)).status != 404

    async def test_little_of_a_long_path_is_repeated(self, post: Post) -> None:
        app = standing_in(post.core)
        for path in ("/v1/" + "a" * 60_000, "/ui/" + "a" * 60_000, "/docs/" + "a" * 60_000, "/" * 60_000 + "a"):
            answer = await ask(app, "GET", path)
            assert answer.status in (404, LET_IN) and len(answer.body) < 600
        async with aiohttp.ClientSession() as session, session.get(post.url + "/ui/" + "a" * 60_000) as real:
            assert real.status == 404 and len(await real.read()) < 600


class TestNoUpgrade:
    async def test_a_plain_request_for_a_websocket_says_what_the_proxy_needs(self, post: Post) -> None:
        app = standing_in(post.core)
        sockets = [(d, p + s.path) for d in DIALECTS for s in d.sockets for p in ("", d.prefix)]
        assert len(sockets) >= 2
        for _, path in sockets:
            got = await ask(app, "GET", path)
            assert (got.status, got.headers["upgrade"], got.headers["connection"]) == (426, "websocket", "upgrade")
            assert "proxy_set_header Upgrade $http_upgrade" in words(got)
            assert (await ask(app, "HEAD", path)).status == 426
            posted = await ask(app, "POST", path)
            assert (posted.status, posted.headers["allow"]) == (405, "GET")

    async def test_a_worker_behind_such_a_proxy_prints_it(self, post: Post) -> None:
        told = asyncio.get_running_loop().create_future()

        def hear(event: object) -> None:
            if isinstance(event, Reconnecting) and not told.done():
                told.set_result(event.why)

        async with without_upgrade(post.url) as url, post.worker(urls=[url], on_event=hear):
            why = await asyncio.wait_for(told, 10)
        assert "answered HTTP 426: this path is a WebSocket" in why
        assert 'proxy_set_header Connection "upgrade"' in why


@contextlib.asynccontextmanager
async def without_upgrade(url: str) -> AsyncIterator[str]:
    """Serve as nginx does by default: each request goes on as HTTP/1.0, without Upgrade, on a connection of its own."""
    host, _, port = url.removeprefix("http://").partition(":")

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        begin, *lines = head[:-4].split(b"\r\n")
        kept = [one for one in lines if not one.lower().startswith((b"upgrade:", b"connection:", b"sec-websocket"))]
        length = [int(one.split(b":")[1]) for one in kept if one.lower().startswith(b"content-length:")]
        body = await reader.readexactly(length[0]) if length else b""
        inside, outside = await asyncio.open_connection(host, int(port))
        whole = b"\r\n".join([begin.replace(b"HTTP/1.1", b"HTTP/1.0"), *kept, b"connection: close", b"", body])
        outside.write(whole)
        writer.write(await inside.read())
        outside.close()
        writer.close()

    async with serving(passed) as here:
        yield f"http://127.0.0.1:{here}"


async def test_plain() -> None:
    assert [plain(path) for path in ("", "/", "//", "a//b/", "/a")] == ["/", "/", "/", "/a/b", "/a"]
