"""Pulses come whatever the event loop does."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest_asyncio

from comptoir.link import Pulse, PulseAnswer
from comptoir.worker.addresses import Addresses
from comptoir.worker.pulse import PulseThread
from tests.worker.coordinator_stand_in import HOST_KEY, Coordinator, serve

Start = Callable[..., PulseThread]


@pytest_asyncio.fixture
async def start() -> AsyncIterator[Start]:
    threads: list[PulseThread] = []

    def begin(
        url: str,
        *others: str,
        key: str = HOST_KEY,
        on_answer: Callable[[PulseAnswer], None] = lambda answer: None,
        snapshot: Callable[[], Pulse] = lambda: Pulse(0.5, 3, "GPU", 80),
    ) -> PulseThread:
        addresses = Addresses([url, *others], pick=lambda count: 0)
        thread = PulseThread(addresses=addresses, key=key, pulse_s=0.0, snapshot=snapshot, on_answer=on_answer)
        threads.append(thread)
        thread.start()
        return thread

    yield begin
    for thread in threads:
        thread.stop()
        assert await asyncio.to_thread(thread.join, 6.0)


async def pulses(coordinator: Coordinator, count: int) -> None:
    async with asyncio.timeout(5):
        while len(coordinator.pulses) < count:
            coordinator.pulsed.clear()
            await coordinator.pulsed.wait()


class TestPulseThread:
    async def test_it_says_how_the_host_is(self, coordinator: Coordinator, start: Start) -> None:
        answers: list[PulseAnswer] = []
        start(coordinator.url, on_answer=answers.append)
        await pulses(coordinator, 2)

        assert coordinator.pulses[0] == {"gpu_utilization": 0.5, "running": 3, "gpu": "GPU", "vram_mib": 80}
        assert answers[0] == PulseAnswer(status="acknowledged", linked=True)

    async def test_a_busy_event_loop_does_not_starve_it(self, start: Start) -> None:
        """The coordinator lives on another thread's loop here, and this loop is blocked while two pulses are sent."""
        coordinator = Coordinator()
        ready = threading.Event()
        loop = asyncio.new_event_loop()
        ended = asyncio.Event()

        async def live() -> None:
            async with serve(coordinator):
                ready.set()
                await ended.wait()

        other = threading.Thread(target=lambda: loop.run_until_complete(live()))
        other.start()
        ready.wait(5)
        start(coordinator.url)

        until = time.monotonic() + 5
        while len(coordinator.pulses) < 2 and time.monotonic() < until:
            time.sleep(0.01)  # noqa: ASYNC251 - blocking the loop is the very point of this test.
        counted = len(coordinator.pulses)
        loop.call_soon_threadsafe(ended.set)
        other.join(5)
        loop.close()

        assert counted >= 2

    async def test_a_coordinator_that_restarts_is_found_again(self, start: Start) -> None:
        first = Coordinator()
        async with serve(first):
            url = first.url
            thread = start(url)
            await pulses(first, 1)
        port = int(url.rsplit(":", 1)[1])
        second = Coordinator()
        async with serve(second, port=port):
            await pulses(second, 1)

        assert thread is not None

    async def test_a_bad_snapshot_does_not_stop_it(self, coordinator: Coordinator, start: Start) -> None:
        calls = {"n": 0}

        def snapshot() -> Pulse:
            calls["n"] += 1
            if calls["n"] == 1:
                raise ZeroDivisionError
            return Pulse()

        start(coordinator.url, snapshot=snapshot)

        await pulses(coordinator, 1)

    async def test_a_refused_key_does_not_stop_it(self, coordinator: Coordinator, start: Start) -> None:
        answers: list[PulseAnswer] = []
        asked = threading.Semaphore(0)

        def snapshot() -> Pulse:
            asked.release()
            return Pulse()

        start(coordinator.url, key="wrong", snapshot=snapshot, on_answer=answers.append)
        for _ in range(3):
            assert await asyncio.to_thread(asked.acquire, True, 5.0)

        assert answers == [] and coordinator.pulses == []

    async def test_it_goes_to_another_when_the_links_own_is_down(self, coordinator: Coordinator, start: Start) -> None:
        """The other coordinators hear that the host lives; what they say of its link does not count."""
        answers: list[PulseAnswer] = []
        async with serve(Coordinator()) as gone:
            url = gone.url
        coordinator.linked = False
        start(url, coordinator.url, on_answer=answers.append)
        await pulses(coordinator, 2)

        assert answers == []
