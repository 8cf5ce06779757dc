"""The short form on three coordinators with PostgreSQL, Redis and a balancer. The long form is `make chaos`."""

import pytest

from tests.chaos.episode import run_episode
from tests.chaos.plan import draw

JOBS = 100
BLOWS = 4


class TestEpisode:
    @pytest.mark.slow
    async def test_whatever_is_killed_nothing_is_lost_and_the_books_are_exact(self) -> None:
        outcome = await run_episode(draw(3, "cluster", jobs=JOBS, blows=BLOWS))

        assert [str(violation) for violation in outcome.violations] == [], f"everything is in {outcome.folder}"
        assert sum(outcome.struck.values()) == BLOWS
        assert outcome.kills > 0
