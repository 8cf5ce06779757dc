"""What containers say of themselves comes to the coordinator: on every connection, on change, and when it asks."""

import asyncio
from collections.abc import Awaitable, Callable

from comptoir.link import Inquire, ModelOffer, Report, Resources
from comptoir.worker.resource_reporter import INQUIRIES_MAX, ResourceReporter
from tests.worker.conftest import Half, JoinWorker
from tests.worker.coordinator_stand_in import Coordinator
from tests.worker.scripted_engine import ScriptedEngine


class TellingEngine(ScriptedEngine):
    """An engine of containers that says what a test wants."""

    def __init__(self) -> None:
        super().__init__(models=[ModelOffer("a", ["container"])])
        self.said: dict[str, bytes] = {"a": b'{"v":1}'}
        self.supporting: Callable[[str, str], Awaitable[bytes]] = self._yes

    async def resources(self) -> dict[str, bytes]:
        return dict(self.said)

    async def supports(self, container: str, model_id: str) -> bytes:
        return await self.supporting(container, model_id)

    async def _yes(self, container: str, model_id: str) -> bytes:
        return f"{container}:{model_id}".encode()


async def linked(half: Half, engine: TellingEngine) -> None:
    half.uplink.telling.offer({"a": engine})
    await half.uplink.telling.refresh()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


class TestResources:
    async def test_they_are_said_when_known_and_when_they_change(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        engine = TellingEngine()
        async with join(engine) as half:
            await linked(half, engine)
            await until(lambda: len(coordinator.resources) == 1)
            await half.uplink.telling.refresh()
            engine.said = {}
            await half.uplink.telling.refresh()
            await until(lambda: len(coordinator.resources) == 2)

        assert coordinator.resources == [{"a": b'{"v":1}'}, {}]

    async def test_every_new_connection_hears_them(self, coordinator: Coordinator, join: JoinWorker) -> None:
        engine = TellingEngine()
        async with join(engine) as half:
            await linked(half, engine)
            await until(lambda: len(coordinator.resources) == 1)
            coordinator.cut()
            await until(lambda: len(coordinator.resources) == 2)

        assert coordinator.resources[1] == {"a": b'{"v":1}'}

    async def test_a_worker_without_containers_says_nothing(self) -> None:
        """A coordinator that knows no containers would not know the message."""
        telling = ResourceReporter(wake=lambda: None)
        telling.offer({"trivial": ScriptedEngine()})
        await telling.refresh()
        telling.connected()

        assert telling.take() == []

    async def test_only_the_engine_that_serves_a_container_speaks_for_it(self) -> None:
        one, other = TellingEngine(), TellingEngine()
        one.said = {"a": b"1", "b": b"1"}
        other.said = {"a": b"2", "b": b"2"}
        telling = ResourceReporter(wake=lambda: None)
        telling.offer({"a": one, "b": other})
        await telling.refresh()

        assert telling.take() == [Resources({"a": b"1", "b": b"2"})]


class TestInquiries:
    async def test_a_question_is_answered_with_its_number(self, coordinator: Coordinator, join: JoinWorker) -> None:
        engine = TellingEngine()
        async with join(engine) as half:
            await linked(half, engine)
            await coordinator.send(Inquire(7, "a", "x/y"), Inquire(8, "nobody", "x/y"))
            await until(lambda: len(coordinator.reports) == 2)

        assert sorted(coordinator.reports, key=lambda report: report.inquiry) == [
            Report(7, b"a:x/y"),
            Report(8, b""),
        ]

    async def test_one_too_many_is_answered_at_once_with_nothing(self) -> None:
        engine, gate = TellingEngine(), asyncio.Event()

        async def later(container: str, model_id: str) -> bytes:
            await gate.wait()
            return b"yes"

        engine.supporting = later
        telling = ResourceReporter(wake=lambda: None)
        telling.offer({"a": engine})
        for number in range(INQUIRIES_MAX + 1):
            telling.inquire(Inquire(number, "a", "m"))

        assert telling.take() == [Report(INQUIRIES_MAX, b"")]
        gate.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(telling.take()) == INQUIRIES_MAX
        await telling.close()

    async def test_a_new_connection_gets_no_answer_to_the_last_ones_questions(self) -> None:
        engine, gate = TellingEngine(), asyncio.Event()

        async def later(container: str, model_id: str) -> bytes:
            if model_id == "slow":
                await gate.wait()
            return b"yes"

        engine.supporting = later
        telling = ResourceReporter(wake=lambda: None)
        telling.offer({"a": engine})
        telling.inquire(Inquire(1, "a", "quick"))
        telling.inquire(Inquire(2, "a", "slow"))
        for _ in range(10):
            await asyncio.sleep(0)
        telling.connected()
        gate.set()
        for _ in range(10):
            await asyncio.sleep(0)

        assert telling.take() == []
        await telling.close()

    async def test_an_engine_that_fails_is_an_empty_answer(self) -> None:
        engine = TellingEngine()

        async def broken(container: str, model_id: str) -> bytes:
            raise RuntimeError("a bug")

        engine.supporting = broken
        telling = ResourceReporter(wake=lambda: None)
        telling.offer({"a": engine})
        telling.inquire(Inquire(1, "a", "m"))
        for _ in range(10):
            await asyncio.sleep(0)

        assert telling.take() == [Report(1, b"")]
        await telling.close()
