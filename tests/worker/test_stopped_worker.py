"""A worker process that is stopped (SIGSTOP) and goes on: what it held is another host's by then."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from comptoir.kit.ids import public
from comptoir.link import Settled
from tests.worker.coordinator_stand_in import Attempt, Coordinator, make_job

WORKER = """
import asyncio, sys
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker
engine = EngineSpec("bench.trivial_engine:TrivialEngine", {"per_s": 200.0})
config = WorkerConfig(url=sys.argv[1], engines=[engine], slots=1, measure=False, state_dir=sys.argv[2], drain_s=1.0)
asyncio.run(run_worker(config))
"""

ENDLESS = b'{"max_tokens":100000}'
SHORT = b'{"max_tokens":3}'


@pytest_asyncio.fixture
async def worker(coordinator: Coordinator, tmp_path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a worker with one slot in a process of its own; gives it once it is linked."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, coordinator.url, str(tmp_path), env={**os.environ, "PYTHONPATH": "src:."}
    )
    try:
        async with asyncio.timeout(20):
            await coordinator.connected.wait()
        yield process
    finally:
        process.kill()
        await process.wait()


async def frames(attempt: Attempt, count: int) -> None:
    async with asyncio.timeout(10):
        while len(attempt.frames) < count:
            attempt.grew.clear()
            await attempt.grew.wait()


class TestStoppedWorker:
    async def test_it_lets_go_of_a_lease_that_was_closed_meanwhile(
        self, coordinator: Coordinator, worker: asyncio.subprocess.Process
    ) -> None:
        attempt = await coordinator.push(make_job(1, body=ENDLESS))
        await frames(attempt, 3)
        worker.send_signal(signal.SIGSTOP)
        attempt.forgotten = True
        await coordinator.send(Settled(attempt.job.lease, public("job", attempt.job.job_id), "lost", 0, 3, 0))
        worker.send_signal(signal.SIGCONT)

        # Its only slot is free again, on the same connection.
        after = await coordinator.push(make_job(2, body=SHORT))
        async with asyncio.timeout(10):
            await after.closed.wait()
        assert (after.text, coordinator.connections, coordinator.violations) == (" tok" * 3, 1, [])

    async def test_it_comes_back_and_drops_what_nobody_knows_any_more(
        self, coordinator: Coordinator, worker: asyncio.subprocess.Process
    ) -> None:
        attempt = await coordinator.push(make_job(1, body=ENDLESS))
        await frames(attempt, 3)
        worker.send_signal(signal.SIGSTOP)
        attempt.forgotten = True
        coordinator.cut()
        after = coordinator.submit(make_job(2, body=SHORT))
        worker.send_signal(signal.SIGCONT)

        async with asyncio.timeout(10):
            await after.closed.wait()
        assert [one.lease for one in coordinator.hellos[1].open] == [attempt.job.lease]
        assert (after.text, coordinator.connections, coordinator.violations) == (" tok" * 3, 2, [])

    async def test_frames_it_sends_of_its_past_change_nothing(
        self, coordinator: Coordinator, worker: asyncio.subprocess.Process
    ) -> None:
        """Nobody told it yet: what it still sends is for a lease that is gone, until it hears so."""
        attempt = await coordinator.push(make_job(1, body=ENDLESS))
        await frames(attempt, 3)
        worker.send_signal(signal.SIGSTOP)
        attempt.forgotten = True
        had, seen = len(attempt.frames), coordinator.messages
        worker.send_signal(signal.SIGCONT)
        async with asyncio.timeout(10):
            while coordinator.messages < seen + 3:
                await asyncio.sleep(0.001)
        await coordinator.send(Settled(attempt.job.lease, "", "lost", 0, 0, 0))
        after = await coordinator.push(make_job(2, body=SHORT))
        async with asyncio.timeout(10):
            await after.closed.wait()

        assert len(attempt.frames) == had
        assert (after.text, coordinator.violations) == (" tok" * 3, [])
