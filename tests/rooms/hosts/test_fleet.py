"""The fleet: who is here, who is free, what is learnt; every list agrees with the hosts at any time."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comptoir.events import EventHub, HostFree, HostOfferChanged
from comptoir.hosts import (
    ACTIVE,
    DONE,
    DRAINING,
    FAILED,
    LOST,
    OFFLINE,
    POLL,
    PUSH,
    Fleet,
    Host,
    HostRow,
    NoFreeSlot,
    UnknownHost,
)
from comptoir.hosts.reputation import MERIT_UUSD
from comptoir.hosts.testing import make_active, make_fleet, make_offer, make_row
from comptoir.kit.clock import FakeClock
from comptoir.link import Pulse
from comptoir.routing import Needs, Spec, choose, passes, preference_named, rank
from comptoir.routing.testing import rank_naively

BALANCED = preference_named("balanced")
ONE, TWO = (n.to_bytes(16, "big") for n in (1, 2))


def chosen(fleet: Fleet, model: str = "m") -> bytes | None:
    hosts = fleet.free_list(model)
    candidate = choose(Spec(model, output_units=10), hosts, BALANCED) if hosts is not None else None
    return candidate.host_id if candidate is not None else None


class TestPresence:
    def test_a_registered_host_is_offline_until_it_is_seen(self) -> None:
        fleet = Fleet(FakeClock())
        fleet.add(make_row(transport=PUSH))
        assert (fleet.get(ONE).status, fleet.active_hosts, chosen(fleet)) == (OFFLINE, 0, None)

        fleet.seen(ONE)

        assert (fleet.get(ONE).status, fleet.active_hosts, chosen(fleet)) == (ACTIVE, 1, ONE)

    def test_a_linked_host_needs_its_link_and_not_only_pulses(self) -> None:
        fleet = Fleet(FakeClock())
        fleet.add(make_row())
        fleet.seen(ONE)
        assert chosen(fleet) is None

        fleet.mark_linked(ONE)
        assert chosen(fleet) == ONE
        fleet.unlinked(ONE)
        assert chosen(fleet) is None and fleet.active_hosts == 0

    def test_a_polling_host_gets_a_job_only_while_it_holds_a_poll(self) -> None:
        fleet = Fleet(FakeClock())
        fleet.add(make_row(transport=POLL, slots=2))
        fleet.seen(ONE)
        assert (fleet.active_hosts, chosen(fleet)) == (1, None)

        fleet.poll_began(ONE)
        assert chosen(fleet) == ONE
        fleet.reserve(ONE, "m")
        assert chosen(fleet) is None
        fleet.poll_began(ONE)
        assert chosen(fleet) == ONE
        fleet.poll_ended(ONE)
        assert chosen(fleet) is None

    def test_a_draining_host_gets_nothing_new_and_keeps_what_it_runs(self) -> None:
        fleet = make_fleet(make_row())
        fleet.reserve(ONE, "m")

        fleet.drain(ONE)

        assert (fleet.get(ONE).status, chosen(fleet), fleet.get(ONE).slots.running) == (DRAINING, None, 1)
        fleet.release(ONE)
        assert chosen(fleet) is None
        fleet.resume(ONE)
        assert chosen(fleet) == ONE

    def test_silence_puts_offline_and_a_sign_of_life_back(self) -> None:
        clock = FakeClock()
        fleet = make_fleet(make_row(n=1), make_row(n=2, transport=PUSH), clock=clock)
        clock.advance(seconds=60)
        fleet.seen(ONE)
        clock.advance(seconds=31)

        assert [host.id for host in fleet.silent()] == [TWO]
        assert fleet.silent() == [] and fleet.active_hosts == 1
        fleet.seen(TWO)
        assert fleet.active_hosts == 2

    def test_among_several_coordinators_a_link_is_a_sign_of_life(self) -> None:
        """The pulses of a host that is linked here may be heard by another, through a balancer."""
        clock = FakeClock()
        fleet = make_fleet(make_row(n=1), make_row(n=2, transport=PUSH), clock=clock)
        fleet.unannounced = set()
        clock.advance(seconds=91)

        assert [host.id for host in fleet.silent()] == [TWO]
        fleet.unlinked(ONE)
        assert fleet.active_hosts == 0

    def test_who_was_away_is_not_given_all_that_was_missed(self) -> None:
        fleet = make_fleet(make_row(n=1), make_row(n=2))
        fleet.unlinked(ONE)
        given = []
        for job in range(30):
            if job == 20:
                fleet.mark_linked(ONE)
            hosts = fleet.free_list("m")
            assert hosts is not None
            candidate = choose(Spec("m"), hosts, preference_named("equal_weighted"))
            assert candidate is not None
            fleet.reserve(candidate.host_id, "m")
            fleet.release(candidate.host_id)
            given.append(candidate.host_id)

        assert given[:20] == [TWO] * 20
        assert 5 <= given[20:].count(ONE) <= 6

    def test_says_when_a_host_can_take_more(self) -> None:
        events = EventHub()
        fleet = Fleet(FakeClock(), events=events)
        told: list[bytes] = []
        events.subscribe(HostFree, lambda event: told.append(event.host_id))

        make_active(fleet, make_row(slots=1))
        assert told == [ONE]
        fleet.reserve(ONE, "m")
        assert told == [ONE]
        fleet.release(ONE)
        assert told == [ONE, ONE]

    def test_says_when_a_host_offers_something_else(self) -> None:
        events, clock = EventHub(), FakeClock()
        fleet = Fleet(clock, events=events)
        told: list[object] = []
        events.subscribe(HostOfferChanged, told.append)

        make_active(fleet, make_row(slots=1))
        fleet.replace_offer(ONE, (make_offer(),), 2)
        fleet.replace_offer(ONE, (make_offer(),), 2)

        assert told == [HostOfferChanged(ONE, clock.now_ms())]

    def test_unknown_hosts_are_refused(self) -> None:
        with pytest.raises(UnknownHost):
            Fleet(FakeClock()).seen(ONE)


class TestReserve:
    def test_never_gives_more_than_there_is(self) -> None:
        fleet = make_fleet(make_row(slots=2))
        fleet.reserve(ONE, "m")
        fleet.reserve(ONE, "m")

        with pytest.raises(NoFreeSlot):
            fleet.reserve(ONE, "m")
        assert fleet.get(ONE).slots.running == 2

    def test_slots_are_shared_by_the_models_of_a_host(self) -> None:
        fleet = make_fleet(make_row(models=(make_offer(name="a"), make_offer(name="b")), slots=1))

        fleet.reserve(ONE, "a")

        assert chosen(fleet, "b") is None
        fleet.release(ONE)
        assert chosen(fleet, "b") == ONE

    def test_refuses_a_model_that_is_not_offered(self) -> None:
        with pytest.raises(NoFreeSlot):
            make_fleet(make_row()).reserve(ONE, "other")

    def test_a_lease_that_outlived_us_is_counted_also_beyond_the_slots(self) -> None:
        fleet = make_fleet(make_row(slots=1))

        fleet.adopt(ONE)
        fleet.adopt(ONE)

        assert chosen(fleet) is None
        fleet.release(ONE)
        assert chosen(fleet) is None
        fleet.release(ONE)
        assert chosen(fleet) == ONE

    def test_releasing_what_was_not_reserved_is_a_bug(self) -> None:
        with pytest.raises(AssertionError):
            make_fleet(make_row()).release(ONE)


class TestReplaceOffer:
    def test_changes_models_prices_and_slots_and_keeps_what_was_measured(self) -> None:
        fleet = make_fleet(make_row(models=(make_offer(name="a"), make_offer(name="b")), slots=1))
        for _ in range(3):
            fleet.first_frame(ONE, "a", 40.0)
        fleet.reserve(ONE, "a")

        fleet.replace_offer(ONE, (make_offer(name="a", price_out=5, context_tokens=99), make_offer(name="c")), 2)

        assert fleet.free_list("b") is None and chosen(fleet, "c") == ONE
        offered = fleet.get(ONE).candidates["a"]
        assert (offered.rate_out, offered.context_tokens) == (5, 99)
        assert offered.first_frame_ms == pytest.approx(40, rel=0.13)
        assert (fleet.get(ONE).slots.free, fleet.get(ONE).slots.running) == (1, 1)
        assert ONE in fleet.changed

    def test_the_filters_see_what_a_pulse_tells_of_the_gpu(self) -> None:
        fleet = make_fleet(make_row())
        wants = Spec("m", needs=Needs(vram_mib=100_000))
        assert not fleet.possible(wants)

        fleet.seen(ONE, Pulse(gpu="NVIDIA H200", vram_mib=144_000, gpu_utilization=0.5))

        assert fleet.possible(wants)
        assert (fleet.get(ONE).row.gpu, fleet.get(ONE).gpu_utilization) == ("NVIDIA H200", 0.5)


class TestModels:
    def test_counts_active_hosts_lowest_price_and_longest_context(self) -> None:
        fleet = make_fleet(
            make_row(n=1, models=(make_offer(name="b"), make_offer(name="a", price_out=7, context_tokens=10))),
            make_row(n=2, models=(make_offer(name="a", price_out=9, context_tokens=20, kinds=("embedding",)),)),
        )

        first, second = fleet.models()
        assert (first.name, first.available_hosts, first.max_tokens) == ("a", 2, 20)
        assert (first.min_price_out_uusd_per_mtok, first.kinds) == (7, ("chat", "completion", "embedding"))
        assert (second.name, second.available_hosts) == ("b", 1)

        fleet.unlinked(ONE)
        (left,) = fleet.models()
        assert (left.name, left.available_hosts, left.kinds) == ("a", 1, ("embedding",))
        assert left.min_price_out_uusd_per_mtok == 9

    def test_follows_what_an_active_host_offers(self) -> None:
        fleet = make_fleet(make_row(models=(make_offer(name="a", price_out=7), make_offer(name="b"))))

        fleet.replace_offer(ONE, (make_offer(name="a", price_out=9),), 2)

        (left,) = fleet.models()
        assert (left.name, left.available_hosts, left.min_price_out_uusd_per_mtok) == ("a", 1, 9)

    def test_is_not_made_anew_by_jobs_coming_and_going(self) -> None:
        fleet = make_fleet(make_row())
        before = fleet.models()

        fleet.reserve(ONE, "m")
        fleet.seen(ONE)
        fleet.release(ONE)

        assert fleet.models() is before


class TestPossible:
    def test_a_full_or_absent_host_makes_a_job_possible_and_nobody_makes_it_refused(self) -> None:
        fleet = make_fleet(make_row(slots=1))
        fleet.reserve(ONE, "m")
        assert fleet.possible(Spec("m"))
        fleet.unlinked(ONE)
        assert fleet.possible(Spec("m"))
        assert fleet.departed() == []

        for spec, why in (
            (Spec("m", context_tokens=4097), "context length turns away 1"),
            (Spec("x"), "No registered host offers the model x"),
        ):
            assert not fleet.possible(spec)
            assert why in fleet.explain(spec).sentence()


class TestLearning:
    def test_medians_and_tails_come_from_the_frames(self) -> None:
        fleet = make_fleet(make_row())
        rng = random.Random(1)
        for _ in range(2000):
            fleet.frames(ONE, "m", rng.choice([10.0] * 97 + [500.0] * 3), 1)
        for _ in range(100):
            fleet.first_frame(ONE, "m", 80.0)

        pace = fleet.pace(ONE, "m")
        assert pace.inter_frame_p50_ms == pytest.approx(10, rel=0.15)
        assert pace.inter_frame_p99_ms == pytest.approx(500, rel=0.15)
        assert (pace.first_frame_p50_ms, pace.first_frame_p99_ms) == pytest.approx((80, 80), rel=0.15)
        offered = fleet.get(ONE).candidates["m"]
        assert (offered.inter_frame_ms, offered.first_frame_ms) == pytest.approx((10, 80), rel=0.2)

    def test_a_change_of_speed_is_learnt_and_the_old_one_forgotten(self) -> None:
        fleet = make_fleet(make_row())
        for gap in (10.0, 100.0):
            for _ in range(30):
                fleet.frames(ONE, "m", gap, 200)

        assert fleet.pace(ONE, "m").inter_frame_p50_ms == pytest.approx(100, rel=0.15)

    def test_before_anything_was_measured_priors_stand_in(self) -> None:
        pace = make_fleet(make_row()).pace(ONE, "m")

        assert not pace.measured and pace.inter_frame_p99_ms > pace.inter_frame_p50_ms > 0

    def test_three_quick_frames_make_no_tight_tail(self) -> None:
        fleet = make_fleet(make_row())
        prior = fleet.pace(ONE, "m").inter_frame_p99_ms

        fleet.frames(ONE, "m", 1.0, 3)

        assert fleet.pace(ONE, "m").inter_frame_p99_ms == prior

    def test_the_quicker_host_is_chosen_once_it_is_known(self) -> None:
        fleet = make_fleet(make_row(n=1), make_row(n=2))
        assert chosen(fleet) == ONE

        for _ in range(5):
            fleet.frames(TWO, "m", 5.0, 20)

        assert chosen(fleet) == TWO


class TestReputation:
    def test_starts_low_rises_with_answers_and_falls_faster_than_it_rose(self) -> None:
        fleet = make_fleet(make_row())

        def score() -> float:
            return fleet.explain_reputation(ONE).score

        start = score()
        for n in range(20):
            fleet.outcome(ONE, DONE, buyer=bytes([n]), tokens=7, paid_uusd=MERIT_UUSD)
        risen = score()
        fleet.outcome(ONE, FAILED, buyer=b"b")
        failed = score()
        fleet.outcome(ONE, LOST, buyer=b"c")

        assert start == 0.25 and risen > 0.8
        assert risen - failed > 0.05 and failed - score() > risen - failed
        assert fleet.get(ONE).candidates["m"].reputation == pytest.approx(score(), rel=0.06)
        assert fleet.get(ONE).tokens_done == 140

    def test_evidence_fades_back_to_the_start(self) -> None:
        clock = FakeClock()
        fleet = make_fleet(make_row(), clock=clock)
        for buyer in (b"a", b"b"):
            fleet.outcome(ONE, LOST, buyer=buyer)
        low = fleet.explain_reputation(ONE).score

        clock.advance(seconds=14 * 86_400)
        half = fleet.explain_reputation(ONE)
        clock.advance(seconds=365 * 86_400)
        fleet.refresh_reputation(fleet.get(ONE))

        assert half.bad == pytest.approx(4.0) and low < half.score < 0.25
        assert fleet.get(ONE).candidates["m"].reputation == pytest.approx(0.25, rel=0.01)

    def test_is_explained_in_figures_and_words(self) -> None:
        fleet = make_fleet(make_row())
        fleet.outcome(ONE, DONE, buyer=b"a", tokens=5, paid_uusd=MERIT_UUSD)
        fleet.outcome(ONE, LOST, buyer=b"b")

        story = fleet.explain_reputation(ONE)

        assert (story.good, story.bad, story.jobs_done, story.jobs_failed, story.jobs_lost) == (1, 4, 1, 0, 1)
        assert "0.22: 2 jobs ended here, 1 answered, 0 failed by the host's fault, 1 lost" in story.sentence
        assert "from 2 of 16 groups of buyers with at most 4 each, weighs 1.0 good and 4.0 bad" in story.sentence

    def test_what_a_host_says_of_itself_changes_nothing(self) -> None:
        fleet = make_fleet(make_row())

        fleet.seen(ONE, Pulse(gpu="best", running=0, gpu_utilization=0.0))

        assert fleet.explain_reputation(ONE).score == 0.25


class TestListHosts:
    def test_pages_and_filters(self) -> None:
        fleet = make_fleet(*(make_row(n=n, owner_id=ONE if n % 2 else None) for n in range(1, 8)))
        fleet.unlinked(ONE)

        def ids(found: tuple[list[Host], int]) -> tuple[list[int], int]:
            return [int.from_bytes(host.id, "big") for host in found[0]], found[1]

        assert ids(fleet.list_hosts(limit=3, offset=2)) == ([3, 4, 5], 7)
        assert ids(fleet.list_hosts(limit=2, status=ACTIVE)) == ([2, 3], 6)
        assert ids(fleet.list_hosts(limit=9, status=OFFLINE, owner_id=ONE)) == ([1], 1)
        assert ids(fleet.list_hosts(limit=9, owner_id=ONE)) == ([1, 3, 5, 7], 4)
        assert ids(fleet.list_hosts(limit=2, offset=1, model="m", status=ACTIVE)) == ([3, 4], 6)
        assert ids(fleet.list_hosts(limit=9, model="x")) == ([], 0)


class TestRemove:
    def test_a_retired_host_leaves_no_trace_and_its_last_release_is_ignored(self) -> None:
        fleet = make_fleet(make_row())
        fleet.reserve(ONE, "m")

        fleet.remove(ONE)
        fleet.release(ONE)
        fleet.outcome(ONE, DONE)

        assert len(fleet) == 0 and fleet.active_hosts == 0
        assert fleet.models() == [] and fleet.free_list("m") is None and not fleet.changed


ACTIONS = ["link", "unlink", "seen", "drain", "resume", "poll", "unpoll", "reserve", "release", "offer", "learn"]
HAPPENINGS = st.sampled_from([*ACTIONS, *ACTIONS, "remove", "tick"])
OFFERS = [
    (make_offer(name="a"),),
    (make_offer(name="a", price_out=5), make_offer(name="b")),
    (make_offer(name="b", context_tokens=50),),
]


def act(fleet: Fleet, clock: FakeClock, row: HostRow, what: str) -> None:
    host = fleet.find(row.id)
    if host is None:
        fleet.add(row)
    elif what == "reserve":
        for model in host.candidates if host.slots.free else ():
            fleet.reserve(row.id, model, prefix_key=b"p")
            break
    elif what == "release" and host.slots.running:
        fleet.release(row.id)
    elif what == "offer":
        turn = OFFERS.index(host.row.models) + 1
        fleet.replace_offer(row.id, OFFERS[turn % 3], 1 + turn)
    elif what == "learn":
        fleet.frames(row.id, "a", 3.0, 9)
        fleet.outcome(row.id, DONE)
    elif what == "tick":
        clock.advance(seconds=31.001)
        fleet.silent()
        fleet.departed()
    else:
        verbs = {
            "link": fleet.mark_linked,
            "unlink": fleet.unlinked,
            "seen": fleet.seen,
            "drain": fleet.drain,
            "resume": fleet.resume,
            "poll": fleet.poll_began,
            "unpoll": fleet.poll_ended,
            "remove": fleet.remove,
        }
        if what in verbs and not (what == "link" and row.transport == POLL):
            verbs[what](row.id)


class TestAgreement:
    @given(st.lists(st.tuples(st.integers(0, 3), HAPPENINGS), min_size=20, max_size=60))
    @settings(max_examples=100, deadline=None)
    def test_lists_and_counts_agree_with_the_hosts_after_any_story(self, story: list[tuple[int, str]]) -> None:
        clock = FakeClock()
        fleet = Fleet(clock)
        rows = [
            make_row(n=n + 1, transport=POLL if n % 2 else "link", models=OFFERS[n % 3], slots=n + 1) for n in range(4)
        ]

        for which, what in story:
            act(fleet, clock, rows[which], what)
            active = [host for host in fleet if host.status == ACTIVE]
            assert fleet.active_hosts == len(active)
            for model in "ab":
                offering = [host for host in fleet if model in host.candidates]
                hosts = fleet.free_list(model)
                assert (hosts is None) == (not offering)
                summary = next((each for each in fleet.models() if each.name == model), None)
                assert (summary.available_hosts if summary else 0) == sum(model in host.candidates for host in active)
                if hosts is None:
                    continue
                assert set(hosts.all) == {host.id for host in offering}
                free = [h for h in offering if h.status == ACTIVE and h.slots.free > 0]
                assert hosts.free_hosts == len(free)
                spec = Spec(model, input_units=20, output_units=20, prefix_key=b"p")
                for gone in (False, True):
                    could = [h for h in offering if h.gone == gone and passes(spec, h.candidates[model])]
                    assert fleet.possible(spec, gone=gone) == bool(could)
                for name in ("balanced", "weighted_round_robin"):
                    preference = preference_named(name)
                    found = [each.candidate for each in rank(spec, hosts, preference, limit=4)]
                    assert found == rank_naively(spec, hosts, preference, limit=4)


class TestModel:
    def test_it_says_when_the_first_host_with_it_was_registered(self) -> None:
        fleet = make_fleet(replace(make_row(), created_ms=2_000), replace(make_row(n=2), created_ms=1_000))

        found = fleet.model("m")

        assert found is not None and found.since_ms == 1_000
        assert found in fleet.models()

    def test_one_nobody_here_offers_is_none(self) -> None:
        fleet = make_fleet(make_row())
        fleet.unlinked(ONE)

        assert fleet.model("m") is None
        assert fleet.model("x") is None
