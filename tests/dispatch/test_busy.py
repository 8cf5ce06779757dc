"""Busy: a host that says again and again that it is busy holds up nobody but the first."""

from collections import Counter
from pathlib import Path

from comptoir.dispatch.stream import fail
from comptoir.hosts import DONE, POLL, RestingHosts
from comptoir.hosts.testing import make_fleet, make_row
from comptoir.jobs import Fault
from tests.dispatch.continuing import lease_of
from tests.street import finish_well, open_street

ONE, TWO = (n.to_bytes(16, "big") for n in (1, 2))


class TestJobs:
    async def test_who_is_always_busy_is_asked_twice_and_not_by_every_buyer(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, routing="round_robin") as street:
            linked, _ = await street.host()
            polling, _ = await street.host(transport=POLL)
            await street.host()
            asked: Counter[bytes] = Counter()
            for _ in range(12):
                job = await street.submit()
                while (host_id := lease_of(job).host_id) in (linked, polling):
                    asked[host_id] += 1
                    await fail(street.core, job, code="busy", message="busy", fault=Fault.CAPACITY, status=429)
                    if host_id == polling:
                        street.core.fleet.poll_began(polling)
                await finish_well(street.core, job)

        assert asked == {linked: 2, polling: 2}


class TestRest:
    def test_it_doubles_is_bounded_and_ends_with_an_answer(self) -> None:
        fleet = make_fleet(make_row(n=1), make_row(n=2))
        resting = RestingHosts(fleet)

        def told() -> float:
            rest_s = resting.note_busy(ONE)
            assert fleet.get(ONE).slots.free == (0 if rest_s else 2)
            assert not (rest_s and resting.note_busy(ONE)), "it is counted once while it rests"
            resting.rested(ONE)
            return rest_s

        assert [told() for _ in range(9)] == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
        fleet.outcome(ONE, DONE)
        assert [told() for _ in range(2)] == [0.0, 0.25]
        assert fleet.get(TWO).slots.free == fleet.get(ONE).slots.free == 2

    def test_the_only_host_of_a_model_is_not_passed_over(self) -> None:
        fleet = make_fleet(make_row(n=1))
        resting = RestingHosts(fleet)

        assert [resting.note_busy(ONE) for _ in range(4)] == [0.0] * 4
        assert fleet.get(ONE).slots.free == 2
        assert resting.note_busy(TWO) == 0.0
