"""Place an order once: a repeat under the same Idempotency-Key attaches to the first one's job instead of buying again."""

from functools import partial

import msgspec

from comptoir.dispatch.cancel import hang_up
from comptoir.dispatch.core import Core
from comptoir.dispatch.submit import Order, submit
from comptoir.gateway import claim, follow, submit_once
from comptoir.jobs import LiveJob
from comptoir.kit.http import Request


async def place(core: Core, request: Request, order: Order) -> LiveJob:
    """Submit *order* for the waiting client: hanging up cancels the job.

    With an Idempotency-Key the job goes on when the client is gone, because it may come back and ask again.

    Raises: as `submit` and `claim`; Unavailable while nobody owns the first request's job.
    """
    claimed = await claim(core, request)
    if claimed is None:
        job = await submit(core, order)
        request.when_gone(partial(hang_up, core, job))
        return job
    job = await submit_once(core, msgspec.structs.replace(order, detached=True), claimed)
    return await follow(core, job)
