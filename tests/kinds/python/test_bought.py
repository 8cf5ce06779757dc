"""Python programs bought over HTTP from a worker: what they cost, how they are receipted, and what is refused."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from comptoir.receipts import read_registry, verify
from tests.post import Post, open_post
from tests.working import Customer

pytestmark = pytest.mark.asyncio(loop_scope="module")

WALL, CPU = 100_000, 200_000
"""Micro-dollars per million milliseconds: 100 a second and 200 a CPU second."""


@dataclass
class Shop:
    post: Post
    buyer: Customer
    session: aiohttp.ClientSession

    async def order(self, **body: Any) -> Any:
        return await self.buyer.ask("POST", "/house/jobs", {"kind": "python", "model": "python", "body": body})

    async def frames(self, job: str) -> AsyncIterator[dict[str, Any]]:
        headers = {"authorization": f"Bearer {self.buyer.key}"}
        async with self.session.get(f"{self.post.url}/house/jobs/{job}/frames", headers=headers) as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    async def bought(self, **body: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Buy a program; return the job once it is over, and its frames with the end."""
        answer = await self.order(**body)
        assert answer.status == 201, answer
        frames = [each async for each in self.frames(answer.json["id"])]
        return (await self.buyer.ask("GET", f"/house/jobs/{answer.json['id']}")).json, frames

    async def free_uusd(self) -> int:
        return int((await self.buyer.ask("GET", "/house/me")).json["account"]["free_uusd"])

    async def units(self, job: str) -> dict[str, int]:
        """Verify the receipt with nothing but the published keys; return what is paid for."""
        envelope = await self.post.core.receipts.envelope_of(bytes.fromhex(job[4:]))
        verdict = verify(envelope, read_registry(await self.post.core.receipts.registry()))
        assert verdict.ok and verdict.statement is not None, verdict
        assert verdict.statement.predicate.kind == "python"
        return {unit.unit: unit.count for part in verdict.statement.predicate.segments for unit in part.units}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "index").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
            patch.delenv(name)
        patch.setenv("UV_DEFAULT_INDEX", f"file://{folder / 'index'}")
        options = {"cores": 2, "memory_mib": 1024}
        async with (
            open_post(folder) as post,
            post.worker(engine="python", options=options, slots=2, prices={"wall_ms": WALL, "cpu_ms": CPU}),
            aiohttp.ClientSession() as session,
        ):
            yield Shop(post, Customer(session, post.url, post.buyer_key), session)


def cost_of(units: dict[str, int]) -> float:
    return (units["wall_ms"] * WALL + units["cpu_ms"] * CPU) / 1_000_000


