"""A host without our worker that runs our engines over plain HTTP: it registers, polls, sends frames and done or fail
(docs/dialects/native.md), with the files of jobs as the worker has them. As a process: ``main`` with a `HostConfig`."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec

from comptoir.kinds import load_kinds
from comptoir.link import Frame
from comptoir.transports.native import NativeDone, NativeFail, NativeFrame, NativeFrames, NativeJob, NativeUsage
from comptoir.worker.addresses import Addresses
from comptoir.worker.engines.base import Engine, EngineError, EngineRequest, Finish
from comptoir.worker.engines.registry import EngineSpec, make_engine
from comptoir.worker.files import HostFiles
from comptoir.worker.register import offer_json

WAIT_S = 20
"""How long a poll is held."""
ALIVE_S = 0.2
"""Between two signs of life while an engine says nothing."""
GONE = 409

Answer = TypeVar("Answer")


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What such a host is told."""

    url: str
    folder: str
    """For jobs' files and programs' runs."""
    engine: EngineSpec
    prices: dict[str, int]
    kinds: list[str] = []


class LeaseGone(Exception):
    """The coordinator no longer takes anything under the lease."""


class PollingHost:
    """One such host, with one job at a time."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._kinds = load_kinds(config.kinds)
        self._files = HostFiles(Path(config.folder) / "jobs", addresses=Addresses([config.url]))
        self._session: aiohttp.ClientSession
        self._turn = asyncio.Lock()

    async def serve(self) -> None:
        """Register, and do job after job until cancelled."""
        folder = Path(self._config.folder) / "runs"
        engine = make_engine(self._config.engine, slots=1, folder=folder)
        await engine.start()
        await asyncio.to_thread(self._files.open, needed=True)
        async with aiohttp.ClientSession() as self._session:
            try:
                await self._register(engine)
                while True:
                    job = await self._post("/next", {"wait_s": WAIT_S}, NativeJob)
                    if job is not None:
                        await self._do(engine, job)
            finally:
                await self._files.close()
                await engine.close()

    async def _register(self, engine: Engine) -> None:
        offers = [offer_json(offer) | {"prices": self._config.prices} for offer in await engine.models()]
        body = {"transport": "poll", "gpu": "none", "models": offers, "slots": 1}
        async with self._session.post(f"{self._config.url}/house/hosts", json=body) as answer:
            assert answer.status == 201, await answer.text()
            self._files.key = (await answer.json())["api_key"]

    async def _do(self, engine: Engine, job: NativeJob) -> None:
        """Do one job, with signs of life; a lease that is gone ends it."""
        work = asyncio.create_task(self._work(engine, job))
        alive = asyncio.create_task(self._stay_alive(job, work))
        try:
            with contextlib.suppress(asyncio.CancelledError, LeaseGone):
                await work
        finally:
            for task in (alive, work):
                task.cancel()
            await asyncio.wait((alive, work))

    async def _work(self, engine: Engine, job: NativeJob) -> None:
        kind = self._kinds.stored(job.kind)
        until_s = asyncio.get_running_loop().time() + job.left_ms / 1000
        files = self._files.of_lease(
            job=job.job_id, lease=job.lease, inputs=kind.inputs(job.body) if kind.files else (), until_s=until_s
        )
        prefix = tuple(Frame(each.text, each.tokens, each.extra) for each in job.prefix)
        request = EngineRequest(job.kind, job.model, job.body, prefix, job.max_tokens, files=files)
        self._seq = job.start_seq
        stream: Any = engine.run(request)
        try:
            async for item in stream:
                if isinstance(item, Frame):
                    await self._send(job, NativeFrame(item.text, item.tokens, item.extra))
                else:
                    await self._done(job, item)
        except EngineError as error:
            fail = NativeFail(
                job.lease, error.code, error.message, error.fault, error.status, error.body, error.retry_after_s
            )  # type: ignore[arg-type]
            await self._post(f"/{job.job_id}/fail", fail, None)
        finally:
            await stream.aclose()
            await files.erase()

    async def _send(self, job: NativeJob, *items: NativeFrame) -> None:
        async with self._turn:
            await self._post(f"/{job.job_id}/frames", NativeFrames(job.lease, self._seq, list(items)), None)
            self._seq += len(items)

    async def _done(self, job: NativeJob, finish: Finish) -> None:
        usage = NativeUsage(finish.usage.prompt_tokens, finish.usage.completion_tokens, finish.usage.details)
        await self._post(f"/{job.job_id}/done", NativeDone(job.lease, self._seq, finish.finish_reason, usage), None)

    async def _stay_alive(self, job: NativeJob, work: "asyncio.Task[None]") -> None:
        try:
            while True:
                await asyncio.sleep(ALIVE_S)
                await self._send(job)
        except LeaseGone:
            work.cancel()

    async def _post(self, path: str, body: Any, type: type[Answer] | None) -> Answer | None:
        headers = {"authorization": f"Bearer {self._files.key}", "content-type": "application/json"}
        url = f"{self._config.url}/house/host/jobs{path}"
        async with self._session.post(url, data=msgspec.json.encode(body), headers=headers) as answer:
            data = await answer.read()
            if answer.status == GONE:
                raise LeaseGone(data)
            assert answer.status in (200, 204), data
            return msgspec.json.decode(data, type=type) if type is not None and answer.status == 200 else None


def main(path: str) -> None:
    """Read the configuration and serve until killed."""
    config = msgspec.json.decode(Path(path).read_bytes(), type=HostConfig)
    asyncio.run(PollingHost(config).serve())
