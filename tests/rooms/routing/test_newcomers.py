"""Newcomers: a host that has not proven itself gets a bounded share while proven ones are free, whatever it costs."""

from dataclasses import replace

import msgspec
import pytest

from comptoir.routing import PREFERENCES, Candidate, FreeList, choose, possible, preference_named, rank
from comptoir.routing.testing import give, make_candidate, make_free_list, make_spec, rank_naively, take_back

SPEC = make_spec()
FAKES = 31
TWENTY = 20
TOOLS = frozenset(["tools"])


def proven(n: int = 1000, **named: int) -> Candidate:
    return make_candidate(n=n, reputation=0.9, **named)


def newcomers(count: int, *, price: int = 0, slots: int = 4) -> list[Candidate]:
    return [
        replace(make_candidate(n=n + 1, price=price, slots=slots, reputation=0.25), group=b"%d" % n)
        for n in range(count)
    ]


def given(free: FreeList, jobs: int, name: str = "cheapest") -> list[bool]:
    """Give *jobs*, each ended before the next; say of each whether a newcomer got it."""
    got = []
    for _ in range(jobs):
        candidate = choose(SPEC, free, preference_named(name))
        assert candidate is not None
        give(free, candidate)
        take_back(free, candidate)
        got.append(not candidate.proven)
    return got


class TestShare:
    @pytest.mark.parametrize("name", PREFERENCES)
    def test_under_every_strategy_at_most_one_job_in_twenty_goes_to_newcomers(self, name: str) -> None:
        free = make_free_list([proven(), *newcomers(FAKES)])

        got = given(free, 20 * TWENTY, name)

        assert sum(got) <= 20
        assert sum(got[: TWENTY - 1]) == 0

    def test_a_cheap_one_gets_its_share_and_a_dear_one_has_to_be_the_best_choice_first(self) -> None:
        assert sum(given(make_free_list([proven(), *newcomers(3)]), 10 * TWENTY)) == 10
        assert sum(given(make_free_list([proven(), *newcomers(3, price=10**9)]), 10 * TWENTY)) == 0

    def test_who_failed_more_than_he_answered_is_no_newcomer_any_more(self) -> None:
        tried = replace(make_candidate(n=1, price=0, reputation=0.12), group=b"tried")
        free = make_free_list([proven(), tried])
        assert sum(given(free, 10 * TWENTY)) == 0

        free.add(replace(make_candidate(n=2, price=5, reputation=0.25), group=b"new"))
        assert sum(given(free, 10 * TWENTY)) == 10 and tried.picks == 0

    def test_it_gets_what_no_proven_host_is_free_for(self) -> None:
        busy = proven(slots=1)
        free = make_free_list([busy, *newcomers(1)])
        give(free, busy)

        assert given(free, 5) == [True] * 5
        take_back(free, busy)
        assert given(free, TWENTY - 1) == [False] * (TWENTY - 1)

    def test_where_nobody_is_proven_the_strategy_alone_decides(self) -> None:
        free = make_free_list([make_candidate(n=1, price=9, reputation=0.49), *newcomers(3)[1:]])

        assert [each.candidate.order for each in rank(SPEC, free, preference_named("cheapest"), limit=3)] == [2, 3, 1]

    def test_who_proves_itself_or_fails_changes_sides_at_once(self) -> None:
        first, second = proven(n=1, price=5), make_candidate(n=2, price=1, reputation=0.25)
        free = make_free_list([first, second])
        cheapest = preference_named("cheapest")
        assert choose(SPEC, free, cheapest) is first

        second.reputation = 0.5
        free.moved(second)
        assert choose(SPEC, free, cheapest) is second
        second.reputation = 0.49
        free.moved(second)
        assert choose(SPEC, free, cheapest) is first

    @pytest.mark.parametrize("able_is_new", [False, True])
    @pytest.mark.parametrize("limit", [1, 2])
    def test_at_their_turn_too_a_host_that_is_able_comes_before_a_cheaper_one(
        self, able_is_new: bool, limit: int
    ) -> None:
        """Then proven hosts and newcomers stand in one line, and a word for what is asked still counts more in it."""
        able = replace(newcomers(1, price=900)[0] if able_is_new else proven(price=900), able=TOOLS)
        unknown = proven(price=100) if able_is_new else newcomers(1, price=100)[0]
        free = make_free_list([able, unknown])
        for _ in range(TWENTY - 1):
            free.took(unknown if able_is_new else able)
        assert free.explores

        spec = msgspec.structs.replace(SPEC, capabilities=TOOLS)
        found = [each.candidate for each in rank(spec, free, preference_named("cheapest"), limit=limit)]

        assert found == [able, unknown][:limit]

    def test_what_is_ranked_equals_looking_at_every_host_at_every_turn(self) -> None:
        free = make_free_list([proven(n=100, price=7), proven(n=101, price=3), *newcomers(5, price=4)])
        for _ in range(3 * TWENTY):
            for name in ("cheapest", "round_robin", "balanced"):
                preference = preference_named(name)
                for spec in (
                    SPEC,
                    msgspec.structs.replace(SPEC, proven=True),
                    msgspec.structs.replace(SPEC, tried_groups=frozenset([b"0", b"3"])),
                ):
                    found = [each.candidate for each in rank(spec, free, preference, limit=4)]
                    assert found == rank_naively(spec, free, preference, limit=4)
            given(free, 1)


class TestAttempts:
    def test_a_job_that_may_go_to_proven_hosts_only_waits_for_them(self) -> None:
        busy = proven(slots=1)
        free = make_free_list([busy, *newcomers(3)])
        give(free, busy)
        spec = msgspec.structs.replace(SPEC, proven=True)

        assert choose(spec, free, preference_named("cheapest")) is None
        assert possible(spec, free)
        free.remove(busy.host_id)
        assert not possible(spec, free)
        assert possible(SPEC, free)

    def test_a_group_that_has_tried_it_is_passed_over_but_for_its_proven_hosts(self) -> None:
        one, other = newcomers(2)
        veteran = replace(proven(price=9), group=one.group)
        free = make_free_list([one, other, veteran])
        spec = msgspec.structs.replace(SPEC, tried_groups=frozenset([one.group]))

        found = [each.candidate for each in rank(spec, free, preference_named("cheapest"), limit=3)]

        assert found == [veteran, other]