class TestPaid:
    async def test_a_program_costs_its_time_and_its_processor_time(self, shop: Shop) -> None:
        before = await shop.free_uusd()
        code = "import time\ndef main(n):\n    print('on')\n    time.sleep(0.3)\n    open('a.txt', 'w').write('made')\n    return n"
        job, frames = await shop.bought(code=code, input=[1, {"a": None}], limits={"wall_s": 9, "cores": 2})

        assert job["state"] == "completed" and frames[-1]["finish_reason"] == "stop"
        assert frames[-2]["extra"]["result"] == [1, {"a": None}]
        units = await shop.units(job["id"])
        assert 300 <= units["wall_ms"] == frames[-2]["count"] < 9_000
        assert 1 <= units["cpu_ms"] <= 2 * units["wall_ms"]
        assert abs(job["cost_uusd"] - cost_of(units)) <= 1 and before - await shop.free_uusd() == job["cost_uusd"]
        (artifact,) = [each["extra"]["artifact"] for each in frames if "artifact" in each.get("extra", {})]
        assert (await shop.buyer.ask("GET", f"/house/files/{artifact['file']}")).body == b"made"

    async def test_the_hold_covers_both_times(self, shop: Shop) -> None:
        answer = await shop.order(code="pass", limits={"wall_s": 60, "cores": 2, "cpu_s": 90})

        assert answer.json["hold_uusd"] == 60 * 100 + 90 * 200
        assert [each async for each in shop.frames(answer.json["id"])][-1]["finish_reason"] == "stop"

    async def test_one_that_fails_by_its_own_doing_has_used_its_host(self, shop: Shop) -> None:
        job, frames = await shop.bought(code="print('a')\nraise ValueError('mine')")

        assert (job["state"], job["finish_reason"]) == ("completed", "exit")
        assert frames[-2]["extra"]["failed"] == {"reason": "exit", "message": "ValueError: mine", "exit_code": 1}
        assert job["cost_uusd"] > 0 and (await shop.units(job["id"]))["wall_ms"] >= 1

    async def test_what_it_calls_its_files_never_makes_its_host_pay(self, shop: Shop) -> None:
        """The trading post takes no such name: the host was blamed, and one after another ran it for nothing."""
        job, frames = await shop.bought(code=r"for n in 'a\\b', 'a_b', '\u202ec', '\x9bd': open(n, 'w').close()")

        names = [each["extra"]["artifact"]["name"] for each in frames if "artifact" in each.get("extra", {})]
        assert sorted(names) == ["_c", "_d", "a_b", "a_b-2"]
        assert (job["state"], job["finish_reason"]) == ("completed", "stop") and job["cost_uusd"] > 0

    async def test_one_that_never_ran_is_free(self, shop: Shop) -> None:
        job, _ = await shop.bought(code="pass", requirements=["nothing-of-that-name"])

        assert (job["state"], job["error_code"], job["cost_uusd"]) == ("failed", "requirements", 0)
        assert "nothing-of-that-name" in job["error_message"] and "file://" not in job["error_message"]


class TestCancelled:
    async def test_who_reads_along_and_cancels_pays_for_the_time(self, shop: Shop) -> None:
        """Else an hour of a host's work is had for nothing, a second before its end."""
        answer = await shop.order(code="print('all that I wanted', flush=True)\nimport time\ntime.sleep(99)")
        job = answer.json["id"]
        async with asyncio.timeout(30):
            async for frame in shop.frames(job):
                if frame.get("extra", {}).get("progress", {}).get("count", 0) > 900:
                    await shop.buyer.ask("POST", f"/house/jobs/{job}/cancel")
                    break
        view = (await shop.buyer.ask("GET", f"/house/jobs/{job}")).json
        assert view["state"] == "cancelled"
        assert 900 <= (await shop.units(job))["wall_ms"] <= 30_000 and view["cost_uusd"] >= 90


class TestRefused:
    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"code": "pass", "network": True}, "network"),
            ({"code": "pass", "builds": True}, "builds"),
            ({"code": "pass", "requirements": ["torch"]}, "torch"),
            ({"code": "pass", "limits": {"memory_mib": 2000}}, "memory_4g"),
            ({"code": "pass", "limits": {"cores": 3}}, "cores_4"),
            ({"code": "pass", "requirements": ["-e ."]}, "body"),
            ({}, "body"),
        ],
    )
    async def test_what_no_host_grants_is_refused_before_the_hold(
        self, body: dict[str, Any], words: str, shop: Shop
    ) -> None:
        before = await shop.free_uusd()
        answer = await shop.order(**body)

        assert answer.status == 422 and words in json.dumps(answer.json["error"]), answer
        assert await shop.free_uusd() == before


async def test_buyers_see_what_is_offered(shop: Shop) -> None:
    found = (await shop.buyer.ask("GET", "/house/models")).json["others"]

    offer = next(each for each in found if each["name"] == "python")
    assert offer["kinds"] == ["python"] and offer["capabilities"]["sandbox"] == "probed", offer
    assert offer["capabilities"]["network"] == "lacking" and offer["capabilities"]["cores_2"] == "probed"
