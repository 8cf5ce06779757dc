"""A host of containers as a process of its own, to be killed: its containers live on in the test, which counts their
runs."""

import asyncio
import signal
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiohttp import web

from comptoir.kinds import MILLION
from comptoir.worker.engines.container import ContainerEngine
from comptoir.worker.engines.container_spec import ContainerSpec
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig
from tests.chaos.worker import main as work
from tests.journeys.forked import Forked
from tests.worker.engines.container_stand_in import Answer, Run, appends

RUN_UUSD = 1_000


def containers(*, urls: str, timeout_s: float = 180.0, slots: int = 8) -> ContainerEngine:
    """Make an engine of the containers at *urls* (JSON, by name); the registry calls it."""
    of = msgspec.json.decode(urls, type=dict[str, str])
    specs = [ContainerSpec(id=name, url=url, timeout_s=timeout_s) for name, url in of.items()]
    return ContainerEngine.of(specs, slots=slots)


def slowly(word: str, seconds: float) -> Answer:
    """Answer as `appends`, after a while."""

    async def answer(run: Run) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await appends(word)(run)

    return answer


@dataclass
class HostProcess:
    """One worker process over one state folder, which survives it."""

    folder: Path
    name: str
    url: str
    urls: dict[str, str]
    slots: int = 8
    timeout_s: float = 180.0
    process: Forked | None = None

    async def start(self) -> None:
        """Start it; it links when it can."""
        urls = msgspec.json.encode(self.urls).decode()
        options: dict[str, str | int | float | bool] = {"urls": urls, "timeout_s": self.timeout_s, "slots": self.slots}
        config = WorkerConfig(
            url=self.url,
            engines=[EngineSpec("tests.journeys.container_host:containers", options)],
            slots=self.slots,
            prices={"run": RUN_UUSD * MILLION},
            measure=False,
            state_dir=str(self.folder / self.name),
            drain_s=1.0,
        )
        path = self.folder / f"{self.name}.json"
        path.write_bytes(msgspec.json.encode(config))
        self.process = Forked(work, str(path), log=self.folder / f"{self.name}.log")

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """End it as a machine that loses its power does; idempotent."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
