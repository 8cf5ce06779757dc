"""Reputation: each way of farming, washing or poisoning a name, and what honest work is worth beside it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import pytest

from comptoir.hosts import DONE, FAILED, LOST, Fleet
from comptoir.hosts.reputation import (
    GROUP_MAX,
    GROUPS,
    MERIT_UUSD,
    PROVEN,
    START,
    Reputation,
    group_of,
)
from comptoir.hosts.testing import make_fleet, make_row
from comptoir.kit.clock import FakeClock
from tests.rooms.hosts.test_fleet import ONE, TWO

OWNER = b"owner" + bytes(11)
BUYERS = [
    next(id_ for n in range(10_000, 20_000) if group_of(id_ := n.to_bytes(16, "big")) == group)
    for group in range(GROUPS)
]
"""A buyer of each group."""
ONCE, OFTEN = 1, 400


def fleet() -> Fleet:
    return make_fleet(make_row(owner_id=OWNER), make_row(n=2))


def score(fleet: Fleet, host_id: bytes = ONE) -> float:
    return fleet.explain_reputation(host_id).score


def after(jobs: Iterator[tuple[str, bytes, int, int]]) -> float:
    """Return the reputation after jobs: outcome, buyer, units, pay."""
    known = fleet()
    for outcome, buyer, tokens, paid_uusd in jobs:
        known.outcome(ONE, outcome, buyer=buyer, tokens=tokens, paid_uusd=paid_uusd)
    assert known.get(ONE).candidates["m"].reputation == pytest.approx(score(known), rel=0.06)
    return score(known)


@dataclass(frozen=True)
class Way:
    """A way to a name."""

    what: str
    jobs: Callable[[], Iterator[tuple[str, bytes, int, int]]]
    least: float
    most: float


def all_of(*each: Iterator[tuple[str, bytes, int, int]]) -> Iterator[tuple[str, bytes, int, int]]:
    for jobs in each:
        yield from jobs


def many(
    count: int, outcome: str, buyers: list[bytes], *, tokens: int = 5, paid_uusd: int = MERIT_UUSD
) -> Iterator[tuple[str, bytes, int, int]]:
    return ((outcome, buyers[n % len(buyers)], tokens, paid_uusd) for n in range(count))


ONE_BUYER = (1 + GROUP_MAX) / (4 + GROUP_MAX)
BEST = (1 + GROUPS * GROUP_MAX) / (4 + GROUPS * GROUP_MAX)
RUINED_BY_ONE = (1 + (GROUPS - 1) * GROUP_MAX) / (4 + GROUPS * GROUP_MAX)

WAYS = (
    Way("free jobs", lambda: many(OFTEN, DONE, BUYERS, paid_uusd=0), START, START),
    Way("jobs of its own owner", lambda: many(OFTEN, DONE, [OWNER]), START, START),
    Way("jobs that it buys itself", lambda: many(OFTEN, DONE, [ONE]), START, START),
    Way("empty answers", lambda: many(OFTEN, DONE, BUYERS, tokens=0, paid_uusd=0), START, START),
    Way("one friend's jobs", lambda: many(OFTEN, DONE, BUYERS[:1]), ONE_BUYER, ONE_BUYER),
    Way("a friend's jobs of a micro-dollar", lambda: many(MERIT_UUSD, DONE, BUYERS[:1], paid_uusd=1), 0.39, 0.41),
    Way("one dear job counts as one", lambda: many(ONCE, DONE, BUYERS, paid_uusd=10**9), 0.39, 0.41),
    Way("paid work for many", lambda: many(OFTEN, DONE, BUYERS), BEST, BEST),
    Way("paid work for many, and one in fifty fails",
        lambda: all_of(*(all_of(many(49, DONE, BUYERS), many(1, FAILED, [buyer])) for buyer in BUYERS)), 0.9, BEST),
    Way("free work for many, and one in fifty fails",
        lambda: all_of(*(all_of(many(49, DONE, BUYERS, paid_uusd=0), many(1, FAILED, [buyer])) for buyer in BUYERS)),
        0.1, START),
    Way("one in two fails", lambda: all_of(*(all_of(many(1, DONE, [b]), many(1, FAILED, [b])) for b in BUYERS * 9)),
        0.2, 0.5),
    Way("poisoned by one buyer for ever", lambda: all_of(many(OFTEN, DONE, BUYERS), many(OFTEN, LOST, BUYERS[:1])),
        RUINED_BY_ONE, RUINED_BY_ONE),
    Way("poisoned by one buyer, unknown before", lambda: many(OFTEN, LOST, BUYERS[:1]), 1 / 8, 1 / 8),
    Way("farmed with every group, then a loss for each", lambda: all_of(many(OFTEN, DONE, BUYERS), many(16, LOST, BUYERS)),
        0, PROVEN),
    Way("farmed with a friend, then three failures", lambda: all_of(many(OFTEN, DONE, BUYERS[:1]), many(3, FAILED, BUYERS[1:])),
        0, PROVEN),
    Way("washed with free jobs of all groups", lambda: all_of(many(32, FAILED, BUYERS), many(OFTEN, DONE, BUYERS, paid_uusd=0)),
        0.24, START),
    Way("washed with empty answers", lambda: all_of(many(32, FAILED, BUYERS), many(OFTEN, DONE, BUYERS, tokens=0, paid_uusd=0)),
        0, 0.02),
    Way("washed with his own paid jobs", lambda: all_of(many(32, FAILED, BUYERS), many(OFTEN, DONE, [OWNER])), 0, 0.02),
)  # fmt: skip


class TestWays:
    @pytest.mark.parametrize("way", WAYS, ids=lambda way: way.what)
    def test_it_is_worth_no_more_and_no_less(self, way: Way) -> None:
        assert way.least - 1e-9 <= after(way.jobs()) <= way.most + 1e-9

    def test_his_own_jobs_tell_an_owner_which_of_his_machines_is_broken(self) -> None:
        assert after(many(2, LOST, [OWNER])) < START
        assert after(all_of(many(2, LOST, [OWNER]), many(30, DONE, [OWNER]))) == pytest.approx(START, abs=0.01)


class TestSiblings:
    def test_names_in_reserve_stand_where_the_first_one_stands(self) -> None:
        other = bytes(15) + b"\x03"
        known = make_fleet(make_row(owner_id=OWNER), make_row(n=2, owner_id=OWNER), make_row(n=3, owner_id=OWNER))
        known.outcome(other, DONE, buyer=BUYERS[0], tokens=1)

        for buyer in BUYERS[:3]:
            known.outcome(ONE, FAILED, buyer=buyer)

        assert score(known, TWO) == score(known) < START and known.get(TWO).candidates["m"].reputation < START
        assert score(known, other) == START and {ONE, TWO} <= known.changed

    def test_but_not_what_his_own_jobs_say(self) -> None:
        known = make_fleet(make_row(owner_id=OWNER), make_row(n=2, owner_id=OWNER))

        known.outcome(ONE, LOST, buyer=OWNER)

        assert score(known, TWO) == START > score(known)

    def test_nor_those_of_others(self) -> None:
        known = fleet()

        known.outcome(ONE, LOST, buyer=BUYERS[0])
        known.outcome(TWO, LOST, buyer=BUYERS[0])
        known.remove(ONE)
        known.outcome(TWO, LOST, buyer=BUYERS[1])

        assert score(known, TWO) == pytest.approx(1 / 12)


class TestStored:
    def test_it_is_read_as_it_was(self) -> None:
        reputation = Reputation()
        for n, outcome in enumerate((DONE, DONE, LOST, FAILED)):
            reputation.note(outcome, 10**12, buyer=BUYERS[n], paid_uusd=50)
        reputation.note(LOST, 10**12, buyer=OWNER, own=True)

        again = Reputation.stored(1000, 10_000, 10**12, reputation.evidence)

        assert (again.groups, again.good, again.bad) == (reputation.groups, 1, 10)

    @pytest.mark.parametrize(
        ("stored", "good", "bad"),
        [((20_000, 6_000, 5, None), GROUP_MAX, 6), ((0, 0, 0, None), 0, 0), ((1_000, 0, 5, None), 1, 0)],
        ids=["much of it", "none", "little"],
    )
    def test_of_an_earlier_version_the_good_weighs_as_one_group(
        self, stored: tuple[int, int, int, bytes | None], good: float, bad: float
    ) -> None:
        reputation = Reputation.stored(*stored)

        assert (reputation.good, reputation.bad) == (good, bad)

    def test_what_an_earlier_version_added_meanwhile_is_kept(self) -> None:
        reputation, half_life_ms = Reputation(), 14 * 86_400_000
        reputation.note(DONE, 10**12, buyer=BUYERS[0], paid_uusd=100)

        again = Reputation.stored(1_500, 2_000, 10**12 + half_life_ms, reputation.evidence)

        assert (again.good, again.bad) == (pytest.approx(1.5), 2)
        assert again.groups[group_of(BUYERS[0])] == (pytest.approx(0.5), 0)

    def test_it_is_small_however_many_buyers_there_were(self) -> None:
        reputation = Reputation()
        for n in range(10_000):
            reputation.note(DONE if n % 3 else LOST, 1, buyer=n.to_bytes(16, "big"), paid_uusd=100)

        assert len(reputation.groups) <= GROUPS and len(reputation.evidence or b"") < 200
        assert reputation.good + reputation.bad <= GROUPS * GROUP_MAX + 1e-6

    def test_groups_are_the_same_for_ever(self) -> None:
        """They are stored by number."""
        assert [group_of(n.to_bytes(16, "big")) for n in range(8)] == GROUPS_OF_THE_FIRST_EIGHT
        assert msgspec.msgpack.decode(Reputation(groups={3: (1.0, 2.0)}, at_ms=7).evidence or b"") == [
            7, {3: [1000, 2000]}
        ]  # fmt: skip


GROUPS_OF_THE_FIRST_EIGHT = [5, 3, 9, 15, 12, 10, 0, 6]


class TestFading:
    def test_it_is_worked_out_rarely_and_exactly(self) -> None:
        clock, known = FakeClock(), fleet()
        reputation = known.get(ONE).reputation
        reputation.note(LOST, clock.now_ms(), buyer=BUYERS[0])
        for _ in range(7):
            clock.advance(seconds=86_400)
            reputation.decay(clock.now_ms())

        assert reputation.bad == pytest.approx(4 / 2**0.5, rel=1e-3)
