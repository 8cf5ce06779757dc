"""Attribution: for all that can happen to an answer, whose fault is stored, whose reputation moves, who is paid, how it
ends.

The table is the one in docs/lifecycle.md; a test compares the two.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from comptoir.dispatch import expire, watch
from comptoir.dispatch.cancel import cancel, hang_up
from comptoir.dispatch.errors import AnswerTooLarge, BadSegment
from comptoir.dispatch.expire import sweep
from comptoir.dispatch.stream import complete, fail, take_frames
from comptoir.jobs import Fault, LiveJob
from comptoir.link import Frame, Usage
from comptoir.reports import audit
from tests.dispatch.continuing import lease_of, lost
from tests.street import GOES_ON, FakeChannel, Street, deliver, open_street

DOCS = Path(__file__).parents[2] / "docs" / "lifecycle.md"


@dataclass
class Scene:
    """A host has delivered two tokens of an answer, and another that could go on with it is free."""

    street: Street
    folder: Path
    job: LiveJob
    host_id: bytes
    spare: bytes
    channels: dict[bytes, FakeChannel]
    before: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)

    def outcomes(self, host_id: bytes) -> tuple[int, int, int]:
        stored = self.street.core.fleet.get(host_id).stored()
        return stored.jobs_done, stored.jobs_failed, stored.jobs_lost

    async def silent(self, seconds: float) -> None:
        self.street.clock.advance(seconds=seconds)
        for host in self.street.core.fleet:
            if host.id in self.street.core.channels:
                self.street.core.fleet.seen(host.id)
        await sweep(self.street.core)


Act = Callable[[Scene], Awaitable[None]]


# -- what happens ------------------------------------------------------------------------------------------------


async def answered(scene: Scene) -> None:
    await complete(scene.street.core, scene.job, finish_reason="stop", usage=Usage(0, 2))


async def cancelled(scene: Scene) -> None:
    await cancel(scene.street.core, scene.job)


async def hung_up(scene: Scene) -> None:
    hang_up(scene.street.core, scene.job)
    await scene.street.core.background.drain_tasks()


def failing(code: str, fault: Fault) -> Act:
    async def act(scene: Scene) -> None:
        await fail(scene.street.core, scene.job, code=code, message="as it says", fault=fault)

    return act


async def refused_by_both(scene: Scene) -> None:
    for _ in range(2):
        await failing("bad_request", Fault.BUYER)(scene)


async def refused_by_the_only_one(scene: Scene) -> None:
    await scene.street.core.hosts.bar(scene.spare, for_good=True)
    await failing("bad_request", Fault.BUYER)(scene)


async def can_not_go_on(scene: Scene) -> None:
    """The spare host is the one in question: the first is lost to it."""
    await lost(scene.street, scene.job)
    scene.host_id, scene.before[scene.spare] = scene.spare, scene.outcomes(scene.spare)
    await scene.street.host(offer=GOES_ON)
    await fail(scene.street.core, scene.job, code="cannot_continue", message="no", fault=Fault.COORDINATOR)


async def fell_silent(scene: Scene) -> None:
    await scene.silent(10)


async def dropped(scene: Scene) -> None:
    scene.street.unlink(scene.host_id)
    watch.link_dropped(scene.street.core, scene.host_id)
    await scene.silent(0.5)


async def came_back_empty(scene: Scene) -> None:
    from_it = lease_of(scene.job)
    await watch.revoke_lease(
        scene.street.core, scene.job, from_it, "it came back without", fault=Fault.HOST, again=True
    )


async def too_much(scene: Scene) -> None:
    core, job = scene.street.core, scene.job
    with pytest.raises(AnswerTooLarge) as large:
        take_frames(core, job, 2, [Frame("x", 1_000_000)])
    await fail(core, job, code="answer_too_large", message=str(large.value), fault=Fault.HOST)


async def other_hash(scene: Scene) -> None:
    with pytest.raises(BadSegment):
        await complete(scene.street.core, scene.job, finish_reason="stop", usage=Usage(1, 2), running_hash=b"c" * 32)


async def too_late(scene: Scene) -> None:
    scene.street.clock.advance(seconds=scene.street.core.settings.job_ttl_s)
    await sweep(scene.street.core)


async def nobody_free(scene: Scene) -> None:
    """The wait is what is looked at, not the loss that began it."""
    scene.street.core.fleet.reserve(scene.spare, "m")
    await lost(scene.street, scene.job)
    scene.before[scene.host_id] = scene.outcomes(scene.host_id)
    await scene.silent(scene.street.core.settings.broken_wait_s + 1)
    scene.street.core.fleet.release(scene.spare)


async def all_silent(scene: Scene) -> None:
    street = scene.street
    scene.street.core.fleet.reserve(scene.spare, "m")
    others = []
    for _ in range(4):
        await street.host(offer=GOES_ON)
        others.append(await street.submit(max_tokens=10))
        deliver(street.core, others[-1], 1)
    scene.street.core.fleet.release(scene.spare)
    lease_of(scene.job).touched_s = street.clock.monotonic_s()
    await scene.silent(10)
    for job in others:
        await cancel(street.core, job)


async def stood_still(scene: Scene) -> None:
    """The sweep comes ten seconds late, as after SIGSTOP of the coordinator."""
    sweeping = asyncio.create_task(expire.sweep_forever(scene.street.core))
    await asyncio.sleep(0)
    scene.street.clock.advance(seconds=10)
    commits = scene.street.core.db.stats.commits
    async with asyncio.timeout(10):
        while lease_of(scene.job).touched_s < scene.street.clock.monotonic_s() - 1:
            await asyncio.sleep(0.01)
    sweeping.cancel()
    assert scene.street.core.db.stats.commits == commits


async def restarted(scene: Scene) -> None:
    """Done by the scene itself, which opens the house again."""


async def frames_gone(scene: Scene) -> None:
    await fail(scene.street.core, scene.job, code="frames_gone", message="gone", fault=Fault.COORDINATOR)


NEXT = "continues on the next host, else failed"
PART, NOTHING = "its part", "nothing"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    act: Act
    fault: str
    """As stored with the attempt, or with the job where that ends."""
    reputation: str
    """What the host in question is taken for; "–": nothing moves."""
    ends: str
    earns: str
    attached: bool = False
    again: bool = False
    """The house is closed and opened again before the act."""

    def cells(self) -> str:
        """Return the line as the documentation has it."""
        return f"| {self.what} | {self.fault} | {self.reputation} | {self.ends} | {self.earns} |"


TABLE = (
    Row("answered", answered, "–", "done", "completed", PART),
    Row("the buyer cancels", cancelled, "buyer", "–", "cancelled", PART),
    Row("the client of an attached job disconnects", hung_up, "buyer", "–", "cancelled", PART, attached=True),
    Row("the engine says the request is bad, and another host answers it", failing("bad_request", Fault.BUYER),
        "buyer", "failed", NEXT, NOTHING),
    Row("the engine says the request is bad, and another host's says so too", refused_by_both, "buyer", "–", "failed",
        NOTHING),
    Row("the engine says the request is bad, and there is no other host", refused_by_the_only_one, "buyer", "–",
        "failed", NOTHING),
    Row("the engine or worker fails", failing("engine_failed", Fault.HOST), "host", "failed", NEXT, PART),
    Row("the engine says it is busy (429, 503)", failing("engine_busy", Fault.CAPACITY), "capacity", "–", NEXT, PART),
    Row("the engine can't continue another host's frames", can_not_go_on, "–", "–", NEXT, NOTHING),
    Row("the host is silent for longer than is normal for it", fell_silent, "host", "lost", NEXT, PART),
    Row("its link drops and does not come back in time", dropped, "host", "lost", NEXT, PART),
    Row("its link comes back without the job", came_back_empty, "host", "lost", NEXT, PART),
    Row("it sends more text or tokens than the job may have", too_much, "host", "failed", NEXT, PART),
    Row("its signature or running hash does not match the frames", other_hash, "host", "failed", NEXT, NOTHING),
    Row("nobody finished it before its deadline", too_late, "capacity", "–", "expired", PART),
    Row("all hosts that could continue stay busy for `broken_wait_s`", nobody_free, "capacity", "–", "failed", PART),
    Row("most hosts fall silent at once", all_silent, "–", "–", "stays with its host", PART),
    Row("the coordinator hung", stood_still, "–", "–", "stays with its host", PART),
    Row("the coordinator restarted under an attached job", restarted, "coordinator", "–", "failed", NOTHING, True, True),
    Row("the coordinator restarted, and the worker no longer has the frames", frames_gone, "coordinator", "–",
        "restarts", NOTHING, again=True),
    Row("the job came too late, or with a wrong prefix", failing("deadline", Fault.COORDINATOR), "coordinator", "–",
        "failed", PART),
)  # fmt: skip


@asynccontextmanager
async def opened(folder: Path, row: Row) -> AsyncIterator[Scene]:
    """Set the scene of *row*."""
    async with open_street(folder) as street:
        host_id, channel = await street.host(offer=GOES_ON)
        job = await street.submit(max_tokens=10, detached=not row.attached)
        spare, other = await street.host(offer=GOES_ON)
        deliver(street.core, job, 2)
        scene = Scene(street, folder, job, host_id, spare, {host_id: channel, spare: other})
        scene.before = {each: scene.outcomes(each) for each in (host_id, spare)}
        if not row.again:
            yield scene
            return
    async with open_street(folder, buyer=street.buyer_id) as again:
        again.link(spare, FakeChannel())
        live = again.core.jobs.live.get(job.id)
        yield Scene(again, folder, live or job, host_id, spare, scene.channels, scene.before)


async def stored_fault(scene: Scene) -> str:
    """Return the fault of the host's attempt, or of the job where that ended otherwise than well."""
    row = await scene.street.core.jobs.get(scene.job.id)
    attempts = await scene.street.core.jobs.attempts(scene.job.id)
    of_attempt = next(each.fault for each in reversed(attempts) if each.host_id == scene.host_id)
    return (row.fault if row.state not in ("running", "queued") else of_attempt) or "–"


