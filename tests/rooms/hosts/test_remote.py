"""Hosts that are linked to other coordinators: in the same lists, with the slots that were announced, and never counted
twice."""

from comptoir.events import EventHub, RemoteHostOutcome
from comptoir.hosts import ACTIVE, LINK, OFFLINE, POLL, Fleet, RemoteHosts
from comptoir.hosts.testing import make_row
from comptoir.kit.clock import FakeClock
from comptoir.routing import Spec, choose, preference_named

ONE, TWO = (n.to_bytes(16, "big") for n in (1, 2))
NODE, OTHER = b"n" * 16, b"o" * 16


def make(
    *, transport: str = LINK, slots: int = 4, leases_here: int = 0, events: EventHub | None = None
) -> tuple[Fleet, RemoteHosts, FakeClock]:
    clock = FakeClock()
    fleet = Fleet(clock, events=events, leases_here=lambda host_id: leases_here)
    fleet.add(make_row(transport=transport, slots=slots))
    return fleet, RemoteHosts(fleet), clock


def chosen(fleet: Fleet, *, here: bool = False) -> bytes | None:
    hosts = fleet.free_list("m")
    spec = Spec("m", output_units=10, here=here)
    candidate = choose(spec, hosts, preference_named("balanced")) if hosts is not None else None
    return candidate.host_id if candidate is not None else None


class TestNoteAway:
    def test_an_announced_host_can_be_chosen_but_not_as_one_of_ours(self) -> None:
        fleet, away, _ = make()

        away.note_remote(ONE, node_id=NODE, status=ACTIVE, free=2, total=4)

        assert (chosen(fleet), chosen(fleet, here=True)) == (ONE, None)
        assert (fleet.get(ONE).slots.free, fleet.active_hosts) == (2, 1)
        assert [model.name for model in fleet.models()] == ["m"]

    def test_what_is_asked_for_counts_until_the_next_announcement(self) -> None:
        fleet, away, _ = make()
        away.note_remote(ONE, node_id=NODE, status=ACTIVE, free=1, total=4)

        fleet.reserve(ONE, "m")
        assert chosen(fleet) is None

        away.note_remote(ONE, node_id=NODE, status=ACTIVE, free=1, total=4)
        assert chosen(fleet) == ONE

    def test_one_that_is_linked_here_is_ours_whatever_is_said(self) -> None:
        fleet, away, _ = make()
        fleet.mark_linked(ONE)

        away.note_remote(ONE, node_id=NODE, status=ACTIVE, free=0, total=4)

        assert (fleet.get(ONE).node_id, fleet.get(ONE).slots.free) == (b"", 4)

    def test_one_that_waits_here_with_a_poll_is_ours(self) -> None:
        fleet, away, _ = make(transport=POLL)
        fleet.poll_began(ONE)

        away.note_remote(ONE, node_id=NODE, status=ACTIVE, free=0, total=4)

        assert chosen(fleet, here=True) == ONE

    def test_a_host_nobody_registered_is_ignored(self) -> None:
        fleet, away, _ = make()

        away.note_remote(TWO, node_id=NODE, status=ACTIVE, free=1, total=1)

        assert fleet.find(TWO) is None


class TestComingAndGoing:
    def test_it_comes_here_with_what_runs_here(self) -> None:
        fleet, away, _ = make(leases_here=1)
        away.note_remote(ONE, node_id=NODE, status=ACTIVE, free=0, total=4)

        fleet.mark_linked(ONE)

        assert (fleet.get(ONE).node_id, fleet.get(ONE).slots.running, fleet.get(ONE).slots.free) == (b"", 1, 3)
        assert chosen(fleet, here=True) == ONE

    def test_a_slot_released_while_it_is_elsewhere_is_not_ours_to_count(self) -> None:
        fleet, away, _ = make()
        fleet.mark_linked(ONE)
        fleet.reserve(ONE, "m")
        fleet.unlinked(ONE)
        away.note_remote(ONE, node_id=NODE, status=ACTIVE, free=4, total=4)

        fleet.release(ONE)

        assert fleet.get(ONE).slots.free == 4

    def test_forgotten_it_is_offline_until_it_is_heard_of_again(self) -> None:
        fleet, away, _ = make()
        away.note_remote(ONE, node_id=NODE, status=ACTIVE, free=4, total=4)

        away.forget(ONE)
        assert (fleet.get(ONE).status, fleet.get(ONE).node_id, chosen(fleet)) == (OFFLINE, b"", None)

        away.note_remote(ONE, node_id=OTHER, status=ACTIVE, free=4, total=4)
        assert chosen(fleet) == ONE

    def test_without_bus_it_stays_on_the_market_and_is_given_nothing(self) -> None:
        fleet, away, _ = make()
        away.note_remote(ONE, node_id=NODE, status=ACTIVE, free=4, total=4)

        away.unreachable(ONE)

        assert (chosen(fleet), fleet.get(ONE).status, fleet.possible(Spec("m"))) == (None, ACTIVE, True)

    def test_nobody_here_says_that_it_is_silent(self) -> None:
        """Its pulses may go elsewhere, and a host that nothing happens to is not announced again."""
        fleet, away, clock = make()
        away.note_remote(ONE, node_id=NODE, status=ACTIVE, free=4, total=4)

        clock.advance(seconds=10_000.0)

        assert fleet.silent() == []
        assert chosen(fleet) == ONE


class TestFigures:
    def test_they_are_those_of_its_own_coordinator(self) -> None:
        fleet, away, _ = make()
        away.note_remote(ONE, node_id=NODE, status=ACTIVE, free=4, total=4)
        candidate = fleet.get(ONE).candidates["m"]

        away.note_figures(ONE, "m", 1234.0, 56.0)
        away.note_reputation(ONE, 0.9)

        assert (candidate.first_frame_ms, candidate.inter_frame_ms, candidate.reputation) == (1234.0, 56.0, 0.9)

    def test_an_outcome_is_told_to_its_coordinator(self) -> None:
        events, told = EventHub(), list[RemoteHostOutcome]()
        fleet, away, _ = make(events=events)
        away.note_remote(ONE, node_id=NODE, status=ACTIVE, free=4, total=4)
        events.subscribe(RemoteHostOutcome, told.append)

        fleet.outcome(ONE, "lost", buyer=b"b", tokens=3, paid_uusd=7)

        assert told == [RemoteHostOutcome(ONE, NODE, "lost", 3, b"b", 7)]
        assert fleet.get(ONE).jobs_lost == 0
