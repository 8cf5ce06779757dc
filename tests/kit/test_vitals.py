"""Vital signs: a check never keeps anybody waiting longer than its cap, and asks its probe no more than it must."""

import asyncio

from comptoir.kit.vitals import HealthCheck, LoopLag
from tests.at_once import at_once


class Probe:
    """Counts how often it was asked; answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.asked += 1
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error


class TestCheck:
    async def test_a_fresh_finding_is_reused(self) -> None:
        probe = Probe()
        check = HealthCheck(probe, fresh_s=60, cap_s=1)

        assert (await check.read()).healthy
        assert (await check.read()).healthy
        assert probe.asked == 1

    async def test_a_finding_of_some_age_is_reused_while_it_is_looked_at_anew(self) -> None:
        probe = Probe()
        check = HealthCheck(probe, fresh_s=60, cap_s=1)
        await check.read()
        probe.may_answer.clear()
        probe.error = RuntimeError("gone")

        check._at_s -= 31
        async with at_once():
            assert (await check.read()).healthy
            assert (await check.read()).healthy
        probe.may_answer.set()
        for _ in range(10):
            await asyncio.sleep(0)

        assert not (await check.read()).healthy
        assert probe.asked == 2

    async def test_many_askers_share_one_probe(self) -> None:
        probe = Probe()
        check = HealthCheck(probe, fresh_s=60, cap_s=1)

        found = await asyncio.gather(*(check.read() for _ in range(50)))

        assert all(one.healthy for one in found)
        assert probe.asked == 1

    async def test_an_error_is_a_finding(self) -> None:
        probe = Probe()
        probe.error = RuntimeError("secret")
        found = await HealthCheck(probe, fresh_s=60, cap_s=1).read()

        assert (found.healthy, found.words) == (False, "RuntimeError")

    async def test_a_probe_that_hangs_costs_the_cap_once_and_is_not_started_again(self) -> None:
        probe = Probe()
        probe.may_answer.clear()
        check = HealthCheck(probe, fresh_s=0, cap_s=0.2)

        assert not (await check.read()).healthy
        async with at_once():
            for _ in range(100):
                assert not (await check.read()).healthy
        assert probe.asked == 1

    async def test_it_is_healthy_again_when_the_probe_comes_back(self) -> None:
        probe = Probe()
        probe.may_answer.clear()
        check = HealthCheck(probe, fresh_s=0, cap_s=0.01)
        assert not (await check.read()).healthy

        probe.may_answer.set()
        for _ in range(10):
            await asyncio.sleep(0)

        assert (await check.read()).healthy


class TestLoopLag:
    async def test_a_blocked_loop_shows(self) -> None:
        lag = LoopLag()
        loop = asyncio.get_running_loop()

        due_s = loop.time() - 0.5
        lag._sample(loop, due_s)
        lag.stop()

        assert 0.5 <= lag.last_s <= loop.time() - due_s
        assert lag.worst_s == lag.last_s and lag.samples == 1
