"""Bounds that the settings name are kept."""

import logging
from pathlib import Path

import pytest

from comptoir.dispatch.errors import AnswerTooLarge, BadSegment
from comptoir.dispatch.stream import (
    CODE_CHARS_MAX,
    ERROR_BODY_BYTES_MAX,
    complete,
    fail,
    leased_job,
    take_frames,
)
from comptoir.jobs import Fault, JobState, NotYourLease
from comptoir.kit.errors import NotAllowed
from comptoir.ledger import audit
from comptoir.link import Frame, Usage
from tests.dispatch.continuing import done, lease_of, receipt
from tests.street import GOES_ON, Street, open_street


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

    async def test_what_stands_beside_its_text_is_not_even_decoded(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, answer_bytes_max=1024) as street:
            await street.host()
            job = await street.submit(max_tokens=100)

            with pytest.raises(AnswerTooLarge):
                take_frames(street.core, job, 0, [Frame("", 0, b"not json" * 200)])

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


LARGE = 1_000_000
ENDS = [
    ("x" * LARGE, Usage(1, 1)),
    ("x" * 65, Usage(1, 1)),
    ("stop", Usage(1, 1, b"not json")),
    ("stop", Usage(1, 1, b"[]")),
    ("stop", Usage(1, 1, b'{"a":"\xff"}')),
    ("stop", Usage(1, 1, b'{"a":' + b"[" * 99 + b"]" * 99 + b"}")),
]


class TestWhatAHostSays:
    """Its words are kept for ever in receipts, shown to buyers and written into logs."""

    @pytest.mark.parametrize(("reason", "usage"), ENDS, ids=range(len(ENDS)))
    async def test_an_end_that_no_receipt_could_hold_is_its_fault_and_another_goes_on(
        self, street: Street, reason: str, usage: Usage, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        await street.host(offer=GOES_ON)
        job = await street.submit()
        good, _ = await street.host(offer=GOES_ON)
        take_frames(street.core, job, 0, [Frame("a")])

        with pytest.raises(BadSegment):
            await complete(street.core, job, finish_reason=reason, usage=usage)

        assert (job.state, lease_of(job).host_id) == (JobState.RUNNING, good)
        await done(street, job, 1)
        assert [(a.state, a.fault) for a in await street.core.jobs.attempts(job.id)] == [
            ("failed", "host"),
            ("done", None),
        ]
        await receipt(street, job)
        assert len(await street.core.receipts.envelope_of(job.id)) < 10_000
        assert len(caplog.text) < 10_000
        assert await audit(street.core.db) == []

    async def test_a_reason_of_an_engine_that_we_do_not_know_is_taken(self, street: Street) -> None:
        await street.host()
        job = await street.submit()
        take_frames(street.core, job, 0, [Frame("a")])

        await complete(street.core, job, finish_reason="insufficient_system_resource", usage=Usage(1, 1, b'{"a":1}'))

        assert (await street.core.jobs.get(job.id)).finish_reason == "insufficient_system_resource"
        await receipt(street, job)

    @pytest.mark.parametrize("fault", [Fault.BUYER, Fault.HOST])
    async def test_what_it_says_of_a_failure_is_cut(
        self, street: Street, fault: Fault, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        await street.host()
        job = await street.submit()

        await fail(street.core, job, code="c" * LARGE, message="m" * LARGE, fault=fault, status=400, body=b"b" * LARGE)

        stored = await street.core.jobs.get(job.id)
        assert (stored.state, stored.error_code) == (JobState.FAILED, "c" * CODE_CHARS_MAX)
        assert (stored.error_message, job.error_body) == ("m" * 500, b"")
        assert len(caplog.text) < 40_000
        await receipt(street, job)

    async def test_an_error_body_is_kept_up_to_what_workers_send(self, street: Street) -> None:
        await street.host()
        job = await street.submit()
        body = b"b" * ERROR_BODY_BYTES_MAX

        await fail(street.core, job, code="bad_request", message="no", fault=Fault.BUYER, status=400, body=body)

        assert job.error_body == body
