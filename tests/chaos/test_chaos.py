"""The short form on one coordinator, and that a plan is its seed's. The long form is `make chaos`."""

import pytest

from tests.chaos import stage
from tests.chaos.episode import run_episode
from tests.chaos.plan import TOPOLOGIES, draw

JOBS = 120
BLOWS = 6
LEASE_S = 1.0
"""Several hosts in a row may stall at an order, and each is given so long: in the long form five times as much."""


class TestPlan:
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    def test_a_seed_gives_the_same_plan_again(self, topology: str) -> None:
        assert draw(7, topology, jobs=50, blows=20) == draw(7, topology, jobs=50, blows=20)

    def test_another_seed_gives_another_plan(self) -> None:
        assert draw(7, "sqlite", jobs=50, blows=20).blows != draw(8, "sqlite", jobs=50, blows=20).blows


class TestEpisode:
    @pytest.mark.slow
    async def test_whatever_is_killed_nothing_is_lost_and_the_books_are_exact(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stage, "LEASE_S", LEASE_S)
        outcome = await run_episode(draw(10, "sqlite", jobs=JOBS, blows=BLOWS))

        assert [str(violation) for violation in outcome.violations] == [], f"everything is in {outcome.folder}"
        assert sum(outcome.struck.values()) == BLOWS
        assert outcome.kills > 0
