"""A worker of a trading post with several coordinators: it moves on at once, with everything it holds."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from comptoir.link import Bye, Frame
from comptoir.worker import link_watch, uplink
from comptoir.worker.events import Reconnecting
from tests.worker.conftest import JoinWorker
from tests.worker.coordinator_stand_in import Attempt, Coordinator, make_job, serve
from tests.worker.scripted_engine import ScriptedEngine, answer


@pytest_asyncio.fixture
async def other() -> AsyncIterator[Coordinator]:
    async with serve(Coordinator()) as running:
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be as patient as the real thing in proportion, ten times as fast."""
    for name in ("TICK_S", "PING_AFTER_S", "LINK_SILENT_S"):
        monkeypatch.setattr(link_watch, name, getattr(link_watch, name) / 10)
    monkeypatch.setattr(uplink, "STEADY_AFTER_S", uplink.STEADY_AFTER_S / 10)
    monkeypatch.setattr(uplink, "CONNECT_SOON_S", uplink.CONNECT_SOON_S / 10)


async def linked(coordinator: Coordinator) -> None:
    async with asyncio.timeout(5):
        await coordinator.connected.wait()


async def begun(coordinator: Coordinator, number: int = 1) -> Attempt:
    """Give a job and wait for its first frame."""
    attempt = await coordinator.push(make_job(number))
    async with asyncio.timeout(5):
        await attempt.grew.wait()
    return attempt


def take_over(attempt: Attempt, other: Coordinator) -> Attempt:
    """Let *other* have the job, as it would read it from the database: with no frame of it."""
    return other.submit(attempt.job)


class TestLostLink:
    async def test_the_answer_goes_on_at_the_next_address(
        self, coordinator: Coordinator, other: Coordinator, join: JoinWorker
    ) -> None:
        gate = asyncio.Event()
        async with join(ScriptedEngine(Frame("a"), gate, *answer("b")), others=[other]):
            there = take_over(await begun(coordinator), other)
            coordinator.handshake_status = 503
            coordinator.cut()
            await linked(other)
            gate.set()
            async with asyncio.timeout(5):
                await there.closed.wait()

        assert other.violations == []
        assert there.text == "ab"

    async def test_it_is_there_within_fifty_milliseconds(
        self, coordinator: Coordinator, other: Coordinator, join: JoinWorker
    ) -> None:
        async with join(ScriptedEngine(), others=[other]) as half:
            coordinator.cut()
            await linked(other)

            assert [event.in_s for event in half.of(Reconnecting)] == [0.0]
        assert coordinator.connections == 1

    async def test_goodbye_leads_to_the_next_after_its_time(
        self, coordinator: Coordinator, other: Coordinator, join: JoinWorker
    ) -> None:
        async with join(ScriptedEngine(), others=[other]) as half:
            await coordinator.send(Bye("restarting", 0.02))
            await linked(other)

            assert [event.in_s for event in half.of(Reconnecting)] == [0.02]

    async def test_one_that_refuses_is_passed_over(
        self, coordinator: Coordinator, other: Coordinator, join: JoinWorker
    ) -> None:
        coordinator.handshake_status = 503
        async with join(ScriptedEngine(), others=[other], wait=False) as half:
            await linked(other)

            assert len(half.of(Reconnecting)) == 1

    async def test_the_drain_is_said_at_the_new_one_too(
        self, coordinator: Coordinator, other: Coordinator, join: JoinWorker
    ) -> None:
        async with join(ScriptedEngine(), others=[other]) as half:
            half.uplink.drain()
            coordinator.cut()
            async with asyncio.timeout(5):
                while other.drains < 1:
                    await asyncio.sleep(0.001)


@pytest.mark.usefixtures("quick")
class TestSilentCoordinator:
    async def test_a_stopped_one_is_left_with_its_answers(
        self, coordinator: Coordinator, other: Coordinator, join: JoinWorker
    ) -> None:
        gate = asyncio.Event()
        async with join(ScriptedEngine(Frame("a"), gate, *answer("b")), others=[other]) as half:
            there = take_over(await begun(coordinator), other)
            stopped = time.monotonic()
            coordinator.freeze()
            await linked(other)
            took_s = time.monotonic() - stopped
            gate.set()
            async with asyncio.timeout(5):
                await there.closed.wait()

            assert "silent" in half.of(Reconnecting)[0].why
        assert there.text == "ab"
        # A tenth of the real bound, the fixture's, with as much again for a busy machine.
        assert took_s < 2 * link_watch.LINK_SILENT_S + 1.0
        coordinator.thaw()

    async def test_one_that_takes_connections_and_says_nothing_is_passed_over(
        self, coordinator: Coordinator, other: Coordinator, join: JoinWorker
    ) -> None:
        coordinator.freeze()
        async with join(ScriptedEngine(), others=[other], wait=False):
            await linked(other)
        coordinator.thaw()

    async def test_a_quiet_one_that_answers_pings_is_kept(
        self, coordinator: Coordinator, other: Coordinator, join: JoinWorker
    ) -> None:
        async with join(ScriptedEngine(), others=[other]) as half:
            await asyncio.sleep(2 * link_watch.LINK_SILENT_S)

            assert half.of(Reconnecting) == []
        assert (coordinator.connections, other.connections) == (1, 0)

    async def test_a_worker_that_was_held_up_itself_keeps_its_link(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        """A loaded machine, or this process stopped for a while: silence of our own making is no sign of death."""
        async with join(ScriptedEngine()) as half:
            for _ in range(3):
                time.sleep(1.5 * link_watch.LINK_SILENT_S)  # noqa: ASYNC251 - the held-up loop is what is tested.
                await asyncio.sleep(link_watch.TICK_S)

            assert half.of(Reconnecting) == []
        assert coordinator.connections == 1
