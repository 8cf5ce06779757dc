"""Who may call what: the whole matrix, generated from the declarations of every dialect."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.dialects import DIALECTS
from comptoir.dispatch.onboard import add_host, add_user
from comptoir.dispatch.submit import Order, submit
from comptoir.hosts import NewHost
from comptoir.jobs import Reader
from comptoir.kit.http import Access, Dialect, Endpoint
from comptoir.kit.ids import public
from comptoir.link import ModelOffer
from tests.dialects.asgi import LET_IN, ask, sample, standing_in
from tests.post import Post, open_post

CALLERS = ("anonymous", "buyer", "other buyer", "host", "other host", "operator")

EXPECTED: dict[Access, tuple[int, ...]] = {
    #               anonymous  buyer   other buyer  host    other host  operator
    Access.PUBLIC: (LET_IN, LET_IN, LET_IN, LET_IN, LET_IN, LET_IN),
    Access.OPTIONAL: (LET_IN, LET_IN, LET_IN, LET_IN, LET_IN, LET_IN),
    Access.ANY: (401, LET_IN, LET_IN, LET_IN, LET_IN, LET_IN),
    Access.BUYER: (401, LET_IN, LET_IN, 403, 403, LET_IN),
    Access.HOST: (401, 403, 403, LET_IN, LET_IN, 403),
    Access.OPERATOR: (401, 403, 403, 403, 403, LET_IN),
}

JOB_PATHS = ("/jobs/{", "-job/{", "/receipts/{job_id", "/receipts/{id")
"""How paths that name one job look, in every dialect."""

FAST = {
    "requests_per_minute_per_ip": 1_000_000,
    "requests_per_minute_per_key": 1_000_000,
    "next_job_wait_s": 0.01,
}


@dataclass
class People:
    """Everybody who may knock, and one finished job of the buyer's."""

    post: Post
    keys: dict[str, str]
    host_ids: dict[str, str]
    job: str


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    """Give a post with every kind of caller, and a job that the buyer bought."""
    async with open_post(tmp_path, **FAST) as post, post.worker(options={"per_s": 0}):
        core = post.core
        other = await add_user(core, username="eve", email=None, password=None)
        new = [NewHost(gpu="A100", models=(ModelOffer(f"m{n}", ["chat"]),)) for n in (1, 2)]
        hosts = [await add_host(core, one) for one in new]
        body = b'{"model":"trivial","messages":[{"role":"user","content":"hi"}],"max_tokens":3}'
        job = await submit(core, Order(post.buyer_id, "test", "chat", "trivial", body, 3, False))
        reader = Reader(job)
        while await reader.next() is not None:
            pass
        keys = {
            "anonymous": "",
            "buyer": post.buyer_key,
            "other buyer": other.key,
            "host": hosts[0].key,
            "other host": hosts[1].key,
            "operator": post.admin_key,
        }
        ids = {"host": public("host", hosts[0].host_id), "other host": public("host", hosts[1].host_id)}
        yield People(post, keys, ids, public("job", job.id))


class TestMatrix:
    async def test_every_endpoint_lets_in_whom_it_declares_and_nobody_else(self, people: People) -> None:
        app = standing_in(people.post.core)
        wrong = []
        for dialect in DIALECTS:
            for endpoint in dialect.endpoints:
                for caller, expected in zip(CALLERS, EXPECTED[endpoint.access], strict=True):
                    path = dialect.prefix + sample(endpoint.path)
                    got = (await ask(app, endpoint.method, path, key=people.keys[caller])).status
                    if got != expected:
                        wrong.append(f"{endpoint.method} {path} by {caller}: {got}, not {expected}")
        assert wrong == []

    async def test_every_socket_too(self, people: People) -> None:
        app = standing_in(people.post.core)
        wrong = []
        for dialect in DIALECTS:
            for socket in dialect.sockets:
                for caller, expected in zip(CALLERS, EXPECTED[socket.access], strict=True):
                    path = dialect.prefix + socket.path
                    got = (await ask(app, "GET", path, key=people.keys[caller], socket=True)).status
                    if got != expected:
                        wrong.append(f"socket {path} by {caller}: {got}, not {expected}")
        assert wrong == []

    async def test_a_wrong_key_is_refused_even_where_none_is_needed(self, people: People) -> None:
        app = standing_in(people.post.core)
        for dialect in DIALECTS:
            for endpoint in dialect.endpoints:
                got = await ask(app, endpoint.method, dialect.prefix + sample(endpoint.path), key="ck_" + "A" * 43)
                assert got.status == (LET_IN if endpoint.access is Access.PUBLIC else 401), endpoint.path


def job_endpoints() -> list[tuple[Dialect, Endpoint]]:
    """Return every endpoint that names one job in its path."""
    return [
        (dialect, endpoint)
        for dialect in DIALECTS
        for endpoint in dialect.endpoints
        if any(part in endpoint.path for part in JOB_PATHS)
    ]


class TestOwnership:
    async def call(self, people: People, dialect: Dialect, endpoint: Endpoint, caller: str) -> int:
        """Ask for the buyer's job as *caller*, with a body and headers that every such endpoint takes."""
        path = dialect.prefix + sample(endpoint.path).replace("sample-1", people.job)
        body: dict[str, Any] | None = None
        if endpoint.request is not None:
            body = {
                "host_id": people.host_ids.get(caller, ""),
                "token": "x",
                "error": "x",
                "lease": "att_" + "0" * 32,
                "seq": 0,
                "items": [],
                "end_seq": 0,
                "code": "x",
            }
        async with (
            aiohttp.ClientSession(people.post.url) as session,
            session.request(
                endpoint.method,
                path,
                json=body,
                headers={
                    "authorization": f"Bearer {people.keys[caller]}",
                    "x-comptoir-lease": "att_" + "0" * 32,
                    "tus-resumable": "1.0.0",
                },
            ) as response,
        ):
            await response.read()
            return response.status

    def test_there_are_such_endpoints(self) -> None:
        assert len(job_endpoints()) >= 8

    async def test_another_buyers_job_is_a_404_everywhere(self, people: People) -> None:
        for dialect, endpoint in job_endpoints():
            if endpoint.access in (Access.BUYER, Access.ANY):
                assert await self.call(people, dialect, endpoint, "other buyer") == 404, endpoint.path
                assert await self.call(people, dialect, endpoint, "buyer") not in (401, 403, 404), endpoint.path

    async def test_a_host_can_do_nothing_to_a_job_that_is_not_its_own(self, people: People) -> None:
        core = people.post.core
        before = await core.db.fetch("SELECT * FROM jobs")
        for dialect, endpoint in job_endpoints():
            if endpoint.access in (Access.HOST, Access.ANY):
                assert await self.call(people, dialect, endpoint, "other host") in (403, 404, 409), endpoint.path
        assert await core.db.fetch("SELECT * FROM jobs") == before
