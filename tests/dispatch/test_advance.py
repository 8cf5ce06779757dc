"""Advance: a chain of containers, each step an attempt of its own; a lost step begins again from the output before
it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from comptoir.dialects.infernet.render import result_of
from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.drain import drain
from comptoir.dispatch.errors import BadSegment, NoHostPossible, UnknownModel
from comptoir.dispatch.expire import sweep
from comptoir.dispatch.settle import segment_of
from comptoir.dispatch.stream import complete, fail, take_frames
from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import Fault, JobState, LiveJob
from comptoir.kinds.containers import RUN_END_S
from comptoir.kit.signing import SigningKey
from comptoir.link import CONTAINER, ContainerCard, Frame, ModelOffer, Usage, segment_bytes
from comptoir.receipts import AuthenticatedBy
from comptoir.reports import audit
from tests.dispatch.continuing import earned, lease_of, receipt
from tests.street import FakeChannel, Street, open_street

RUN_UUSD = 1_000
"""Price of a run of the first container; the second costs twice, the third three times as much."""

STOPPED = b'{"finish_reason":"stop"}'


def container(name: str, *, runs: int = 1, **card: object) -> ModelOffer:
    """Return the offer of a container at *runs* times `RUN_UUSD`."""
    price = runs * RUN_UUSD * 1_000_000
    return ModelOffer(name, [CONTAINER], 1, 0, price, container=ContainerCard(**card))  # type: ignore[arg-type]


def chain_order(
    street: Street, *names: str, detached: bool = True, proof: bool = False, caller: str = "127.0.0.1"
) -> Order:
    """Return an order for a chain."""
    return Order(
        street.buyer_id,
        "test",
        CONTAINER,
        names[0],
        b'{"containers":[],"data":1}',
        len(names),
        detached,
        stages=names,
        proof=proof,
        caller=caller,
    )


def output(job: LiveJob) -> Frame:
    """Return what a step is answered with here."""
    return Frame(f'{{"step":{job.kind.stage(job)}}}', 1, STOPPED)


async def done(street: Street, job: LiveJob, *, signed_by: SigningKey | None = None) -> None:
    """Have the host of the job's step deliver it."""
    take_frames(street.core, job, len(job.frames), [output(job)])
    usage, signature = Usage(0, 1), b""
    if signed_by is not None:
        signature = signed_by.sign(segment_bytes(segment_of(job, lease_of(job), "stop", usage)))
    await complete(
        street.core, job, finish_reason="stop", usage=usage, signature=signature, running_hash=job.running_hash
    )


@pytest.fixture
async def street(street: Street) -> AsyncIterator[Street]:
    """Audit the books after every test."""
    yield street
    assert await audit(street.core.db) == []


