"""A host behind a bad line, with the real coordinator: its job's files arrive whole, both ways, under one lease."""

import asyncio
import itertools
import os
import random
from pathlib import Path

import aiohttp
import pytest

from comptoir.worker import backoff
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker
from tests.journeys.test_files_killed import ended, files_of
from tests.post import open_post
from tests.worker.cutting_proxy import serve_cutting
from tests.working import Customer

FILES = {f"{number}.txt": os.urandom(400_000) for number in range(3)}


@pytest.mark.parametrize("seed", [1, 2])
async def test_cuts_in_the_middle_of_files_lose_and_double_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """No connection carries a whole file: neither a request's nor the link's."""
    monkeypatch.setattr(backoff, "BACKOFF_LAST_S", 0.01)
    dice = random.Random(seed)
    # The registration and the first link are good.
    allowed = itertools.chain([10**9] * 2, iter(lambda: dice.randint(2_000, 250_000), 0))
    async with (
        open_post(tmp_path, kinds=("tests.kinds.press:Press",)) as post,
        serve_cutting(int(post.url.rsplit(":", 1)[1]), lambda: next(allowed), both=True) as proxy,
        aiohttp.ClientSession() as session,
    ):
        stop = asyncio.Event()
        config = WorkerConfig(
            url=proxy.url,
            kinds=["tests.kinds.press:Press"],
            engines=[EngineSpec("tests.kinds.press.engine:PressEngine")],
            prices={"page": 1_000_000_000},
            measure=False,
            state_dir=str(tmp_path / "worker"),
            drain_s=0.0,
        )
        working = asyncio.create_task(run_worker(config, stop=stop))
        try:
            await post.until_linked()
            buyer = Customer(session, post.url, post.buyer_key)
            inputs = [{"file": await buyer.put(content, name)} for name, content in FILES.items()]
            order = {"kind": "press", "model": "press", "body": {"inputs": inputs}}
            answer = await buyer.ask("POST", "/house/jobs", order)
            view = await ended(buyer, answer.json["id"])
            kept = await files_of(buyer)
        finally:
            stop.set()
            await asyncio.wait_for(working, 20)

    assert (view["state"], [each["state"] for each in view["attempts"]]) == ("completed", ["done"]), view
    made = {f"page-{number}.txt": content.upper() for number, content in enumerate(FILES.values())}
    assert kept == sorted((FILES | made).items())
    assert proxy.cuts > 2 * len(FILES)
