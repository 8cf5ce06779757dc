"""The coordinator is restarted in the middle of an answer: the worker brings all of it again, nothing starts over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from comptoir.app import open_core, running
from comptoir.dispatch import Core
from comptoir.dispatch.onboard import add_user
from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import JobState, Reader
from comptoir.receipts import read_registry, verify
from comptoir.reports import audit
from comptoir.settings import Settings
from comptoir.worker import backoff
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker
from tests.post import free_port

TOKENS, FIRST_STEP = 300, 40


@asynccontextmanager
async def coordinator(settings: Settings) -> AsyncIterator[Core]:
    async with open_core(settings) as core, running(core):
        yield core


class TestRestart:
    async def test_the_same_attempt_goes_on_with_the_same_answer(
        self, tmp_path: Path, database_address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backoff, "BACKOFF_LAST_S", 0.1)
        address = database_address if "://" in database_address else f"sqlite:{database_address}"
        settings = Settings(data=str(tmp_path / "data"), database=address, port=free_port(), drain_s=0.0)
        engine = EngineSpec("bench.trivial_engine:TrivialEngine", {"per_s": 200.0})
        config = WorkerConfig(
            url=f"http://127.0.0.1:{settings.port}",
            engines=[engine],
            measure=False,
            state_dir=str(tmp_path / "worker"),
            drain_s=2.0,
        )
        stop = asyncio.Event()
        async with asyncio.timeout(60):
            async with coordinator(settings) as core:
                buyer = (await add_user(core, username="ada", email=None, password=None)).user.id
                work = asyncio.create_task(run_worker(config, stop=stop))
                while not core.channels:
                    await asyncio.sleep(0.01)
                body = b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":%d}' % TOKENS
                bounded = Order(buyer, "test", "chat", "trivial", body, TOKENS, True)
                # The other's bound is raised before the restart and after it.
                growing = Order(buyer, "test", "chat", "trivial", body, FIRST_STEP, True, open_ended=True)
                jobs = [await submit(core, bounded), await submit(core, growing)]
                while any(len(job.frames) < 50 for job in jobs):
                    await asyncio.sleep(0.01)
                leases = [job.lease.id for job in jobs if job.lease is not None]
                assert FIRST_STEP < jobs[1].terms.output_max < TOKENS
            assert not any(job.over for job in jobs)

            async with coordinator(settings) as core:
                registry = read_registry(await core.receipts.registry())
                resumed = [core.jobs.live.get(job.id) for job in jobs]
                for again, lease in zip(resumed, leases, strict=True):
                    assert again is not None
                    reader = Reader(again)
                    while await reader.next() is not None:
                        pass
                    assert (again.state, again.finish_reason) == (JobState.COMPLETED, "stop")
                    assert (len(again.frames), again.count) == (TOKENS, TOKENS)
                    assert [attempt.id for attempt in await core.jobs.attempts(again.id)] == [lease]
                    verdict = verify(await core.receipts.envelope_of(again.id), registry)
                    assert verdict.ok and verdict.unsigned_segments == 0
                assert await audit(core.db) == []
                stop.set()
                await work
