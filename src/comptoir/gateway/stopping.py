"""Stop a job for its buyer, and wait for an end that is being written."""

import asyncio

from comptoir.dispatch import Core
from comptoir.dispatch.cancel import cancel
from comptoir.jobs import LiveJob
from comptoir.kit.errors import Unavailable
from comptoir.kit.http import OwnedByPeer

ENDING_S = 5.0
"""How long a request waits for the end of a job that is already being written."""


async def stop(core: Core, job: LiveJob) -> LiveJob:
    """Cancel *job*, which is not over, and return it once it is; it may have ended otherwise meanwhile.

    Raises:
        JobFinished: it is over.
        OwnedByPeer: another coordinator owns it.
        Unavailable: it is being resumed, its end takes longer than `ENDING_S`, or the database is unavailable.
    """
    live = job if job.over else core.jobs.live.get(job.id)
    if live is None:
        await require_local_owner(core, job.id)
        raise Unavailable("the job is being resumed; try again")
    await cancel(core, live)
    await until_over(live)
    return live


async def require_local_owner(core: Core, job_id: bytes) -> None:
    """Check that no other coordinator owns the job.

    Raises:
        OwnedByPeer: another one does, and has to answer the request.
    """
    owner = await core.peers.owner_of(job_id)
    if owner is not None:
        raise OwnedByPeer(owner)


async def until_over(job: LiveJob) -> None:
    """Wait until the job's end, which is being written, is written.

    Raises:
        Unavailable: it takes longer than `ENDING_S`.
    """
    if job.over:
        return
    try:
        async with asyncio.timeout(ENDING_S):
            await job.ended()
    except TimeoutError:
        raise Unavailable("the end of the job is still being written; try again") from None
