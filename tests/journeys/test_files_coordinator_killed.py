"""Kill -9 of the coordinator while a host delivers: the host goes on under its lease, and the files are whole."""

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from comptoir.app import open_core
from comptoir.reports import audit
from comptoir.settings import Settings
from comptoir.worker import backoff
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker
from tests.journeys.coordinator import serve_press
from tests.journeys.test_files_killed import ended, files_of
from tests.journeys.test_kill import Coordinator, first_people
from tests.post import free_port
from tests.working import Customer

KIND = "tests.kinds.press:Press"
FILES = {f"{number}.txt": os.urandom(300_000) for number in range(3)}


async def until_delivered(buyer: Customer, job: str) -> None:
    """Wait until the first page is the buyer's."""
    async with asyncio.timeout(20):
        while True:
            found = (await buyer.ask("GET", "/house/files")).json["files"]
            if len(found) > len(FILES):
                return
            await asyncio.sleep(0.01)


async def test_a_host_goes_on_under_its_lease_with_the_next_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that comes back does not know the lease before the host's link is back, nor what was sent and not
    stored."""
    monkeypatch.setattr(backoff, "BACKOFF_LAST_S", 0.2)
    gate = tmp_path / "gate"
    coordinator = Coordinator(tmp_path / "data", "", free_port(), serve=serve_press)
    await first_people(coordinator)
    await coordinator.start()
    stop = asyncio.Event()
    config = WorkerConfig(
        url=coordinator.url,
        kinds=[KIND],
        engines=[EngineSpec("tests.kinds.press.engine:PressEngine", {"gate": str(gate)})],
        prices={"page": 1_000_000_000},
        measure=False,
        state_dir=str(tmp_path / "worker"),
        drain_s=0.0,
    )
    working = asyncio.create_task(run_worker(config, stop=stop))
    try:
        async with aiohttp.ClientSession() as session:
            buyer = Customer(session, coordinator.url, coordinator.key)
            inputs = [{"file": await buyer.put(content, name)} for name, content in FILES.items()]
            job = await bought(buyer, {"kind": "press", "model": "press", "body": {"inputs": inputs}})
            await until_delivered(buyer, job)
            await coordinator.end(signal.SIGKILL)
            await asyncio.to_thread(gate.touch)
            await coordinator.start()
            view = await ended(buyer, job)
            kept = await files_of(buyer)
    finally:
        stop.set()
        await asyncio.wait_for(working, 20)
        await coordinator.end(signal.SIGTERM)

    assert (view["state"], [each["state"] for each in view["attempts"]]) == ("completed", ["done"]), view
    made = {f"page-{number}.txt": content.upper() for number, content in enumerate(FILES.values())}
    assert kept == sorted((FILES | made).items())
    async with open_core(Settings(data=str(coordinator.data), kinds=(KIND,))) as core:
        assert await audit(core.db) == []


async def bought(buyer: Customer, order: dict[str, object]) -> str:
    """Buy as soon as there is a host."""
    async with asyncio.timeout(20):
        while (answer := await buyer.ask("POST", "/house/jobs", order)).status != 201:
            assert answer.status in (404, 503), answer
            await asyncio.sleep(0.02)
    job: str = answer.json["id"]
    return job
