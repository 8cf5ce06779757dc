"""Bounds that the settings name are kept."""

from pathlib import Path

import pytest

from comptoir.dispatch.errors import AnswerTooLarge
from comptoir.dispatch.stream import complete, fail, leased_job, take_frames
from comptoir.jobs import Fault, JobState, NotYourLease
from comptoir.kit.errors import NotAllowed
from comptoir.link import Frame, Usage
from tests.street import Street, open_street


class TestHostsMax:
    async def test_a_host_too_many_is_refused(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, hosts_max=1) as street:
            await street.host()

            with pytest.raises(NotAllowed, match="takes 1 hosts"):
                await street.host()

            assert len(street.core.fleet) == 1


class TestAnswerBytesMax:
    async def test_an_answer_beyond_it_is_not_taken(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, answer_bytes_max=1024) as street:
            await street.host()
            job = await street.submit(max_tokens=100)
            take_frames(street.core, job, 0, [Frame("x" * 1000)])

            with pytest.raises(AnswerTooLarge):
                take_frames(street.core, job, 1, [Frame("x" * 100)])

            assert len(job.frames) == 1

    async def test_it_counts_bytes_and_not_characters(self, tmp_path: Path) -> None:
        """Whoever goes on gets all frames in one message of the link, which is bounded in bytes."""
        async with open_street(tmp_path, answer_bytes_max=1024) as street:
            await street.host()
            job = await street.submit(max_tokens=100)

            with pytest.raises(AnswerTooLarge):
                take_frames(street.core, job, 0, [Frame("\u6f22" * 400)])


class TestLeasedJob:
    async def test_a_lease_is_good_for_its_own_host_alone(self, street: Street) -> None:
        host_id, _ = await street.host()
        other_id, _ = await street.host()
        job = await street.submit()
        assert job.lease is not None
        holder, stranger = (host_id, other_id) if job.lease.host_id == host_id else (other_id, host_id)

        assert leased_job(street.core, holder, job.lease.id) is job
        with pytest.raises(NotYourLease):
            leased_job(street.core, stranger, job.lease.id)


class TestOutputMax:
    async def test_a_few_tokens_beyond_it_are_forgiven_and_no_more(self, street: Street) -> None:
        await street.host()
        job = await street.submit(max_tokens=2)
        over = job.kind.output_over_max

        take_frames(street.core, job, 0, [Frame("x") for _ in range(2 + over)])
        with pytest.raises(AnswerTooLarge):
            take_frames(street.core, job, 2 + over, [Frame("x")])

        assert len(job.frames) == 2 + over


class TestNul:
    """PostgreSQL has no text with NUL in it, and a host may say anything: the job must be written all the same."""

    async def test_in_why_a_host_failed_it_goes_on(self, either_street: Street) -> None:
        for _ in range(2):
            await either_street.host()
        job = await either_street.submit()
        first = job.lease

        await fail(either_street.core, job, code="a\0b", message="c\0d", fault=Fault.HOST)

        assert job.state == JobState.RUNNING
        assert job.lease is not first

    async def test_in_the_code_it_ends_with_it_ends(self, either_street: Street) -> None:
        await either_street.host()
        job = await either_street.submit()

        await fail(either_street.core, job, code="a\0b", message="c\0d", fault=Fault.BUYER)

        stored = await either_street.core.jobs.get(job.id)
        assert (stored.state, stored.error_code, stored.error_message) == (JobState.FAILED, "a\ufffdb", "c\ufffdd")

    async def test_in_its_finish_reason_it_ends(self, either_street: Street) -> None:
        await either_street.host()
        job = await either_street.submit()
        take_frames(either_street.core, job, 0, [Frame("x")])

        await complete(either_street.core, job, finish_reason="st\0p", usage=Usage(1, 1))

        assert (await either_street.core.jobs.get(job.id)).finish_reason == "st\ufffdp"
