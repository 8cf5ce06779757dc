"""Live jobs and their readers: anybody may start anywhere, a slow reader holds up nobody."""

import asyncio

import msgspec
import pytest

from comptoir.jobs import Fault, JobState, Lease, LiveJob, LiveJobs, Reader, StoredAnswer, decode_frames, live
from comptoir.jobs.types import AttemptRow
from comptoir.kinds import Chat, Terms
from comptoir.kit.ids import new_id
from comptoir.link import Frame, Usage, hash_after, hash_start


def make_job(*, owner_id: bytes = b"o" * 16) -> LiveJob:
    return LiveJob(
        id=new_id(),
        owner_id=owner_id,
        dialect="test",
        kind=Chat(),
        model="m",
        body=b"{}",
        terms=Terms(10, 100, 1, 1, 100),
        detached=True,
        deadline_ms=1,
        created_ms=0,
        submitted_s=0.0,
    )


def make_lease(*, host_id: bytes = b"h" * 16) -> Lease:
    return Lease(
        id=new_id(), host_id=host_id, model="m", first_frame=0, rate_in=1, rate_out=1, started_ms=1, started_s=0.0
    )


def end(job: LiveJob) -> None:
    job.end(
        JobState.COMPLETED,
        cost_uusd=0,
        usage=Usage(),
        finish_reason="stop",
        fault=Fault.NONE,
        error_code="",
        error_message="",
        error_status=0,
        error_body=b"",
        retry_after_s=0.0,
        host_id=None,
    )
    job.wake()


async def texts(reader: Reader) -> list[str]:
    found = []
    while (frames := await reader.next()) is not None:
        found += [frame.text for frame in frames]
    return found


class TestBecomeStored:
    def test_a_mirror_has_the_terms_that_the_job_was_quoted_anew_elsewhere(self) -> None:
        """It was read before: the receipt said what was held then, and the books what is held now."""
        mirror, stored = make_job(), make_job()
        mirror.owned_by(b"n" * 16)
        stored.terms = Terms(10, 100, 7, 7, 700)

        assert mirror.become_stored(stored, open_attempt=False)

        assert mirror.terms == stored.terms

    def test_so_does_one_that_is_offered_the_job_after_that(self) -> None:
        mirror, stored = make_job(), make_job()
        mirror.owned_by(b"n" * 16)
        stored.terms = Terms(10, 100, 7, 7, 700)

        mirror.accept_offer(stored.as_row(), events=1, answers=1, tried=())

        assert mirror.terms == stored.terms


class TestReviveSegments:
    def test_they_follow_each_other_by_their_frames_whatever_the_clocks_said(self) -> None:
        """Ids begin with a time: of two coordinators, the one whose clock was set back made the second attempt, and the
        receipt had its frames first."""
        frames = [Frame("a"), Frame("b"), Frame("c")]
        job = make_job()
        late, early = [
            AttemptRow(
                id=bytes([number]) * 16, host_id=bytes([number]) * 16, state="lost", first_frame=first,
                end_frame=end, tokens=end - first, paid_uusd=0, started_ms=1, ended_ms=2, fault=None, chain=b"c" * 32,
                prompt_tokens=None, price_in=None, price_out=None,
            )
            for number, first, end in ((1, 1, 3), (2, 0, 1))
        ]  # fmt: skip

        job.revive_segments(
            [late, early], [msgspec.msgpack.encode(frames[:1]), msgspec.msgpack.encode(frames[1:])], signing=frozenset()
        )

        found = [(part.lease.host_id, part.end_frame) for part in job.segments]
        assert found == [(early.host_id, 1), (late.host_id, 3)]
        assert job.frames == frames


class TestAppend:
    def test_frames_tokens_and_chain_move_together(self) -> None:
        job, frames = make_job(), [Frame("a"), Frame("b", tokens=2)]

        assert job.append(frames)

        chain = hash_start(job.id)
        for frame in frames:
            chain = hash_after(chain, frame)
        assert (job.frames, job.count, job.running_hash) == (frames, 3, chain)

    def test_past_the_bound_nothing_is_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(live, "FRAME_BYTES_MAX", 100)
        job = make_job()
        job.append([Frame("a" * 50)])
        chain = job.running_hash

        assert not job.append([Frame("b"), Frame("c" * 50)])

        assert (len(job.frames), job.count, job.running_hash) == (1, 1, chain)

    def test_stored_and_read_back_they_are_the_same(self) -> None:
        job = make_job()
        assert decode_frames(job.encode_frames()) == []
        job.append([Frame("a"), Frame("é", tokens=0, extra=b'{"x":1}')])

        assert decode_frames(job.encode_frames()) == job.frames

    def test_whether_a_frame_has_an_extra_is_known_however_it_came(self) -> None:
        """A dialect that took an answer for plain would give its text alone."""
        job, again = make_job(), make_job()

        job.append([Frame("é")])
        assert not job.has_extras
        job.append([Frame("b", extra=b'{"x":1}'), Frame("c")])
        assert job.has_extras
        end(again)
        again.recall(StoredAnswer.of(job.encode_frames(), b""))
        assert again.has_extras and again.frame_bytes == job.frame_bytes
        job.restart(keep=1)
        assert not job.has_extras


