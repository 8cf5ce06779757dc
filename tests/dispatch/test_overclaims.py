"""A host that claims more than it delivered: it is paid for what came, the receipt shows its claim, and its name
suffers."""

import logging

import pytest

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.settle import segment_of
from comptoir.dispatch.stream import take_frames
from comptoir.jobs import Fault, JobState
from comptoir.kit.ids import public
from comptoir.kit.signing import SigningKey
from comptoir.ledger import audit
from comptoir.link import COUNT_MAX, Done, Frame, Frames, Usage, segment_bytes
from comptoir.transports.job_message import job_message
from comptoir.transports.link.session import Session
from tests.dispatch.continuing import done, earned, lease_of, lost, receipt
from tests.street import GOES_ON, Street

MOST = 500


async def answered(street: Street, frames: list[Frame], usage: Usage) -> tuple[bytes, int]:
    """Have a linked host answer with *frames* and *usage*, signed; return its id, and what its buyer pays."""
    key = SigningKey.generate()
    host, _ = await street.host(public_key=key.public_key)
    job = await street.submit(max_tokens=MOST)
    lease = lease_of(job)
    session = Session(street.core, street.core.fleet.get(host), None)  # type: ignore[arg-type]
    session._act(Frames(lease.id, 0, frames))
    signature = key.sign(segment_bytes(segment_of(job, lease, "stop", usage)))
    session._act(Done(lease.id, len(frames), "stop", usage, job.running_hash, signature))
    await street.core.background.drain_tasks()
    assert job.state is JobState.COMPLETED
    assert await audit(street.core.db) == []
    return job.id, job.cost_uusd


class TestOverTheLink:
    @pytest.mark.parametrize(
        ("frames", "usage", "cost", "counts", "claims", "blamed"),
        [
            # The attack: nothing at all, at the price of everything.
            ([Frame("", MOST)], Usage(COUNT_MAX, MOST), 0, (3 * 37 + 1_024, 0), (COUNT_MAX, MOST), True),
            ([Frame(" ", MOST)], Usage(0, MOST), 0, (0, 0), (None, MOST), True),
            ([Frame("a", MOST)], Usage(0, MOST), 33 * 100, (0, 33), (None, MOST), True),
            ([Frame("", MOST, b'{"x":"' + b"y" * 900 + b'"}')], Usage(0, MOST), 0, (0, 0), (None, MOST), True),
            ([Frame("a", 3)], Usage(COUNT_MAX, 3), 300 + 37, (3 * 37 + 1_024, 3), (COUNT_MAX, None), True),
            # Honest: an engine that counts the tokens of its end, and one whose prompt has more tokens than usual.
            ([Frame("a"), Frame("", 7)], Usage(37, 8), 800 + 37, (37, 8), (None, None), False),
            ([Frame("a")], Usage(99, 1), 100 + 37, (99, 1), (None, None), False),
            ([Frame("", 1)], Usage(5, 1), 0, (5, 0), (None, 1), False),
            ([], Usage(5, 0), 0, (5, 0), (None, None), False),
        ],
        ids=["row 4", "blank", "one letter", "padding", "a long prompt", "end", "dense prompt", "only an end", "empty"],
    )
    async def test_pays_for_what_came(
        self,
        street: Street,
        caplog: pytest.LogCaptureFixture,
        frames: list[Frame],
        usage: Usage,
        cost: int,
        counts: tuple[int, int],
        claims: tuple[int | None, int | None],
        blamed: bool,
    ) -> None:
        with caplog.at_level(logging.WARNING, "comptoir.dispatch.merit"):
            job_id, paid = await answered(street, frames, usage)

        assert paid == cost
        row = await street.core.jobs.get(job_id)
        assert (row.prompt_tokens, row.completion_tokens) == counts
        job = street.core.jobs.live.recent(job_id)
        assert job is not None and (job.usage.prompt_tokens, job.usage.completion_tokens) == counts
        (segment,) = (await receipt(street, job)).segments
        assert tuple(unit.claimed for unit in segment.units) == claims
        host = row.host_id
        assert host is not None
        story = street.core.fleet.explain_reputation(host)
        assert (story.jobs_done, story.jobs_failed) == (not blamed, blamed)
        assert [public("host", host) in line for line in caplog.messages] == [True] * blamed


class TestTheNextHost:
    async def test_has_all_that_is_left_though_the_first_claimed_it(self, street: Street) -> None:
        """What one host sent is never another's fault: it would have ended the answer after one token."""
        first, _ = await street.host(offer=GOES_ON)
        job = await street.submit(max_tokens=100)
        await street.host(offer=GOES_ON)
        take_frames(street.core, job, 0, [Frame("a", 100)])
        assert (job.count, job.finished_already()) == (33, "")

        await lost(street, job)

        message = job_message(job, lease_of(job), now_ms=0)
        assert message.max_tokens - sum(frame.tokens for frame in message.prefix) == 100 - 33
        await done(street, job, 67)
        assert (job.state, job.count) == (JobState.COMPLETED, 100)
        segments = (await receipt(street, job)).segments
        assert [(unit.count, unit.claimed) for segment in segments for unit in segment.units[1:]] == [
            (33, 100),
            (67, None),
        ]
        assert await earned(street, first) == 3_300 + 7 - 396

    async def test_that_read_the_prompt_is_paid_for_it_where_the_first_delivered_nothing(self, street: Street) -> None:
        first, _ = await street.host(offer=GOES_ON)
        job = await street.submit(max_tokens=100)
        second, _ = await street.host(offer=GOES_ON)
        take_frames(street.core, job, 0, [Frame("\n", 9)])

        await revoke_lease(street.core, job, lease_of(job), "it is busy", fault=Fault.CAPACITY)

        await done(street, job, 1)
        assert (await earned(street, first), await earned(street, second)) == (0, 107 - 12)
        assert street.core.fleet.explain_reputation(first).jobs_failed == 0

    async def test_is_given_a_job_by_the_fault_of_one_that_claimed_too_much(self, street: Street) -> None:
        """Also where it says that nobody is to blame."""
        first, _ = await street.host(offer=GOES_ON)
        job = await street.submit(max_tokens=100)
        await street.host(offer=GOES_ON)
        take_frames(street.core, job, 0, [Frame("", 100)])

        await revoke_lease(street.core, job, lease_of(job), "it is busy", fault=Fault.CAPACITY)

        assert street.core.fleet.explain_reputation(first).jobs_failed == 1
