"""The bookkeeping of frames without any I/O."""

import asyncio
import struct

import pytest

from comptoir.link import Done, Fail, Frame, Frames, Usage, hash_after, hash_start
from comptoir.worker import leases
from comptoir.worker.leases import FrameTooBig, LeaseTable, WorkerLease
from tests.worker.coordinator_stand_in import make_job


def make_lease(*texts: str, start_seq: int = 0, window: int = 100) -> WorkerLease:
    lease = WorkerLease(make_job(1, start_seq=start_seq), window=window)
    for text in texts:
        lease.add(Frame(text))
    return lease


def texts(message: Frames | Done | Fail | None) -> tuple[int, list[str]]:
    assert isinstance(message, Frames)
    return message.seq, [frame.text for frame in message.items]


def done(lease: WorkerLease) -> Done:
    return Done(lease.lease, lease.end_seq, "stop", Usage(), lease.running_hash, b"")


class TestLease:
    def test_frames_are_numbered_from_the_start_and_taken_once(self) -> None:
        lease = make_lease("a", "b", start_seq=5)

        assert texts(lease.take(1000)[0]) == (5, ["a", "b"])
        assert lease.take(1000)[0] is None
        assert lease.end_seq == 7

    def test_the_chain_covers_all_frames(self) -> None:
        job = make_job(1)

        assert make_lease("a").running_hash == hash_after(hash_start(job.job_id), Frame("a"))

    def test_the_chain_goes_on_from_a_prefix(self) -> None:
        before = Frame("a")
        lease = WorkerLease(make_job(1, start_seq=1, prefix=[before]), window=10)

        assert lease.running_hash == hash_after(hash_start(lease.job_id), before)

    def test_a_batch_is_bounded_but_never_empty(self) -> None:
        lease = make_lease("aaaa", "bbbb", "cccc")

        assert texts(lease.take(5)[0]) == (0, ["aaaa", "bbbb"])
        assert texts(lease.take(1)[0]) == (2, ["cccc"])

    @pytest.mark.parametrize("next_seq", [-1, 0, 4, 1000])
    def test_an_impossible_acknowledgement_changes_nothing(self, next_seq: int) -> None:
        lease = make_lease("a", "b", "c")

        lease.ack(next_seq)

        assert (lease.base_seq, len(lease.frames)) == (0, 3)

    def test_what_is_acknowledged_is_not_sent_and_not_waited_for_again(self) -> None:
        lease = make_lease("a", "bb", "c", window=2)

        lease.ack(2)

        assert (lease.acked_seq, lease.unacked_bytes, lease.full) == (2, 1, False)
        assert texts(lease.take(1000)[0]) == (2, ["c"])

    @pytest.mark.parametrize("next_seq", [0, 1, 2, 3])
    def test_a_coordinator_that_lost_its_memory_gets_all_of_it_again(self, next_seq: int) -> None:
        lease = make_lease("a", "b", "c")
        lease.take(1000)
        lease.ack(3)

        assert lease.rewind(next_seq)

        assert lease.unacked_bytes == 3 - next_seq
        if next_seq < 3:
            assert texts(lease.take(1000)[0]) == (next_seq, ["a", "b", "c"][next_seq:])
        else:
            assert lease.take(1000) == (None, 0)
        lease.ack(3)
        assert lease.unacked_bytes == 0

    @pytest.mark.parametrize(
        ("next_seq", "possible"), [(0, False), (4, False), (5, True), (9, True), (10, True), (11, False)]
    )
    def test_what_is_kept_is_bounded_and_it_rewinds_only_to_that(
        self, next_seq: int, possible: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leases, "FRAME_OVERHEAD_BYTES", 0)
        monkeypatch.setattr(leases, "KEPT_BYTES_MAX", 9)
        lease = make_lease(*"abcdefghij")
        lease.ack(5)

        assert (lease.base_seq, lease.kept_bytes) == (5, 5)
        assert lease.rewind(next_seq) is possible

    @pytest.mark.parametrize("next_seq", [0, 1, 2, 3, 4])
    def test_a_coordinator_that_lost_the_prefix_gets_that_again_too(self, next_seq: int) -> None:
        """Another host made those frames; this one is the only one left that has them."""
        before = [Frame("a"), Frame("b")]
        lease = WorkerLease(make_job(1, start_seq=2, prefix=before), window=100)
        assert lease.take(1000) == (None, 0)
        lease.add(Frame("c"))
        lease.add(Frame("d"))
        lease.take(1000)
        lease.ack(4)

        assert lease.rewind(next_seq)

        assert (lease.start_seq, lease.end_seq, lease.tokens) == (2, 4, 2)
        if next_seq < 4:
            assert texts(lease.take(1000)[0]) == (next_seq, ["a", "b", "c", "d"][next_seq:])

    @pytest.mark.parametrize(
        ("next_seq", "possible"), [(0, False), (5, False), (6, True), (10, True), (11, True), (12, False)]
    )
    def test_a_prefix_is_kept_as_far_as_there_is_room(
        self, next_seq: int, possible: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leases, "FRAME_OVERHEAD_BYTES", 0)
        monkeypatch.setattr(leases, "KEPT_BYTES_MAX", 9)
        lease = WorkerLease(make_job(1, start_seq=10, prefix=[Frame(one) for one in "abcdefghij"]), window=100)
        lease.add(Frame("k"))

        assert (lease.base_seq, lease.kept_bytes, lease.unacked_bytes) == (6, 5, 1)
        assert lease.rewind(next_seq) is possible

    def test_after_a_rewind_the_rest_and_the_end_are_sent_again(self) -> None:
        lease = make_lease("a", "b", "c")
        lease.closing = done(lease)
        lease.take(1000)
        assert lease.take_closing() is not None

        lease.rewind(1)

        assert lease.take_closing() is None
        assert texts(lease.take(1000)[0]) == (1, ["b", "c"])
        assert lease.take_closing() == lease.closing

    @pytest.mark.parametrize("frame", [Frame("x" * 11), Frame("", 0, b"x" * 41)])
    def test_a_frame_no_message_can_carry_is_refused(self, frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(leases, "FRAME_BYTES_MAX", 40)
        lease = make_lease("x" * 10)

        with pytest.raises(FrameTooBig):
            lease.add(frame)

        assert lease.end_seq == 1

    @pytest.mark.parametrize("frame", [Frame("a", -1), Frame("\ud83d")])
    def test_a_frame_no_message_can_say_leaves_nothing_behind(self, frame: Frame) -> None:
        """The coordinator would end the connection over it, and every other answer with that."""
        lease = make_lease("x")
        before = lease.running_hash

        with pytest.raises((struct.error, UnicodeEncodeError)):
            lease.add(frame)

        assert (lease.frames, lease.end_seq, lease.running_hash) == ([Frame("x")], 1, before)

    async def test_room_comes_with_an_acknowledgement(self) -> None:
        lease = make_lease("a", "b", window=2)
        waiting = asyncio.create_task(lease.room())
        await asyncio.sleep(0)
        assert not waiting.done()

        lease.ack(1)

        await waiting


class TestLeaseTable:
    def test_consecutive_frames_of_a_lease_are_one_message_with_its_end(self) -> None:
        table = LeaseTable()
        held = table.open(make_job(1))
        for text in ("a", "b"):
            held.add(Frame(text))
            table.touch(held)
        table.close(held, done(held))

        batch = table.take(1000)

        assert len(batch) == 2
        assert texts(batch[0]) == (0, ["a", "b"])
        assert batch[1] == done(held)
        assert table.take(1000) == []

    def test_what_does_not_fit_comes_with_the_next_batch(self) -> None:
        table = LeaseTable()
        for number in (1, 2):
            held = table.open(make_job(number))
            held.add(Frame("x" * 10))
            held.add(Frame("y" * 10))
            table.touch(held)

        sizes = [len(table.take(15)) for _ in range(3)]

        assert sizes == [1, 1, 0]

    def test_a_lease_ends_once(self) -> None:
        table = LeaseTable()
        held = table.open(make_job(1))

        assert table.close(held, done(held))
        assert not table.close(held, Fail(held.lease, "x", "y", "host"))
        assert table.running == 0
        assert held.closing == done(held)

    def test_a_forgotten_lease_was_seen(self) -> None:
        table = LeaseTable()
        held = table.open(make_job(1))

        table.forget(held.lease)

        assert table.seen(held.lease) and table.get(held.lease) is None
        assert table.running == 0
        assert table.forget(held.lease) is None

    def test_what_is_remembered_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(leases, "FORGOTTEN_REMEMBERED", 2)
        monkeypatch.setattr(leases, "SETTLING_LEASES_MAX", 2)
        table = LeaseTable()
        for number in range(5):
            held = table.open(make_job(number))
            table.close(held, done(held))

        assert len(table) == 2
        assert [table.seen(make_job(number).lease) for number in range(5)] == [False, True, True, True, True]