class TestTable:
    @pytest.mark.parametrize("row", TABLE, ids=lambda row: row.what)
    async def test_it_is_what_happens(self, tmp_path: Path, row: Row) -> None:
        async with opened(tmp_path, row) as scene:
            core, job = scene.street.core, scene.job
            await row.act(scene)

            fault = await stored_fault(scene)
            state = (await core.jobs.get(job.id)).state
            ends = state
            if state == "running":
                went_on = job.host_id != scene.host_id
                ends = NEXT if went_on and job.frames else "restarts" if job.restarts else "stays with its host"
                deliver(core, job, 1)
                await complete(core, job, finish_reason="stop", usage=Usage(0, 1))
            before, after = scene.before[scene.host_id], scene.outcomes(scene.host_id)
            moved = [name for name, a, b in zip(("done", "failed", "lost"), before, after, strict=True) if b > a]
            if ends == "stays with its host":
                # Its own good end, which this test wrote.
                moved.remove("done")
            earned = (await core.ledger.account(scene.host_id)).balance_uusd

            assert (fault, moved or ["–"], ends) == (row.fault, [row.reputation], row.ends)
            assert (PART if earned else NOTHING) == row.earns
            assert await audit(core.db) == []

    def test_it_is_the_one_in_the_documentation(self) -> None:
        text = DOCS.read_text().split("## Whose fault")[1].split("\n## ")[0]
        told = re.findall(r"^\|.*\|$", text, re.MULTILINE)[2:]

        assert told == [row.cells() for row in TABLE]
