"""The short form on three coordinators with PostgreSQL, Redis and a balancer. The long form is `make chaos`."""

import pytest

from tests.chaos import stage
from tests.chaos.episode import run_episode
from tests.chaos.plan import draw

JOBS = 100
BLOWS = 4
LEASE_S = 1.0
"""Several hosts in a row may stall at an order, and each is given so long: in the long form five times as much."""


class TestEpisode:
    @pytest.mark.slow
    async def test_whatever_is_killed_nothing_is_lost_and_the_books_are_exact(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stage, "LEASE_S", LEASE_S)
        outcome = await run_episode(draw(3, "cluster", jobs=JOBS, blows=BLOWS))

        assert [str(violation) for violation in outcome.violations] == [], f"everything is in {outcome.folder}"
        assert sum(outcome.struck.values()) == BLOWS
        assert outcome.kills > 0