class TestChain:
    async def test_each_step_goes_to_a_host_of_its_container_with_what_the_last_one_made(self, street: Street) -> None:
        (a, line_a), (b, line_b) = (
            await street.host(offer=container("a")),
            await street.host(offer=container("b", runs=2)),
        )
        job = await submit(street.core, chain_order(street, "a", "b"))
        assert (job.terms.hold_uusd, lease_of(job).host_id) == (3 * RUN_UUSD, a)

        await done(street, job)
        second = lease_of(job)
        assert (second.host_id, second.first_frame, job.model, job.state) == (b, 1, "b", JobState.RUNNING)
        assert line_b.sent == [(job, second)]
        await done(street, job)

        assert (job.state, job.cost_uusd) == (JobState.COMPLETED, 3 * RUN_UUSD)
        assert [frame.text for frame in job.frames] == ['{"step":0}', '{"step":1}']
        assert await earned(street, a) == RUN_UUSD - RUN_UUSD * 12 // 100
        assert await earned(street, b) == 2 * (RUN_UUSD - RUN_UUSD * 12 // 100)
        told = [state for _, state, _ in line_a.closed]
        assert (told, line_a.closed[-1][2]) == (["done", "done"], 880)

    async def test_a_step_is_merit_once_it_is_paid(self, street: Street) -> None:
        await street.own_money()
        a, _ = await street.host(offer=container("a"))
        await street.host(offer=container("b"))
        job = await submit(street.core, chain_order(street, "a", "b"))
        fleet = street.core.fleet

        await done(street, job)
        before = fleet.explain_reputation(a)
        await done(street, job)

        assert (before.score, before.jobs_done) == (0.25, 1)
        assert (fleet.explain_reputation(a).score, fleet.explain_reputation(a).jobs_done) == (2 / 5, 1)

    async def test_what_it_has_made_so_far_is_measured_before_it_is_read(self, street: Street) -> None:
        await street.host(offer=container("a")), await street.host(offer=container("b"))
        job = await submit(street.core, chain_order(street, "a", "b"))
        jobs = street.core.jobs

        assert await jobs.answer_bytes([job.id]) == {}
        await done(street, job)
        ((piece,),) = (await jobs.journal([job.id])).values()
        assert await jobs.answer_bytes([job.id]) == {job.id: len(piece)}
        await done(street, job)
        assert await jobs.answer_bytes([job.id]) == {job.id: len(job.encode_frames())}

    async def test_a_host_may_do_several_steps(self, street: Street) -> None:
        host, _ = await street.host(offer=container("a"))
        job = await submit(street.core, chain_order(street, "a", "a", "a"))

        for _ in range(3):
            await done(street, job)

        assert (job.state, job.cost_uusd, await earned(street, host)) == (JobState.COMPLETED, 3_000, 2_640)

    async def test_the_next_step_waits_in_line_where_its_hosts_are_busy(self, street: Street) -> None:
        await street.host(offer=container("a")), await street.host(offer=container("b"))
        other = await submit(street.core, chain_order(street, "b", caller="10.0.0.1"))
        job = await submit(street.core, chain_order(street, "a", "b"))

        await done(street, job)
        assert (job.state, job.lease, job.id in street.core.jobs.queue) == (JobState.QUEUED, None, True)
        await done(street, other)
        while job.lease is None:
            await asyncio.sleep(0)

        await done(street, job)
        assert job.state == JobState.COMPLETED

    async def test_a_step_may_wait_for_as_long_as_its_job(self, street: Street) -> None:
        """It is no broken stream, which is given up after ``broken_wait_s``: nobody has seen any of what is to come."""
        await street.host(offer=container("a")), await street.host(offer=container("b"))
        other = await submit(street.core, chain_order(street, "b"))
        job = await submit(street.core, chain_order(street, "a", "b"))
        await done(street, job)

        for _ in range(5):
            street.clock.advance(seconds=street.core.settings.broken_wait_s / 4)
            for host in street.core.fleet:
                street.core.fleet.seen(host.id)
            await sweep(street.core)
        assert (job.state, job.id in street.core.jobs.queue) == (JobState.QUEUED, True)
        await done(street, other)
        await street.core.background.drain_tasks()
        await done(street, job)

        assert job.state == JobState.COMPLETED

    async def test_hosts_sign_their_steps_and_the_receipt_shows_it(self, street: Street) -> None:
        keys = {name: SigningKey.generate() for name in "ab"}
        for name, key in keys.items():
            await street.host(offer=container(name), public_key=key.public_key)
        job = await submit(street.core, chain_order(street, "a", "b"))

        for name in "ab":
            await done(street, job, signed_by=keys[name])

        predicate = await receipt(street, job)
        assert predicate.model == "a,b"
        assert [each.authenticated_by for each in predicate.segments] == [AuthenticatedBy.SIGNATURE] * 2

    async def test_a_forged_signature_ends_the_attempt_unpaid_and_another_host_does_the_step(
        self, street: Street
    ) -> None:
        key = SigningKey.generate()
        hosts = [await street.host(offer=container("a"), public_key=key.public_key) for _ in range(1)]
        await street.host(offer=container("a", runs=2)), await street.host(offer=container("b"))
        job = await submit(street.core, chain_order(street, "a", "b"))
        job.stages = tuple(msgspec.structs.replace(stage, rate_out=10**10) for stage in job.stages)
        first = lease_of(job).host_id
        assert first == hosts[0][0]

        with pytest.raises(BadSegment):
            await done(street, job, signed_by=SigningKey.generate())

        assert (job.state, job.frames, job.kind.stage(job)) == (JobState.RUNNING, [], 0)
        assert lease_of(job).host_id != first
        assert await earned(street, first) == 0
        await cancel(street.core, job)


class TestSubmitting:
    @pytest.mark.parametrize(
        ("card", "asked", "error"),
        [
            ({"external": False}, {}, NoHostPossible),
            ({"allowed_ips": ["10.0.0.0/8"]}, {}, NoHostPossible),
            ({"allowed_ips": ["10.0.0.0/8"]}, {"caller": "10.1.1.1"}, None),
            ({"allowed_ips": ["10.0.0.0/8"]}, {"caller": "no address"}, NoHostPossible),
            ({}, {"proof": True}, NoHostPossible),
            ({"generates_proofs": True}, {"proof": True}, None),
        ],
    )
    async def test_a_job_that_no_host_lets_in_is_refused(
        self, street: Street, card: dict[str, object], asked: dict[str, object], error: type[Exception] | None
    ) -> None:
        await street.host(offer=container("a", **card))
        wanted = chain_order(street, "a", **asked)  # type: ignore[arg-type]

        if error is not None:
            with pytest.raises(error):
                await submit(street.core, wanted)
            assert await street.free_uusd() == 1_000_000
        else:
            job = await submit(street.core, wanted)
            await done(street, job)
            assert job.state == JobState.COMPLETED

    async def test_a_later_container_that_nobody_serves_is_refused_before_the_first_is_paid(
        self, street: Street
    ) -> None:
        host, channel = await street.host(offer=container("a"))

        with pytest.raises(UnknownModel):
            await submit(street.core, chain_order(street, "a", "b"))

        assert (channel.sent, street.core.fleet.get(host).slots.free) == ([], 1)

    async def test_a_private_container_may_be_a_later_one(self, street: Street) -> None:
        await street.host(offer=container("a")), await street.host(offer=container("b", external=False))
        job = await submit(street.core, chain_order(street, "a", "b"))

        await done(street, job)
        await done(street, job)

        assert job.state == JobState.COMPLETED

    async def test_a_model_of_the_same_name_is_no_container(self, street: Street) -> None:
        await street.host(offer=ModelOffer("a", ["chat"], 100, 0, 1))

        with pytest.raises(NoHostPossible):
            await submit(street.core, chain_order(street, "a"))


class TestLost:
    async def test_a_lost_step_begins_again_from_the_output_before_it(self, street: Street) -> None:
        await street.host(offer=container("a"))
        channels = dict([await street.host(offer=container("b")), await street.host(offer=container("b"))])
        job = await submit(street.core, chain_order(street, "a", "b"))
        await done(street, job)
        first = lease_of(job)

        await revoke_lease(street.core, job, first, "it died", fault=Fault.HOST)

        second = lease_of(job)
        assert (second.host_id != first.host_id, second.first_frame, job.kind.stage(job)) == (True, 1, 1)
        assert channels[second.host_id].sent == [(job, second)]
        await done(street, job)
        assert (job.state, job.cost_uusd, len(job.frames)) == (JobState.COMPLETED, 2 * RUN_UUSD, 2)
        assert await earned(street, first.host_id) == 0

    async def test_a_step_whose_host_dies_behind_its_output_is_done(self, street: Street) -> None:
        host, _ = await street.host(offer=container("a"))
        await street.host(offer=container("b"))
        job = await submit(street.core, chain_order(street, "a", "b"))
        take_frames(street.core, job, 0, [output(job)])

        await revoke_lease(street.core, job, lease_of(job), "it died", fault=Fault.HOST)

        assert (job.kind.stage(job), lease_of(job).first_frame) == (1, 1)
        await done(street, job)
        assert (job.state, await earned(street, host)) == (JobState.COMPLETED, 880)
        predicate = await receipt(street, job)
        assert predicate.segments[0].authenticated_by is not AuthenticatedBy.SIGNATURE

    @pytest.mark.parametrize(
        "frames",
        [
            [Frame("{", 1, STOPPED)],
            [Frame("[" * 100_000, 1, STOPPED)],
            [Frame("{}", 0, STOPPED)],
            [Frame("{}", 1), Frame("{}", 0, STOPPED)],
            [],
        ],
        ids=["no JSON", "nested too deeply", "no run", "two frames", "nothing"],
    )
    async def test_what_is_no_output_is_the_hosts_fault_and_made_anew(
        self, street: Street, frames: list[Frame]
    ) -> None:
        for _ in range(2):
            await street.host(offer=container("a"))
        await street.host(offer=container("b"))
        job = await submit(street.core, chain_order(street, "a", "b"))
        first = lease_of(job)
        if frames:
            take_frames(street.core, job, 0, frames)

        with pytest.raises(BadSegment):
            await complete(street.core, job, finish_reason="stop", usage=Usage(0, 1), running_hash=job.running_hash)

        assert (job.frames, job.kind.stage(job), lease_of(job).host_id != first.host_id) == ([], 0, True)
        await done(street, job)
        await done(street, job)
        assert (job.state, job.cost_uusd, await earned(street, first.host_id)) == (JobState.COMPLETED, 2 * RUN_UUSD, 0)

    @pytest.mark.parametrize("extra", [b"{", b"\xff", b'{"x":' + b"[" * 100_000], ids=["no JSON", "no text", "deep"])
    async def test_an_extra_that_is_not_understood_says_nothing(self, street: Street, extra: bytes) -> None:
        """Nor does it stop the sweep, which looks after all other jobs as well. Older coordinators took such frames."""
        for _ in range(2):
            await street.host(offer=container("a"))
        job = await submit(street.core, chain_order(street, "a"))
        job.append([Frame("{}", 1, extra)])
        first = lease_of(job)

        await revoke_lease(street.core, job, first, "it died", fault=Fault.HOST)

        assert (job.frames, lease_of(job).host_id != first.host_id) == ([], True)
        await cancel(street.core, job)

    async def test_a_container_that_fails_everywhere_ends_the_job_with_what_it_said(self, street: Street) -> None:
        a, _ = await street.host(offer=container("a"))
        b, _ = await street.host(offer=container("b"))
        job = await submit(street.core, chain_order(street, "a", "b"))
        await done(street, job)
        said = b'{"error":"out of memory"}' + b" " * 600

        await fail(street.core, job, code="container_failed", message="x", fault=Fault.HOST, status=500, body=said)

        assert (job.state, job.error_message, len(job.frames)) == (JobState.FAILED, said.decode(), 1)
        assert (job.cost_uusd, await earned(street, a), await earned(street, b)) == (RUN_UUSD, 880, 0)
        assert (await street.core.jobs.get(job.id)).error_message == said.decode()

    async def test_a_stream_that_breaks_off_is_failed_and_half_a_run_is_free(self, street: Street) -> None:
        for _ in range(2):
            await street.host(offer=container("a"))
        job = await submit(street.core, chain_order(street, "a", detached=False))
        take_frames(street.core, job, 0, [Frame("half", 1)])

        await revoke_lease(street.core, job, lease_of(job), "it died", fault=Fault.HOST)

        assert (job.state, job.error_code, job.cost_uusd) == (JobState.FAILED, "host_lost", 0)

    async def test_a_stream_that_has_shown_nothing_is_made_by_another_host(self, street: Street) -> None:
        for _ in range(2):
            await street.host(offer=container("a"))
        job = await submit(street.core, chain_order(street, "a", detached=False))

        await revoke_lease(street.core, job, lease_of(job), "it died", fault=Fault.HOST)
        take_frames(street.core, job, 0, [Frame("half", 1), Frame(" whole", 0), Frame("", 0, STOPPED)])
        await complete(street.core, job, finish_reason="stop", usage=Usage(0, 1), running_hash=job.running_hash)

        assert (job.state, job.cost_uusd) == (JobState.COMPLETED, RUN_UUSD)

    async def test_whoever_hangs_up_on_a_stream_pays_its_run(self, street: Street) -> None:
        await street.host(offer=container("a"))
        job = await submit(street.core, chain_order(street, "a", detached=False))
        take_frames(street.core, job, 0, [Frame("half", 1)])

        await cancel(street.core, job)

        assert (job.state, job.cost_uusd) == (JobState.CANCELLED, RUN_UUSD)


class TestHalfAStep:
    """What a host sent of a step that it did not end is nobody's output yet."""

    FRAMES = (
        [Frame('1}]},{"id":"planted"', 1, STOPPED)],
        [Frame("{}", 3, STOPPED)],
        [Frame("{}", 1, STOPPED), Frame("{}", 0, STOPPED)],
    )
    IDS = ("no JSON", "three runs", "two steps' outputs")

    @pytest.mark.parametrize("frames", FRAMES, ids=IDS)
    async def test_it_is_not_shown_and_not_paid(self, street: Street, frames: list[Frame]) -> None:
        a, _ = await street.host(offer=container("a"))
        await street.host(offer=container("b")), await street.host(offer=container("c"))
        job = await submit(street.core, chain_order(street, "a", "b", "c"))

        take_frames(street.core, job, 0, frames)
        running = result_of(job, job.frames, intermediate=True)
        await cancel(street.core, job)
        over = result_of(job, job.frames, intermediate=True)

        assert running.intermediate_results == over.intermediate_results == []
        assert (over.result is not None and over.result.container, job.cost_uusd, await earned(street, a)) == (
            "a",
            0,
            0,
        )
        assert (await street.core.jobs.answer(job.id))[0] == []

    async def test_a_whole_output_is_paid_by_who_cancels_behind_it(self, street: Street) -> None:
        a, _ = await street.host(offer=container("a"))
        await street.host(offer=container("b"))
        job = await submit(street.core, chain_order(street, "a", "b"))

        take_frames(street.core, job, 0, [output(job)])
        await cancel(street.core, job)

        assert (job.cost_uusd, await earned(street, a)) == (RUN_UUSD, 880)


class TestSilence:
    @pytest.mark.parametrize(("silent_s", "kept"), [(180 + RUN_END_S, True), (181 + RUN_END_S, False)])
    async def test_a_container_may_be_silent_for_as_long_as_it_may_run(
        self, street: Street, silent_s: float, kept: bool
    ) -> None:
        hosts: list[tuple[bytes, FakeChannel]] = [
            await street.host(offer=container("a", timeout_s=180.0)) for _ in range(2)
        ]
        job = await submit(street.core, chain_order(street, "a"))
        first = lease_of(job)

        for _ in range(10):
            street.clock.advance(seconds=silent_s / 10)
            for host_id, _ in hosts:
                street.core.fleet.seen(host_id)
        await sweep(street.core)
        await street.core.background.drain_tasks()

        assert (lease_of(job) is first) is kept
        await cancel(street.core, job)


class TestRestart:
    async def test_a_chain_goes_on_after_the_coordinator_was_killed(self, tmp_path: Path) -> None:
        keys = {name: SigningKey.generate() for name in "ab"}
        async with open_street(tmp_path) as street:
            for name, key in keys.items():
                await street.host(offer=container(name), public_key=key.public_key)
            job = await submit(street.core, chain_order(street, "a", "b", caller="10.0.0.9"))
            await done(street, job, signed_by=keys["a"])
            buyer, last = street.buyer_id, lease_of(job)
            street.core.jobs.live.close_lease(job)

        async with open_street(tmp_path, buyer=buyer) as street:
            again = street.core.jobs.live.get(job.id)
            assert again is not None and again is not job
            assert (again.kind.stage(again), again.model, again.caller, again.stages) == (
                1,
                "b",
                "10.0.0.9",
                job.stages,
            )
            assert [frame.text for frame in again.frames] == ['{"step":0}']
            street.link(last.host_id, FakeChannel())
            assert lease_of(again).id == last.id
            await done(street, again, signed_by=keys["b"])

            predicate = await receipt(street, again)
            assert (again.state, again.cost_uusd) == (JobState.COMPLETED, 2 * RUN_UUSD)
            assert [each.authenticated_by for each in predicate.segments] == [AuthenticatedBy.SIGNATURE] * 2
            assert await audit(street.core.db) == []

    async def test_a_mirror_that_is_taken_up_is_at_the_step_that_is_stored(self, street: Street) -> None:
        """It was made when the chain was at its first container, and would look for another host of that one."""
        await street.host(offer=container("a")), await street.host(offer=container("b"))
        job = await submit(street.core, chain_order(street, "a", "b"))
        mirror = street.core.jobs.revived(job.as_row(), now_s=0.0)
        await done(street, job)
        mirror.append(job.frames[:])
        stored = street.core.jobs.revived(await street.core.jobs.get(job.id, light=False), now_s=0.0)
        attempts, journal = await street.core.jobs.attempts(job.id), await street.core.jobs.journal([job.id])
        stored.revive_segments(attempts, journal[job.id], signing=frozenset())

        assert mirror.become_stored(stored, open_attempt=True)

        assert (mirror.kind.stage(mirror), mirror.model) == (1, "b")
        await cancel(street.core, job)

    async def test_a_drain_does_not_wait_for_a_step_that_is_in_line(self, street: Street) -> None:
        """The host of the next container is away: nothing is open, and the job is durable where it stands."""
        await street.host(offer=container("a"))
        b, _ = await street.host(offer=container("b"))
        job = await submit(street.core, chain_order(street, "a", "b"))
        street.unlink(b)
        draining = asyncio.create_task(drain(street.core))
        await asyncio.sleep(0)

        await done(street, job)

        assert await asyncio.wait_for(draining, 5) == 0
        assert (job.state, job.lease) == (JobState.QUEUED, None)
        await cancel(street.core, job)

    async def test_a_drain_waits_for_a_chain_that_goes_on(self, street: Street) -> None:
        await street.host(offer=container("a")), await street.host(offer=container("b"))
        job = await submit(street.core, chain_order(street, "a", "b"))
        draining = asyncio.create_task(drain(street.core))
        await asyncio.sleep(0)

        await done(street, job)
        await asyncio.sleep(0)
        assert not draining.done()
        await done(street, job)

        assert await asyncio.wait_for(draining, 5) == 0
        assert job.state == JobState.COMPLETED
