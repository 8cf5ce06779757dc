"""The killer: strikes as the plan says, brings back what it struck, and counts."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from typing import TypeVar

from comptoir.cli.cluster.child import ClusterProcess
from tests.chaos.buyers import Buyers
from tests.chaos.coordinator import write_clock
from tests.chaos.plan import Blow
from tests.chaos.processes import backends, limit_files
from tests.chaos.proxy import Trouble
from tests.chaos.stage import Coordinator, Stage

T = TypeVar("T")

AT_ONCE = 2
"""Blows that may be falling at the same time."""

FULL_DISK_BYTES = "1024"
"""A process with a full disk can write no further into any file than this."""


class Killer:
    """Lets the blows of a plan fall, each when its number of orders has begun; up to `AT_ONCE` at a time, on different
    victims."""

    def __init__(self, stage: Stage, buyers: Buyers) -> None:
        self.struck: dict[str, int] = {}
        """Blows that fell, by kind."""
        self._stage = stage
        self._buyers = buyers
        self._lanes = asyncio.Semaphore(AT_ONCE)
        self._victims: dict[str, asyncio.Lock] = {}

    async def run(self) -> None:
        """Strike until nothing is left of the plan and everything struck is back."""
        async with asyncio.TaskGroup() as group:
            for blow in self._stage.plan.blows:
                await self._buyers.until_begun(blow.at_order)
                await self._lanes.acquire()
                group.create_task(self._fall(blow))

    async def _fall(self, blow: Blow) -> None:
        try:
            # Locks are fair: of two blows at one victim the earlier falls first, whatever else goes on.
            async with self._victims.setdefault(self._victim(blow), asyncio.Lock()):
                await self._strike(blow)
            self.struck[blow.kind] = self.struck.get(blow.kind, 0) + 1
        finally:
            self._lanes.release()

    def _victim(self, blow: Blow) -> str:
        """Name what a blow falls on: nothing is paused that somebody else has just killed."""
        kind = blow.kind.partition("-")[0]
        if kind == "disk":
            kind = "coordinator" if self._stage.postgres is None else "postgres"
        if kind in ("postgres", "backend"):
            return "postgres"
        several = {"coordinator": len(self._stage.coordinators), "worker": len(self._stage.workers)}
        return f"{kind}{blow.target % several.get(kind, 1)}"

    async def _strike(self, blow: Blow) -> None:
        stage = self._stage
        victim, _, deed = blow.kind.partition("-")
        if victim == "coordinator":
            await self._process(_one(stage.coordinators, blow).process, deed, blow.for_s)
        elif victim == "worker":
            await self._process(_one(stage.workers, blow), deed, blow.for_s)
        elif victim == "postgres":
            await self._process(_there(stage.postgres), deed, blow.for_s)
        elif victim == "redis":
            await self._process(_there(stage.redis), deed, blow.for_s)
        elif victim == "backend":
            await self._backend(blow)
        elif victim == "poller":
            poller = _one(stage.pollers, blow)
            await poller.stop()
            await asyncio.sleep(blow.for_s)
            await poller.start()
        elif victim == "link":
            self._link(_one(stage.coordinators, blow), deed, blow)
        elif victim == "disk":
            await self._full_disk(blow)
        else:
            write_clock(_one(stage.coordinators, blow).clock, blow.amount)

    async def _process(self, part: ClusterProcess, deed: str, for_s: float) -> None:
        if deed == "pause":
            part.pause()
            await asyncio.sleep(for_s)
            part.resume()
            return
        if deed == "term":
            await part.stop()
        else:
            part.kill()
            await part.ended()
        await asyncio.sleep(for_s)
        await part.start()

    async def _backend(self, blow: Blow) -> None:
        """Kill one process of PostgreSQL's: the server ends all others, recovers, and goes on."""
        serving = backends(_there(self._stage.postgres))
        if serving:
            with contextlib.suppress(ProcessLookupError):
                os.kill(serving[blow.target % len(serving)], signal.SIGKILL)
        await asyncio.sleep(blow.for_s)

    def _link(self, coordinator: Coordinator, deed: str, blow: Blow) -> None:
        if deed == "cut":
            coordinator.proxy.cut()
        else:
            coordinator.proxy.disturb(Trouble(deed, blow.amount, blow.for_s))

    async def _full_disk(self, blow: Blow) -> None:
        """Let a process write nothing for a while: the coordinator itself on SQLite, else PostgreSQL's backends."""
        stage = self._stage
        if stage.postgres is None:
            victims, user = [_one(stage.coordinators, blow).process.pid], ""
        else:
            victims, user = backends(stage.postgres), stage.postgres.user
        for pid in victims:
            await asyncio.to_thread(limit_files, pid, FULL_DISK_BYTES, user=user)
        await asyncio.sleep(blow.for_s)
        for pid in victims:
            await asyncio.to_thread(limit_files, pid, "unlimited", user=user)


def _there(part: T | None) -> T:
    assert part is not None, "this topology has none"
    return part


def _one(several: Sequence[T], blow: Blow) -> T:
    return several[blow.target % len(several)]
