"""Transitions: from each stand a job may make certain moves and no other, and what is undone is exactly as it was
before."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from comptoir.jobs import Change, Fault, JobState, Lease, LiveJob, LiveJobs
from comptoir.jobs.answer import FRAME_OVERHEAD_BYTES, StoredAnswer
from comptoir.kinds import ContainerChain, Stage
from comptoir.kit.ids import new_id
from comptoir.link import Frame, Usage
from tests.rooms.jobs.test_live import make_job

PEER = b"p" * 16

Room = tuple[LiveJobs, LiveJob]


def make_lease(job: LiveJob, *, revived: bool = False) -> Lease:
    return Lease(
        id=new_id(),
        host_id=b"h" * 16,
        model="m",
        first_frame=len(job.frames),
        rate_in=1,
        rate_out=1,
        started_ms=7,
        started_s=0.0,
        hash_before=job.running_hash,
        revived=revived,
    )


def all_of(room: Room) -> dict[str, Any]:
    """Return everything that a transition could change, by name; what can be changed in place as a copy."""
    live, job = room
    assert job.count >= 0  # Frames are measured when that is asked for, which changes nothing but what is remembered.
    slots = {name: getattr(job, name) for name in LiveJob.__slots__}
    tables = {f"live.{name}": value for name, value in vars(live).items()}
    return {name: value.copy() if hasattr(value, "copy") else value for name, value in (slots | tables).items()}


def end(room: Room, state: JobState = JobState.COMPLETED) -> None:
    room[1].end(
        state,
        cost_uusd=5,
        usage=Usage(1, 2),
        finish_reason="stop",
        fault=Fault.NONE,
        error_code="",
        error_message="",
        error_status=0,
        error_body=b"",
        retry_after_s=0.0,
        host_id=room[1].host_id,
    )


# -- where a job may stand ---------------------------------------------------------------------------------------


def queued() -> Room:
    live, job = LiveJobs(), make_job()
    live.add(job)
    return live, job


def leased() -> Room:
    live, job = queued()
    live.lease_to(job, make_lease(job))
    return live, job


def running() -> Room:
    live, job = leased()
    assert job.lease is not None
    job.begin_running(job.lease)
    job.append([Frame("a"), Frame("b", tokens=2)])
    return live, job


def standing_still() -> Room:
    live, job = running()
    assert job.lease is not None
    with live.requeue(job, job.lease, unpaid=False):
        pass
    live.stand_still(job, 3.0)
    return live, job


def hedged() -> Room:
    live, job = leased()
    job.begin_hedge(make_lease(job))
    return live, job


def closing() -> Room:
    live, job = running()
    job.begin_closing()
    live.close_lease(job)
    return live, job


def kept() -> Room:
    """Its end waits for the database; the worker is still told that the lease is known."""
    live, job = running()
    job.begin_closing()
    live.close_lease(job).undo()
    return live, job


def mirror() -> Room:
    live, job = queued()
    live.become_mirror(job, PEER)
    return live, job


def over() -> Room:
    room = closing()
    end(room)
    room[0].retire(room[1])
    return room


STANDS: dict[str, Callable[[], Room]] = {
    each.__name__: each for each in (queued, leased, running, standing_still, hedged, closing, kept, mirror, over)
}


# -- what it may do ----------------------------------------------------------------------------------------------


def lease_to(live: LiveJobs, job: LiveJob) -> Change:
    return live.lease_to(job, make_lease(job))


def begin_running(live: LiveJobs, job: LiveJob) -> None:
    job.begin_running(job.lease or make_lease(job))


def requeue(live: LiveJobs, job: LiveJob) -> Change:
    with live.requeue(job, job.lease or make_lease(job), unpaid=False) as (change, _):
        return change


def begin_closing(live: LiveJobs, job: LiveJob) -> Change:
    return job.begin_closing()


def close_lease(live: LiveJobs, job: LiveJob) -> Change:
    return live.close_lease(job)


def blame(live: LiveJobs, job: LiveJob) -> Change:
    return job.blame(b"h" * 16, again=False)


def begin_hedge(live: LiveJobs, job: LiveJob) -> None:
    job.begin_hedge(make_lease(job))


def stand_still(live: LiveJobs, job: LiveJob) -> None:
    live.stand_still(job, 4.0)


def complete(live: LiveJobs, job: LiveJob) -> None:
    end((live, job))


def refuse(live: LiveJobs, job: LiveJob) -> None:
    live.refuse(job)


def become_mirror(live: LiveJobs, job: LiveJob) -> None:
    live.become_mirror(job, b"")


def adopt(live: LiveJobs, job: LiveJob) -> None:
    live.adopt(job)


def follow_owner(live: LiveJobs, job: LiveJob) -> None:
    job.follow_owner(JobState.RUNNING, host_id=b"h" * 16, started_ms=1, restarts=0)


def accept_offer(live: LiveJobs, job: LiveJob) -> None:
    job.accept_offer(job.as_row(), events=1, answers=1, tried=())


def break_off(live: LiveJobs, job: LiveJob) -> None:
    job.break_off()


def reattach(live: LiveJobs, job: LiveJob) -> None:
    live.reattach(job, make_lease(job, revived=True))


MINE = {"queued", "leased", "running", "standing_still", "hedged", "closing", "kept"}

ARROWS: list[tuple[Callable[[LiveJobs, LiveJob], Change | None], set[str]]] = [
    # transition, where it may start; from everywhere else it is refused
    (lease_to, {"queued", "standing_still", "mirror"}),
    (begin_running, {"leased", "hedged"}),
    (requeue, {"leased", "running", "hedged", "kept"}),
    (begin_closing, {"queued", "leased", "running", "standing_still", "hedged", "mirror"}),
    (close_lease, {*STANDS}),
    (blame, {*STANDS}),
    (begin_hedge, {"leased", "running"}),
    (stand_still, {"queued", "standing_still", "mirror"}),
    (complete, {*MINE, "mirror"}),
    (refuse, MINE),
    (become_mirror, MINE),
    (adopt, {"mirror"}),
    (follow_owner, {"mirror"}),
    (accept_offer, {"mirror"}),
    (break_off, {*MINE, "mirror"}),
    (reattach, {"queued", "standing_still", "mirror"}),
]

MAY = [
    pytest.param(move, STANDS[at], id=f"{at}-{move.__name__}") for move, froms in ARROWS for at in STANDS if at in froms
]
MAY_NOT = [
    pytest.param(move, STANDS[at], id=f"{at}-{move.__name__}")
    for move, froms in ARROWS
    for at in STANDS
    if at not in froms
]

UNDOABLE = (lease_to, requeue, begin_closing, close_lease, blame)


class TestArrows:
    @pytest.mark.parametrize(("move", "stand"), MAY)
    def test_it_may(self, move: Callable[[LiveJobs, LiveJob], Change | None], stand: Callable[[], Room]) -> None:
        change = move(*stand())

        assert (change is not None) == (move in UNDOABLE)

    @pytest.mark.parametrize(("move", "stand"), MAY_NOT)
    def test_it_may_not_and_nothing_is_changed(
        self, move: Callable[[LiveJobs, LiveJob], Change | None], stand: Callable[[], Room]
    ) -> None:
        room = stand()
        before = all_of(room)

        with pytest.raises(AssertionError):
            move(*room)

        assert all_of(room) == before


class TestUndo:
    @pytest.mark.parametrize(("move", "stand"), [each for each in MAY if each.values[0] in UNDOABLE])
    def test_everything_is_as_before(
        self, move: Callable[[LiveJobs, LiveJob], Change], stand: Callable[[], Room]
    ) -> None:
        room = stand()
        before = all_of(room)

        assert move(*room).undo()

        assert all_of(room) == before

    def test_of_a_chain_the_step_and_its_container_too(self) -> None:
        live, job = queued()
        job.kind, job.stages, job.model = ContainerChain(), (Stage("m", 1), Stage("n", 1)), "m"
        live.lease_to(job, lease := make_lease(job))
        job.begin_running(lease)
        job.append([Frame("{}")])
        before = all_of((live, job))

        with live.requeue(job, lease, unpaid=False, signature=b"s") as (change, piece):
            assert (job.model, len(job.segments), bool(piece)) == ("n", 1, True)
            assert change.undo()

        assert all_of((live, job)) == before

    def test_a_lease_that_is_closed_meanwhile_is_left_closed(self) -> None:
        """The job was ended while its lease was being written: its slot is free already."""
        live, job = queued()
        leased = live.lease_to(job, make_lease(job))
        job.begin_closing()
        live.close_lease(job)
        before = all_of((live, job))

        assert not leased.undo()

        assert all_of((live, job)) == before

    @pytest.mark.parametrize("gone", [become_mirror, refuse])
    @pytest.mark.parametrize("move", [requeue, begin_closing, close_lease])
    def test_a_job_that_is_no_longer_ours_does_not_get_its_lease_back(
        self, move: Callable[[LiveJobs, LiveJob], Change], gone: Callable[[LiveJobs, LiveJob], None]
    ) -> None:
        room = running()
        change = move(*room)
        gone(*room)
        before = all_of(room)

        assert not change.undo()

        assert all_of(room) == before

    def test_an_end_that_was_begun_over_it_is_not_undone_with_it(self) -> None:
        """The database refuses to close an attempt while the job's end waits behind it: the end finds the lease
        again."""
        live, job = running()
        lease = job.lease
        requeued = requeue(live, job)
        closing = job.begin_closing()

        assert requeued.undo()

        assert (job.lease, job.state, job.closing) == (lease, JobState.RUNNING, True)
        assert closing.undo()
        assert not job.closing


class TestRecall:
    def test_two_readers_that_read_an_answer_at_once_have_it_once(self) -> None:
        _, job = queued()
        job.begin_closing()
        end((LiveJobs(), job))

        for _ in range(2):
            job.recall(StoredAnswer.of(msgspec.msgpack.encode([Frame("a", tokens=3)]), b"{}"))

        assert [frame.text for frame in job.frames] == ["a"] and job.usage.details == b"{}"
        assert (job.usage.completion_tokens, job.frame_bytes) == (2, 1 + FRAME_OVERHEAD_BYTES)


class TestLeaving:
    def test_a_lease_is_leaving_for_as_long_as_its_end_is_written(self) -> None:
        live, job = running()
        lease = job.lease
        assert lease is not None

        with suppress(RuntimeError), live.requeue(job, lease, unpaid=False):
            assert (list(live.leaving), live.leased, live.slots_of(lease.host_id)) == ([lease], 0, 1)
            raise RuntimeError

        assert (list(live.leaving), live.slots_of(lease.host_id)) == ([], 0)


class TestMirror:
    def test_that_it_is_over_is_said_by_its_end_alone(self) -> None:
        """Its last frames come before its end: a reader that is woken by them must not take it for over without its
        figures."""
        live, job = mirror()

        job.follow_owner(JobState.COMPLETED, host_id=None, started_ms=1, restarts=0)

        assert not job.over and job.started_ms == 1
        end((live, job))
        assert (job.state, job.cost_uusd, job.owner_node, job.receipt_id) == (JobState.COMPLETED, 5, b"", job.id)

    def test_one_that_is_retired_is_no_mirror_any_more(self) -> None:
        live, job = mirror()
        end((live, job))

        live.retire(job)

        assert not live.mirrors and live.seen(job.id) is job

    @pytest.mark.parametrize(
        ("stand", "slots"),
        [(queued, 0), (running, 1), (closing, 0), (kept, 0)],
        ids=lambda each: getattr(each, "__name__", None),
    )
    def test_it_gives_back_the_slot_that_is_still_taken(self, stand: Callable[[], Room], slots: int) -> None:
        live, job = stand()

        lease = live.become_mirror(job, PEER)

        assert (lease is not None) == bool(slots)
        assert (job.lease, job.closing, live.get(job.id), live.mirrors) == (None, False, None, {job.id: job})
