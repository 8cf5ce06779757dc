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

TOKENS = 300


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
                job = await submit(core, Order(buyer, "test", "chat", "trivial", body, TOKENS, True))
                while len(job.frames) < 50:
                    await asyncio.sleep(0.01)
                assert job.lease is not None
                lease = job.lease.id
            assert not job.over

            async with coordinator(settings) as core:
                again = core.jobs.live.get(job.id)
                assert again is not None
                reader = Reader(again)
                while await reader.next() is not None:
                    pass
                attempts = await core.jobs.attempts(job.id)
                verdict = verify(await core.receipts.envelope_of(job.id), read_registry(await core.receipts.registry()))
                differences = await audit(core.db)
                stop.set()
                await work

        assert again.state == JobState.COMPLETED
        assert (len(again.frames), again.count) == (TOKENS, TOKENS)
        assert [attempt.id for attempt in attempts] == [lease]
        assert verdict.ok and verdict.unsigned_segments == 0
        assert differences == []
