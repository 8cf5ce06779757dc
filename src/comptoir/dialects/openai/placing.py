"""Place an order once: a repeat under the same Idempotency-Key attaches to the first one's job instead of buying again."""

import asyncio
from functools import partial

import msgspec

from comptoir.desk import claim, follow, job_by_id
from comptoir.dispatch.cancel import hang_up
from comptoir.dispatch.house import House
from comptoir.dispatch.submit import Order, submit
from comptoir.idempotency import Claim
from comptoir.jobs import LiveJob, UnknownJob
from comptoir.kit.errors import Unavailable
from comptoir.kit.http import Request

SUBMITTING: dict[bytes, "asyncio.Future[None]"] = {}
"""First requests whose job is being written, by the job's id; a repeat that comes meanwhile waits for it."""


async def place(house: House, request: Request, order: Order) -> LiveJob:
    """Submit *order* for the waiting client: hanging up cancels the job.

    With an Idempotency-Key the job goes on when the client is gone, because it may come back and ask again.

    Raises: as `submit` and `claim`.
    """
    claimed = await claim(house, request)
    if claimed is None:
        job = await submit(house, order)
        request.when_gone(partial(hang_up, house, job))
        return job
    return await _place_once(house, msgspec.structs.replace(order, job_id=claimed.resource_id, detached=True), claimed)


async def _place_once(house: House, order: Order, claimed: Claim) -> LiveJob:
    job_id = claimed.resource_id
    while (first := SUBMITTING.get(job_id)) is not None:
        await asyncio.wait((first,))
    if not claimed.first:
        try:
            job = await job_by_id(house, order.owner_id, job_id)
        except UnknownJob:
            pass  # The first request was refused before it became a job: this one tries for itself.
        else:
            if not job.over and house.jobs.live.get(job_id) is None:
                raise Unavailable("the first request with this Idempotency-Key is being answered elsewhere")
            return await follow(house, job)
        if (again := SUBMITTING.get(job_id)) is not None:
            await asyncio.wait((again,))
            return await _place_once(house, order, claimed)
    done = SUBMITTING[job_id] = asyncio.get_running_loop().create_future()
    try:
        return await submit(house, order)
    finally:
        del SUBMITTING[job_id]
        done.set_result(None)
