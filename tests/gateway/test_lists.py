"""Lists over HTTP: pages by key and by offset in every dialect that lists jobs, and clients that hang up."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.gateway import listing
from comptoir.kit.db import Database
from comptoir.kit.db.readers import READ_S_MAX
from comptoir.kit.db.sqlite import SqliteReading
from tests.post import Post, open_post

JOBS = 7
HOST = {"gpu": "A100", "models": ["another"], "price_per_token": 0.0001, "backend": "huggingface"}
FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

LISTS = (
    "/jobs", "/jobs?status=failed", "/jobs?offset=3&limit=2", "/house/jobs", "/house/jobs?state=running",
    "/house/statement", "/house/hosts?mine=true", "/house/keys", "/api/jobs", "/admin/users", "/admin/hosts",
    "/house/jobs?everyone=true", "/house/audit", "/models", "/v1/models", "/hosts", "/metrics", "/",
)  # fmt: skip
POINT = re.compile(
    r"SELECT [\w, ()]+ FROM \w+ WHERE \w+ (= \?( AND \w+ = \?)*( ORDER BY [\w, ]+ LIMIT 17)?|IN \([?, ]+\))"
)


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    async with open_post(tmp_path) as opened, opened.worker():
        yield opened


@pytest.fixture
async def session(post: Post) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(post.url, headers={"authorization": f"Bearer {post.buyer_key}"}) as opened:
        yield opened


async def read(session: aiohttp.ClientSession, path: str) -> Any:
    async with session.get(path) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def walk(session: aiohttp.ClientSession, path: str, name: str) -> list[str]:
    """Return the ids of all pages, following ``next``."""
    found: list[str] = []
    page = await read(session, path)
    while True:
        found += [job[name] for job in page["jobs"]]
        if not page.get("next"):
            return found
        page = await read(session, f"{path}&before={page['next']}")


class TestPages:
    async def test_by_key_and_by_offset_they_show_the_same(self, post: Post, session: aiohttp.ClientSession) -> None:
        ids = []
        for _ in range(JOBS):
            body = {"model": "trivial", "input_text": "x", "max_tokens": 1}
            async with session.post("/run/model", json=body) as answer:
                ids.insert(0, (await answer.json())["job_id"])

        assert await walk(session, "/jobs?limit=3", "job_id") == ids
        assert await walk(session, "/house/jobs?limit=3", "id") == ids
        for offset in range(JOBS + 2):
            page = await read(session, f"/jobs?limit=3&offset={offset}")
            assert [job["job_id"] for job in page["jobs"]] == ids[offset : offset + 3]
            assert page["total"] == JOBS

    async def test_a_key_that_is_none_is_refused(self, session: aiohttp.ClientSession) -> None:
        async with session.get("/jobs?before=job_nonsense") as answer:
            assert answer.status == 422
            assert "before" in await answer.text()


class TestRendered:
    async def test_a_list_of_models_is_rendered_once_until_an_offer_changes(
        self, post: Post, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rendered: list[str] = []
        encode = listing.encode_json
        monkeypatch.setattr(listing, "encode_json", lambda made: rendered.append(type(made).__name__) or encode(made))

        async def names() -> list[list[str]]:
            openai, infrintia = await read(session, "/v1/models"), await read(session, "/models")
            return [[one["id"] for one in openai["data"]], [one["name"] for one in infrintia["models"]]]

        assert await names() == await names() == [["trivial"]] * 2
        assert sorted(rendered) == ["InfrintiaModels", "ModelList"]
        async with session.post("/hosts/register", json=HOST) as answer:
            assert answer.status == 201
        assert await names() == [["another", "trivial"]] * 2
        assert len(rendered) == 4


class TestEventLoop:
    async def test_of_all_lists_only_points_are_read_there(self, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
        store, inline, aside = post.core.db._store, list[str](), list[str]()
        point, listed = store.read, SqliteReading.read

        def on_loop(sql: str, params: Any = ()) -> Any:
            inline.append(sql)
            return point(sql, params)

        def in_thread(reading: SqliteReading, sql: str, params: Any = ()) -> Any:
            aside.append(sql)
            return listed(reading, sql, params)

        monkeypatch.setattr(store, "read", on_loop)
        monkeypatch.setattr(SqliteReading, "read", in_thread)
        async with aiohttp.ClientSession(post.url, headers={"authorization": f"Bearer {post.admin_key}"}) as operator:
            for path in LISTS:
                async with operator.get(path) as answer:
                    assert answer.status == 200, (path, await answer.text())

        assert [sql for sql in inline if not POINT.fullmatch(sql)] == []
        assert not [sql for sql in inline if "FROM jobs" in sql]
        assert len(aside) > 15


class TestHangingUp:
    async def test_what_is_read_for_a_client_that_is_gone_is_interrupted(
        self, post: Post, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        db: Database = post.core.db

        async def page(owner_id: bytes, **_: object) -> object:
            return await db.fetch(FOR_EVER, of=owner_id)

        monkeypatch.setattr(post.core.jobs.lists, "page", page)
        listing = asyncio.ensure_future(read(session, "/jobs"))
        while not db._lists.running:
            await asyncio.sleep(0.001)

        listing.cancel()
        async with asyncio.timeout(READ_S_MAX / 2):  # Long before it is stopped for taking too long.
            while db._lists.running:
                await asyncio.sleep(0.001)
        monkeypatch.undo()

        assert (await read(session, "/jobs"))["total"] == 0