class TestReader:
    async def test_it_gets_what_is_there_and_what_comes(self) -> None:
        job = make_job()
        job.append([Frame("a")])
        reading = asyncio.create_task(texts(Reader(job)))
        await asyncio.sleep(0)
        job.append([Frame("b"), Frame("c")])
        await asyncio.sleep(0)
        job.append([Frame("d")])
        end(job)

        assert await reading == ["a", "b", "c", "d"]

    async def test_it_may_start_anywhere(self) -> None:
        job = make_job()
        job.append([Frame(text) for text in "abcd"])
        end(job)

        assert await texts(Reader(job, start=2)) == ["c", "d"]
        assert await texts(Reader(job, start=4)) == []

    async def test_one_that_waited_in_vain_leaves_nothing_behind(self) -> None:
        """A reader pings every 15 s for the life of the job; the job must not remember each time."""
        job = make_job()
        reader = Reader(job)

        assert [await reader.next(timeout_s=0.001) for _ in range(5)] == [[]] * 5

        assert job._waiters == []
        leaving = asyncio.create_task(reader.next())
        await asyncio.sleep(0)
        reader.leave()
        assert await leaving is None
        assert job._waiters == []

    async def test_a_slow_one_gets_all_at_once(self) -> None:
        job = make_job()
        slow = Reader(job)
        for text in "abc":
            job.append([Frame(text)])
        end(job)

        assert [frame.text for frame in await slow.next() or []] == ["a", "b", "c"]
        assert await slow.next() is None

    async def test_many_are_woken_by_one_frame(self) -> None:
        job = make_job()
        readings = [asyncio.create_task(texts(Reader(job))) for _ in range(50)]
        await asyncio.sleep(0)
        job.append([Frame("a")])
        end(job)

        assert await asyncio.gather(*readings) == [["a"]] * 50

    async def test_after_a_while_without_news_it_says_so(self) -> None:
        job = make_job()
        reader = Reader(job)

        assert await reader.next(timeout_s=0.001) == []
        job.append([Frame("a")])
        assert [frame.text for frame in await reader.next(timeout_s=10) or []] == ["a"]

    async def test_leaving_ends_it_and_no_other(self) -> None:
        job = make_job()
        leaving, staying = Reader(job), Reader(job)
        first, second = asyncio.create_task(leaving.next()), asyncio.create_task(staying.next())
        await asyncio.sleep(0)

        leaving.leave()

        assert await first is None
        job.append([Frame("a")])
        assert await second is not None
        assert await leaving.next() is None

    async def test_a_cancelled_one_does_not_stop_the_waking_of_others(self) -> None:
        job = make_job()
        gone, staying = asyncio.create_task(Reader(job).next()), asyncio.create_task(Reader(job).next())
        await asyncio.sleep(0)
        gone.cancel()

        job.append([Frame("a")])

        assert await staying is not None


class TestLiveJobs:
    def test_a_job_is_found_by_id_and_by_lease(self) -> None:
        jobs, job, lease = LiveJobs(), make_job(), make_lease()
        jobs.add(job)
        jobs.lease_to(job, lease)

        assert (jobs.get(job.id), jobs.by_lease(lease.id), jobs.leases_of(lease.host_id)) == (job, job, [job])
        assert (len(jobs), jobs.leased, job.host_id) == (1, 1, lease.host_id)

    def test_a_closed_lease_opens_nothing(self) -> None:
        jobs, job, lease = LiveJobs(), make_job(), make_lease()
        jobs.add(job)
        jobs.lease_to(job, lease)

        jobs.close_lease(job)
        jobs.close_lease(job)

        assert (jobs.by_lease(lease.id), jobs.leases_of(lease.host_id), jobs.leased, job.lease) == (None, [], 0, None)

    def test_a_dropped_one_is_gone_and_its_readers_go_on(self) -> None:
        jobs, job = LiveJobs(), make_job()
        jobs.add(job)
        reader = Reader(job)
        jobs.drop(job)
        jobs.drop(job)

        assert (jobs.get(job.id), len(jobs), reader.job) == (None, 0, job)


class TestDue:
    def test_it_is_exactly_those_whose_deadline_has_come(self) -> None:
        live = LiveJobs()
        jobs = {deadline_ms: make_job() for deadline_ms in (999, 1000, 1001, 1999, 2000, 90_000)}
        for deadline_ms, job in jobs.items():
            job.deadline_ms = deadline_ms
            live.add(job)

        assert {job.deadline_ms for job in live.due(998)} == set()
        assert {job.deadline_ms for job in live.due(1000)} == {999, 1000}
        assert {job.deadline_ms for job in live.due(1999)} == {999, 1000, 1001, 1999}

    def test_who_is_dropped_is_not_due(self) -> None:
        live, first, second = LiveJobs(), make_job(), make_job()
        first.deadline_ms = second.deadline_ms = 1000
        live.add(first)
        live.add(second)

        live.drop(first)
        live.drop(first)

        assert live.due(5000) == [second]
        live.drop(second)
        assert live.due(5000) == []


class TestRestart:
    @pytest.mark.parametrize(("read", "outdated"), [(0, False), (2, False), (3, True)])
    async def test_who_has_read_beyond_it_is_ended(self, read: int, outdated: bool) -> None:
        """A reader of what is kept goes on; one who saw a frame that is gone must not be shown another in its place."""
        job = make_job()
        reader = Reader(job, start=read)
        job.append([Frame(text) for text in "abc"][: max(read, 2)])

        job.restart(keep=2)
        job.append([Frame("d")])

        assert (await reader.next() is None, reader.outdated) == (outdated, outdated)
