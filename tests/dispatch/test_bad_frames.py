"""A host that sends beside its text what nobody could be shown: it is to blame for it, and nobody else ever sees it."""

import msgspec
import pytest

from comptoir.dispatch.errors import BadFrame
from comptoir.dispatch.stream import take_frames
from comptoir.jobs import JobState
from comptoir.ledger import audit
from comptoir.link import Fail, Frame, Frames
from comptoir.transports.job_message import job_message
from comptoir.transports.link.session import Session
from tests.dispatch.continuing import done, earned, lease_of, receipt
from tests.street import GOES_ON, Street, deliver

BAD = (b"not json", b'{"finish_reason":"\xff"}', b'{"delta":' + b"[" * 99 + b"]" * 99 + b"}", b'{"index":"x"}')


class TestTakeFrames:
    @pytest.mark.parametrize("extra", BAD)
    async def test_nothing_of_the_message_is_taken(self, street: Street, extra: bytes) -> None:
        await street.host()
        job = await street.submit()
        deliver(street.core, job, 1)
        before = (list(job.frames), job.running_hash, job.count, job.frame_bytes)

        with pytest.raises(BadFrame):
            take_frames(street.core, job, 1, [Frame("good"), Frame("bad", 1, extra)])

        assert (job.frames, job.running_hash, job.count, job.frame_bytes) == before

    async def test_what_is_taken_stays_as_its_host_sent_and_signs_it(self, street: Street) -> None:
        await street.host()
        job = await street.submit()
        sent = Frame("a", 1, b'{ "delta":\n {"reasoning_content": "Hm"} }')

        take_frames(street.core, job, 0, [sent])

        assert job.frames == [sent]


class TestOverTheLink:
    @pytest.mark.parametrize("extra", BAD)
    async def test_the_attempt_ends_as_its_fault_and_another_host_goes_on_with_what_was_good(
        self, street: Street, extra: bytes
    ) -> None:
        """The next host got these bytes as its prefix, failed on them, and was blamed in its place."""
        bad, _ = await street.host(offer=GOES_ON)
        job = await street.submit()
        good, _ = await street.host(offer=GOES_ON)
        lease = lease_of(job).id
        session = Session(street.core, street.core.fleet.get(bad), None)  # type: ignore[arg-type]

        session._act(Frames(lease, 0, [Frame("good")]))
        session._act(Frames(lease, 1, [Frame("bad", 1, extra)]))
        session._act(Fail(lease, "engine_failed", "and it hangs up", "buyer"))
        await street.core.background.drain_tasks()

        assert (job.state, lease_of(job).host_id) == (JobState.RUNNING, good)
        given = job_message(job, lease_of(job), now_ms=street.core.common_ms())
        assert (given.prefix, given.start_seq, given.chain) == ([Frame("good")], 1, job.running_hash)
        for frame in given.prefix:
            assert not frame.extra or msgspec.json.decode(frame.extra)

        await done(street, job, 2)
        attempts = await street.core.jobs.attempts(job.id)
        assert [(one.host_id, one.state, one.fault) for one in attempts] == [
            (bad, "failed", "host"),
            (good, "done", None),
        ]
        counted = {host.id: (host.stored().jobs_failed, host.stored().jobs_lost) for host in street.core.fleet}
        assert counted == {bad: (1, 0), good: (0, 0)}
        assert (await earned(street, bad), await earned(street, good)) == (95, 176)
        assert (await receipt(street, job)).segments[0].end_frame == 1
        assert await audit(street.core.db) == []
