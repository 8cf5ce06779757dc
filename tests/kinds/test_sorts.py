"""Kinds that are like neither a chat nor a chain of containers: each rule of dispatch that asks the kind, with a kind
that differs.

What is asked of every end: nobody is paid who is not to be, holds are released, the receipt verifies and the audit
finds nothing.
"""

import asyncio
import logging
from pathlib import Path

import pytest

from comptoir.dispatch.assign import assign_waiting, revoke_lease
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.deferred_settlements import DeferredSettlements, retry_when_db_returns
from comptoir.dispatch.errors import BadSegment
from comptoir.dispatch.expire import sweep
from comptoir.dispatch.hedge import begin
from comptoir.dispatch.onboard import add_host
from comptoir.dispatch.stream import complete, fail
from comptoir.dispatch.watch import link_dropped
from comptoir.hosts import POLL, NewHost
from comptoir.jobs import Fault, JobState, Reader
from comptoir.kinds import Kind
from comptoir.kit.errors import Unavailable
from comptoir.link import LINK_VERSION, Hello, Usage
from comptoir.reports import audit
from comptoir.transports.link.session import Session
from comptoir.transports.native import NATIVE
from tests.dispatch.continuing import earned, lease_of
from tests.kinds.ends import adds_up, given, pay_of, pieces, whole
from tests.kinds.toys import (
    EACH_UUSD,
    ByPieces,
    Measured,
    Once,
    RunAgain,
    Staged,
    WholeOrNothing,
    buy,
    offer,
    selling,
)
from tests.servers import OwnServer
from tests.street import FakeChannel


