"""Files of a job at several coordinators: its host reads and uploads at any of them, whichever owns the job."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from comptoir.dispatch.files import Files
from comptoir.dispatch.release_files import SURELY_WRITTEN_MS, sweep_files
from comptoir.kinds.files import file_frame
from tests.cluster.posts import Posts, open_posts
from tests.redis_server import RedisServer
from tests.working import TARGET, Customer, Smith

DATA = b"0123456789" * 100


@pytest.fixture
async def posts(tmp_path: Path, postgres_address: str, redis_server: RedisServer) -> AsyncIterator[Posts]:
    async with open_posts(tmp_path, database=postgres_address, bus=redis_server.url, kinds=(TARGET,)) as opened:
        yield opened


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def until_offered(posts: Posts) -> None:
    """Wait until both coordinators know of the host."""
    await posts.until(lambda: all(core.fleet.free_list("smith") is not None for core in posts.cores))


async def test_the_lease_opens_them_where_the_job_is_not(posts: Posts, session: aiohttp.ClientSession) -> None:
    owner, other = posts[0], posts[1]
    buyer, smith = Customer(session, other.url, other.buyer_key), await Smith.register(session, owner.url)
    taking = asyncio.create_task(smith.take())
    await until_offered(posts)
    job = await buyer.buy({"file": await buyer.put(DATA)})
    await taking
    assert owner.core.jobs.live.get(bytes.fromhex(job[4:])) is not None, "the host's coordinator owns it"

    part = await smith.input(0, url=other.url, range="bytes=10-19")
    begun = await smith.begin(1_000, url=other.url, filename="made")
    location = begun.headers["location"]
    first = await smith.go_on(location, 0, DATA[:300], url=other.url)
    twice = await asyncio.gather(
        smith.go_on(location, 300, DATA[300:], url=other.url), smith.go_on(location, 300, DATA[300:])
    )
    looked = await smith.look(location, url=other.url)
    wrong = await smith.input(0, url=other.url, x_comptoir_lease="att_" + "0" * 32)

    assert (part.status, part.body, first.status) == (206, DATA[10:20], 204)
    assert sorted(one.status for one in twice) == [204, 409]
    assert looked.headers["x-comptoir-file"] == location.rpartition("/")[2]
    assert (wrong.status, wrong.code) == (409, "NotYourLease")

    made = await smith.deliver(b"made", name="other", url=other.url)
    assert (await smith.show(made)).status == 200
    assert (await smith.done(1)).status == 200
    for url in (owner.url, other.url):
        assert (await smith.input(0, url=url)).code == "NotYourLease"
        assert (await smith.begin(1, url=url)).code == "NotYourLease"
    await owner.core.background.drain_tasks()
    named = {one["name"] for one in (await buyer.ask("GET", "/house/files")).json["files"]}
    assert named == {"a.txt", "other"}
    assert await owner.core.db.fetch("SELECT * FROM file_keeps") == []


async def test_what_its_owner_left_when_it_died_another_sweeps(
    posts: Posts, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is written, and the process is gone before the files are released."""
    monkeypatch.setattr("comptoir.dispatch.settle.release_when_over", lambda core, job: None)
    monkeypatch.setattr("comptoir.dispatch.release_files.SURELY_WRITTEN_MS", 0)
    owner, other = posts[0], posts[1]
    buyer, smith = Customer(session, owner.url, owner.buyer_key), await Smith.register(session, owner.url)
    taking = asyncio.create_task(smith.take())
    await until_offered(posts)
    over = await buyer.buy({"file": await buyer.put(DATA)})
    await taking
    named, lost = await smith.deliver(b"named", name="named"), await smith.deliver(b"lost", name="lost")
    await smith.send(file_frame("", 1, artifact=named))
    await smith.done(1)
    taking = asyncio.create_task(smith.take())
    live = await buyer.buy({"file": await buyer.put(b"live", "live.txt")})
    await taking
    await smith.deliver(b"working", name="working")
    assert SURELY_WRITTEN_MS > 10_000, "an end that is just being seen to is left alone"

    swept = [await sweep_files(other.core) for _ in range(3)]
    await other.core.state(Files).collect()

    assert swept == [1, 0, 0], (over, live)
    assert {one["name"] for one in (await buyer.ask("GET", "/house/files")).json["files"]} == {
        "a.txt", "named", "live.txt", "working",
    }  # fmt: skip
    assert (await buyer.ask("GET", f"/house/files/{lost.file}")).status == 404
    keepers = await owner.core.db.fetch("SELECT DISTINCT keeper FROM file_keeps")
    assert keepers == [(live,)]
