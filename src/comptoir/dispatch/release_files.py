"""Release files: when a job is over, its inputs are its buyer's business again, and what it made and its result does
not name is deleted. Its receipt says before what they were.

Files are released after the end was written, from what was written: whoever dies in between leaves it to the next
sweep, which looks at every job that still keeps something.
"""

import logging
from collections.abc import Sequence

from comptoir.dispatch.core import Core, State
from comptoir.dispatch.files import Files
from comptoir.dispatch.job_files import job_of, keeper_of
from comptoir.jobs import FINAL, Lease, LiveJob
from comptoir.kinds.files import artifacts_in, fetched_in
from comptoir.kit.errors import Unavailable
from comptoir.kit.ids import parse, public
from comptoir.link import Frame
from comptoir.receipts import ReceiptFile, ReceiptFiles

log = logging.getLogger(__name__)

SURELY_WRITTEN_MS = 60_000
"""What is kept for less long is left alone by the sweep: its job's end may just be seen to."""


class Released(State):
    """How far the sweep over jobs that keep files is."""

    def __init__(self, core: Core) -> None:
        self.after = ""
        """The keeper that was looked at last."""


def release_when_over(core: Core, job: LiveJob) -> None:
    """Release the files of *job*, whose end is written, in the background; of kinds without files nothing is asked."""
    if job.kind.files:
        core.background.spawn(_release_quietly(core, job.id))


async def _release_quietly(core: Core, job_id: bytes) -> None:
    try:
        await release_files(core, job_id)
    except Unavailable as away:
        log.warning("the files of job %s are released later: %s", job_id.hex(), away)


def drop_lost(core: Core, job: LiveJob, lease: Lease) -> None:
    """Delete what was uploaded under *lease*, which was revoked and is written as such, and its frames don't name.

    The next host may have as much to upload, and what its buyer's files may have is the same.
    """
    if job.kind.files:
        core.background.spawn(_drop_quietly(core, job.id, lease.id, _named(job.frames[lease.first_frame :])))


async def _drop_quietly(core: Core, job_id: bytes, lease: bytes, named: frozenset[bytes]) -> None:
    files, keeper, maker = core.state(Files), keeper_of(job_id), public("att", lease)
    try:
        if files.kept_here and any(by == maker for _, by in await files.blobs.kept_by(keeper)):
            await files.blobs.release(keeper, wanted=named, maker=maker)
    except Unavailable as away:
        log.warning("what a lost host of job %s uploaded is deleted at its end: %s", job_id.hex(), away)


def _named(frames: Sequence[Frame]) -> frozenset[bytes]:
    """Return the files that *frames* name, without those before a host that began again."""
    return frozenset(filter(None, (parse("file", each.file) for each in artifacts_in(frames))))


async def release_files(core: Core, job_id: bytes) -> None:
    """Release what the job, which is over, needs and has made, but for the files that its result names.

    Idempotent. Also files of attempts that were lost, and those before a host that began again, are deleted.

    Raises:
        Unavailable: the database can't be asked; call again.
    """
    files, keeper = core.state(Files), keeper_of(job_id)
    if not files.kept_here:
        return
    blobs = files.blobs
    kept = await blobs.kept_by(keeper)
    if not kept:
        return
    wanted: frozenset[bytes] = frozenset()
    if any(maker for _, maker in kept):
        frames, _ = await core.jobs.answer(job_id)
        wanted = _named(frames)
    await blobs.release(keeper, wanted=wanted)
    files.count_artifacts(len(wanted))


def receipt_files(job: LiveJob) -> ReceiptFiles | None:
    """Return what *job*'s receipt says of its files; None: nothing of it goes in or comes out as a file."""
    if not job.kind.files:
        return None
    inputs, fetched = job.kind.inputs(job.body), fetched_in(job.frames)
    taken = []
    for at, each in enumerate(inputs):
        got = fetched.get(at)
        if each.file and each.sha256 is not None and each.size is not None:
            taken.append(ReceiptFile(each.called(at), each.sha256, each.size))
        elif each.url and got is not None:
            taken.append(ReceiptFile(each.called(at), got.sha256, got.size, fetched=True))
    made = [ReceiptFile(each.name, each.sha256, each.size) for each in artifacts_in(job.frames)]
    return ReceiptFiles(taken, made) if taken or made else None


async def sweep_files(core: Core) -> int:
    """Release the files of jobs that are over and whose release was cut short; return how many there were.

    Bounded: the next call looks at the next jobs, and begins again after the last.
    """
    swept, files = core.state(Released), core.state(Files)
    if not files.kept_here:
        return 0
    keepers = await files.blobs.keepers(after=swept.after, longer_than_ms=SURELY_WRITTEN_MS)
    swept.after = keepers[-1] if keepers else ""
    jobs = [job_id for keeper in keepers if (job_id := job_of(keeper)) is not None]
    states = await core.jobs.whereabouts(jobs)
    over = [job_id for job_id in jobs if job_id not in states or states[job_id][0] in FINAL]
    for job_id in over:
        await release_files(core, job_id)
    if over:
        log.info("released the files of %d jobs that were over", len(over))
    return len(over)