class TestRunAgain:
    async def test_a_lost_host_is_paid_nothing_and_the_next_one_begins_at_the_start(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            first, _ = await street.host(offer=offer(RunAgain))
            second, channel = await street.host(offer=offer(RunAgain))
            job = await buy(street, RunAgain, most=1)
            reader, late = Reader(job), Reader(job)
            pieces(street, job, "10%", "20%")
            assert len(await reader.next() or []) == 2

            await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)

            assert (lease_of(job).host_id, lease_of(job).first_frame, job.frames, job.restarts) == (second, 0, [], 1)
            assert given(channel) == 1
            assert await reader.next() is None and reader.outdated
            await whole(street, job)
            assert [frame.text for frame in await late.next() or []] == ["whole"] and not late.outdated
            await adds_up(street, job, JobState.COMPLETED, cost_uusd=EACH_UUSD)
            assert (await earned(street, first), await earned(street, second)) == (0, pay_of(EACH_UUSD))
            assert (await street.core.jobs.get(job.id)).restarts == 1

    async def test_a_dropped_link_is_left_for_whoever_is_free_though_it_can_not_go_on(self, tmp_path: Path) -> None:
        """The pieces that are here bind nobody: the next host begins at the start."""
        async with selling(tmp_path) as street:
            first, _ = await street.host(offer=offer(RunAgain))
            second, _ = await street.host(offer=offer(RunAgain))
            job = await buy(street, RunAgain, most=1)
            pieces(street, job, "10%")
            street.unlink(first)
            link_dropped(street.core, first)
            street.clock.advance(seconds=1)

            await sweep(street.core)

            assert lease_of(job).host_id == second
            await whole(street, job)

    @pytest.mark.parametrize("counted", [0, 1], ids=["of nothing", "of what it said was one"])
    @pytest.mark.parametrize("kind", [RunAgain, ByPieces], ids=lambda kind: kind.name)
    async def test_a_half_is_free_when_the_buyer_cancels(self, tmp_path: Path, kind: type[Kind], counted: int) -> None:
        async with selling(tmp_path) as street:
            await street.host(offer=offer(kind))
            job = await buy(street, kind, most=3)
            pieces(street, job, "10%", count=counted)
            await cancel(street.core, job)
            await adds_up(street, job, JobState.CANCELLED, fault=Fault.BUYER)
            assert (await street.core.jobs.answer(job.id))[0] == []

    async def test_one_that_is_whole_is_paid_by_who_cancels_behind_it(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            await street.host(offer=offer(RunAgain))
            job = await buy(street, RunAgain, most=1)
            pieces(street, job, "whole", count=1)
            await cancel(street.core, job)
            await adds_up(street, job, JobState.CANCELLED, cost_uusd=EACH_UUSD, fault=Fault.BUYER)

    @pytest.mark.parametrize("charge", [True, False])
    async def test_a_half_is_free_when_it_expires(self, tmp_path: Path, charge: bool) -> None:
        async with selling(tmp_path, job_ttl_s=60.0, charge_for_broken_answers=charge) as street:
            await street.host(offer=offer(RunAgain))
            job = await buy(street, RunAgain, most=3)
            pieces(street, job, "10%", count=1)
            street.clock.advance(seconds=61)
            await sweep(street.core)
            await adds_up(street, job, JobState.EXPIRED, fault=Fault.CAPACITY)

    @pytest.mark.parametrize("fault", [Fault.BUYER, Fault.HOST, Fault.CAPACITY, Fault.COORDINATOR])
    async def test_a_failure_alone_is_free_whoever_is_to_blame(self, tmp_path: Path, fault: Fault) -> None:
        async with selling(tmp_path) as street:
            await street.host(offer=offer(RunAgain))
            job = await buy(street, RunAgain, most=3)
            pieces(street, job, "10%", count=1)
            await fail(street.core, job, code="broke", message="it broke", fault=fault)
            await adds_up(street, job, JobState.FAILED, fault=fault)

    async def test_a_wrong_output_is_no_output_and_another_host_makes_one(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            first, _ = await street.host(offer=offer(RunAgain))
            second, _ = await street.host(offer=offer(RunAgain))
            job = await buy(street, RunAgain, most=1)
            pieces(street, job, "10%", count=1)
            with pytest.raises(BadSegment, match="not whole"):
                await complete(street.core, job, finish_reason="stop", usage=Usage())
            assert (lease_of(job).host_id, job.frames) == (second, [])
            await whole(street, job)
            await adds_up(street, job, JobState.COMPLETED, cost_uusd=EACH_UUSD)
            assert await earned(street, first) == 0

    async def test_silence_is_normal_for_as_long_as_its_offer_says(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            hosts = [(await street.host(offer=offer(RunAgain, context_tokens=1_200)))[0] for _ in range(2)]
            job = await buy(street, RunAgain, most=1)
            first = lease_of(job)
            for silent_s, kept in ((119, True), (2, False)):
                street.clock.advance(seconds=silent_s)
                for host_id in hosts:
                    street.core.fleet.seen(host_id)
                await sweep(street.core)
                await street.core.background.drain_tasks()
                assert (lease_of(job) is first) is kept
            await whole(street, job)


class TestRunAgainWithoutDatabase:
    @pytest.mark.parametrize("goes_on", [True, False], ids=["its host goes on", "its host is lost"])
    async def test_it_is_made_once_whole_when_that_is_back(
        self, tmp_path: Path, own_server: OwnServer, goes_on: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.CRITICAL)
        async with selling(tmp_path, database=own_server.url) as street:
            first, _ = await street.host(offer=offer(RunAgain))
            second, _ = await street.host(offer=offer(RunAgain))
            job = await buy(street, RunAgain, most=1)
            lease = lease_of(job)
            pieces(street, job, "10%")
            own_server.kill()
            with pytest.raises(Unavailable):
                await retry_when_db_returns(
                    street.core, job, lambda: revoke_lease(street.core, job, lease, "it broke", fault=Fault.HOST)
                )
            assert (job.lease, job.frames) == (lease, [])
            if goes_on:
                with pytest.raises(Unavailable):
                    await whole(street, job)

            own_server.start()
            async with asyncio.timeout(20):
                await street.core.db.wait_available()
                while len(street.core.state(DeferredSettlements)):
                    await asyncio.sleep(0.01)
            await street.core.background.drain_tasks()
            if not goes_on:
                assert (lease_of(job).host_id, job.restarts) == (second, 1)
                await whole(street, job)
            await adds_up(street, job, JobState.COMPLETED, cost_uusd=EACH_UUSD)
            assert (await earned(street, first) > 0) is goes_on


class TestRunAgainAfterARestart:
    @pytest.mark.parametrize("back", [True, False], ids=["its worker comes back", "its worker does not"])
    async def test_it_is_made_once_whole(self, tmp_path: Path, database_address: str, back: bool) -> None:
        async with selling(tmp_path, database=database_address) as street:
            first, _ = await street.host(offer=offer(RunAgain))
            second, _ = await street.host(offer=offer(RunAgain))
            job, buyer = await buy(street, RunAgain, most=1), street.buyer_id
            pieces(street, job, "10%")

        async with selling(tmp_path, database=database_address, buyer=buyer) as street:
            again = street.core.jobs.live.get(job.id)
            assert again is not None and again.frames == []
            street.link(second, FakeChannel())
            if back:
                street.link(first, FakeChannel())
                lease_of(again).note_frames_at_worker(1)
                pieces(street, again, "10%")
            else:
                await revoke_lease(street.core, again, lease_of(again), "it did not come back", fault=Fault.HOST)
            assert lease_of(again).host_id == (first if back else second)
            await whole(street, again)
            await adds_up(street, again, JobState.COMPLETED, cost_uusd=EACH_UUSD)
            assert (again.restarts, await earned(street, first) > 0) == (int(not back), back)

    async def test_one_that_came_back_and_was_lost_then_began_anew_once(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            await street.host(offer=offer(RunAgain))
            second, _ = await street.host(offer=offer(RunAgain))
            job, buyer = await buy(street, RunAgain, most=1), street.buyer_id

        async with selling(tmp_path, buyer=buyer) as street:
            again = street.core.jobs.live.get(job.id)
            assert again is not None
            street.link(second, FakeChannel())
            pieces(street, again, "10%")
            await revoke_lease(street.core, again, lease_of(again), "it broke", fault=Fault.HOST)
            assert (again.restarts, again.frames) == (1, [])
            await whole(street, again)
            assert (await street.core.jobs.get(job.id)).restarts == 1


class TestOnce:
    """Never given to a second host once one may have begun."""

    @pytest.mark.parametrize("sent", [0, 2], ids=["before the first piece", "after it"])
    @pytest.mark.parametrize("charge", [True, False])
    async def test_a_lost_host_ends_it(self, tmp_path: Path, sent: int, charge: bool) -> None:
        async with selling(tmp_path, charge_for_broken_answers=charge) as street:
            channels = [(await street.host(offer=offer(Once)))[1] for _ in range(2)]
            job = await buy(street, Once)
            pieces(street, job, *["done"] * sent, count=1)
            await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)
            await adds_up(street, job, JobState.FAILED, cost_uusd=sent * EACH_UUSD * charge, fault=Fault.HOST)
            assert given(*channels) == 1

    @pytest.mark.parametrize("fault", [Fault.BUYER, Fault.HOST, Fault.CAPACITY, Fault.COORDINATOR])
    async def test_a_failure_ends_it_with_who_is_to_blame(self, tmp_path: Path, fault: Fault) -> None:
        async with selling(tmp_path) as street:
            channels = [(await street.host(offer=offer(Once)))[1] for _ in range(2)]
            job = await buy(street, Once)
            await fail(street.core, job, code="broke", message="it broke", fault=fault)
            await adds_up(street, job, JobState.FAILED, fault=fault)
            assert (given(*channels), job.error_code) == (1, "broke")

    async def test_no_second_host_is_started_beside_the_first(self, tmp_path: Path) -> None:
        async with selling(tmp_path, hedge=True) as street:
            channels = [(await street.host(offer=offer(Once)))[1] for _ in range(2)]
            job = await buy(street, Once)
            begin(street.core, job, lease_of(job))
            assert (job.hedge, given(*channels)) == (None, 1)
            await cancel(street.core, job)

    async def test_no_host_begins_before_it_is_written(self, tmp_path: Path) -> None:
        """A buyer who is told that the order was not written orders again."""
        async with selling(tmp_path) as street:
            _, channel = await street.host(offer=offer(Once, uusd=1))
            # From here on the buyer's credit is known.
            await complete(street.core, await buy(street, Once, most=1), finish_reason="stop", usage=Usage())
            task = asyncio.create_task(buy(street, Once, most=1))
            await asyncio.sleep(0)
            assert given(channel) == 1
            job = await task
            assert given(channel) == 2
            await cancel(street.core, job)

    @pytest.mark.parametrize("away_s", [1.0, 9.0])
    async def test_a_link_that_drops_is_waited_for_though_another_host_is_free(
        self, tmp_path: Path, away_s: float
    ) -> None:
        async with selling(tmp_path) as street:
            first, _ = await street.host(offer=offer(Once))
            _, channel = await street.host(offer=offer(Once))
            job = await buy(street, Once)
            lease = lease_of(job)
            street.unlink(first)
            link_dropped(street.core, first)
            street.clock.advance(seconds=away_s)
            await sweep(street.core)
            assert job.lease is lease
            street.link(first, FakeChannel())
            lease.relink(street.clock.monotonic_s())
            pieces(street, job, "done", count=1)
            await complete(street.core, job, finish_reason="stop", usage=Usage())
            await adds_up(street, job, JobState.COMPLETED, cost_uusd=EACH_UUSD)
            assert given(channel) == 0

    async def test_one_that_no_host_was_sent_goes_to_another_and_nobody_is_blamed(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            first, shut = await street.host(offer=offer(Once))
            shut.open = False
            job = await buy(street, Once)
            await street.core.background.drain_tasks()
            street.unlink(first)
            second, channel = await street.host(offer=offer(Once))
            assign_waiting(street.core, second)
            await street.core.background.drain_tasks()
            assert (lease_of(job).host_id, given(shut, channel)) == (second, 1)
            assert street.core.fleet.get(first).stored().jobs_failed == 0
            pieces(street, job, "done", count=1)
            await complete(street.core, job, finish_reason="stop", usage=Usage())
            await adds_up(street, job, JobState.COMPLETED, cost_uusd=EACH_UUSD)

    @pytest.mark.parametrize(("kind", "again"), [(Once, False), (WholeOrNothing, True)])
    async def test_a_worker_that_comes_back_without_it_is_not_sent_it_again(
        self, tmp_path: Path, kind: type[Kind], again: bool
    ) -> None:
        """It is another process of the host, or never got it: nobody can tell."""
        async with selling(tmp_path) as street:
            host_id, _ = await street.host(offer=offer(kind))
            job = await buy(street, kind)
            session = Session(street.core, street.core.fleet.get(host_id), None)  # type: ignore[arg-type]
            _, unsent = session._compare(Hello(LINK_VERSION, "x", 1, [offer(kind)], []))
            assert bool(unsent) is again
            if again:
                await cancel(street.core, job)
            else:
                await adds_up(street, job, JobState.FAILED, fault=Fault.HOST)


class TestOnceAfterARestart:
    @pytest.mark.parametrize("back", [True, False], ids=["its worker comes back", "its worker does not"])
    async def test_its_own_worker_ends_it_or_nobody_does(
        self, tmp_path: Path, database_address: str, back: bool
    ) -> None:
        async with selling(tmp_path, database=database_address) as street:
            first, _ = await street.host(offer=offer(Once))
            second, _ = await street.host(offer=offer(Once))
            job, buyer = await buy(street, Once), street.buyer_id
            pieces(street, job, "done", count=1)

        async with selling(tmp_path, database=database_address, buyer=buyer) as street:
            other = FakeChannel()
            street.link(second, other)
            again = street.core.jobs.live.get(job.id)
            assert again is not None and again.lease is not None
            if back:
                street.link(first, FakeChannel())
                pieces(street, again, "done", count=1)
                await complete(street.core, again, finish_reason="stop", usage=Usage())
                await adds_up(street, again, JobState.COMPLETED, cost_uusd=EACH_UUSD)
            else:
                street.clock.advance(seconds=60)
                await sweep(street.core)
                await adds_up(street, again, JobState.FAILED, fault=Fault.HOST)
            assert given(other) == 0

    async def test_a_host_that_keeps_nothing_ends_it_as_ours_to_blame(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            new = NewHost(gpu="x", models=(offer(Once),), slots=1, transport=POLL, speaks=NATIVE)
            first = (await add_host(street.core, new)).host_id
            street.link(first, FakeChannel())
            job, buyer = await buy(street, Once), street.buyer_id
            assert lease_of(job).host_id == first

        async with selling(tmp_path, buyer=buyer) as street:
            again = await street.core.jobs.get(job.id)
            assert (again.state, again.fault, again.cost_uusd) == ("failed", "coordinator", 0)
            assert await audit(street.core.db) == []

    async def test_one_that_waits_waits_on(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            first, _ = await street.host(offer=offer(Once))
            street.unlink(first)
            job, buyer = await buy(street, Once), street.buyer_id

        async with selling(tmp_path, buyer=buyer) as street:
            street.link(first, FakeChannel())
            await street.core.background.drain_tasks()
            again = street.core.jobs.live.get(job.id)
            assert again is not None and lease_of(again).host_id == first
            await cancel(street.core, again)


class TestWholeOrNothing:
    """A part that another host went on from is worth nothing either, if the whole is never there."""

    @pytest.mark.parametrize(("ends", "cost"), [(True, 5), (False, 0)], ids=["is made whole", "is not"])
    async def test_what_was_gone_on_from_is_paid_if_the_whole(self, tmp_path: Path, ends: bool, cost: int) -> None:
        async with selling(tmp_path) as street:
            hosts = [(await street.host(offer=offer(WholeOrNothing, can_continue=True)))[0] for _ in range(2)]
            job = await buy(street, WholeOrNothing, most=5)
            pieces(street, job, "a", "b", count=1)
            await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)
            assert lease_of(job).first_frame == 2
            pieces(street, job, *"cde" if ends else "cd", count=1)
            if ends:
                await complete(street.core, job, finish_reason="stop", usage=Usage())
                await adds_up(street, job, JobState.COMPLETED, cost_uusd=5 * EACH_UUSD)
            else:
                await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)
                await adds_up(street, job, JobState.FAILED, fault=Fault.HOST)
            assert [await earned(street, host) > 0 for host in hosts] == [ends] * 2


class TestUnsold:
    @pytest.mark.parametrize("leased", [True, False])
    @pytest.mark.parametrize("kind", [RunAgain, Once, Measured, Staged], ids=lambda kind: kind.name)
    async def test_it_ends_free_when_it_is_taken_up(
        self, tmp_path: Path, database_address: str, kind: type[Kind], leased: bool
    ) -> None:
        names = ("a", "b") if kind is Staged else ("m",)
        async with selling(tmp_path, database=database_address) as street:
            hosts = [await street.host(offer=offer(kind, name=name)) for name in names]
            if not leased:
                street.unlink(hosts[0][0])
            stages = names if kind is Staged else ()
            job = await buy(street, kind, body=b"3,2" if stages else b"{}", stages=stages)
            if leased:
                pieces(street, job, "sheet", "end", count=1)
                if kind is Staged:
                    await complete(street.core, job, finish_reason="stop", usage=Usage())
            buyer = street.buyer_id

        async with selling(tmp_path, database=database_address, buyer=buyer, kinds=()) as street:
            row = await street.core.jobs.get(job.id)
            assert (row.kind, row.state, row.fault, row.error_code) == (
                kind.name,
                "failed",
                "coordinator",
                "unknown_kind",
            )
            assert (len(street.core.jobs.live), street.core.jobs.live.leased) == (0, 0)
            over = street.core.jobs.live.recent(job.id)
            assert over is not None
            await adds_up(street, over, JobState.FAILED, fault=Fault.COORDINATOR)
            # The worker that held the lease comes back, and is told that it is closed.
            street.link(hosts[-1][0], FakeChannel())
            assert street.core.jobs.live.leases_of(hosts[-1][0]) == []
            (listed,) = await street.core.jobs.newest(owner_id=buyer)
            assert listed.kind == kind.name
