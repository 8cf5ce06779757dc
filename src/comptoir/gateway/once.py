"""Do a thing once, however often it is asked for under one Idempotency-Key."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from comptoir.dispatch import Core, Order, State
from comptoir.dispatch.submit import submit
from comptoir.gateway.follow import job_by_id
from comptoir.idempotency import Claim
from comptoir.jobs import LiveJob, UnknownJob

T = TypeVar("T")


LOOK_AGAIN_S = (0.0, 0.02, 0.08, 0.15, 0.25)
"""Pauses before each look for what another coordinator may be making: half a second in all."""

YOUNG_MS = 2_000
"""A key bound longer ago than this is not being served for the first time any more; a refusal then stands at once."""


class Making(State):
    """Requests with an Idempotency-Key under way."""

    def __init__(self, core: Core) -> None:
        self.tasks: dict[bytes, asyncio.Task[Any]] = {}
        """By the resource they make."""


async def once(
    core: Core,
    claim: Claim | None,
    *,
    find: Callable[[], Awaitable[T | None]],
    make: Callable[[], Coroutine[Any, Any, T]],
) -> T:
    """Return what *claim* is bound to: found, being made right now, or made here. Without a claim just make it.

    A first request that was refused leaves nothing behind, so its repeat is tried again. Another coordinator may get the
    same request at the same moment; the database lets one of them make it, and the other finds what was made.

    Raises:
        Whatever *make* raises; requests that wait for the same making get the same refusal.
    """
    if claim is None:
        return await make()
    key, tasks = claim.resource_id, core.state(Making).tasks
    task: asyncio.Task[T] | None = tasks.get(key)
    if task is None and not claim.first:
        found = await find()
        if found is not None:
            return found
        task = tasks.get(key)
    if task is None:
        making = _make_or_find(core, claim, find=find, make=make)
        task = tasks[key] = asyncio.get_running_loop().create_task(making)
        task.add_done_callback(lambda _: tasks.pop(key, None))
    # Shielded: the client that asked first may hang up, those that repeat still want the answer.
    return await asyncio.shield(task)


async def _make_or_find(
    core: Core, claim: Claim, *, find: Callable[[], Awaitable[T | None]], make: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """Make it; if that is refused, whatever the words, look whether another coordinator made it meanwhile.

    The words don't tell: who is second may hear that the name is taken or that the credit is gone, for the first has both.
    """
    try:
        return await make()
    except Exception:
        repeat = not claim.first and core.clock.now_ms() - claim.bound_ms < YOUNG_MS
        for pause_s in LOOK_AGAIN_S if repeat else LOOK_AGAIN_S[:1]:
            await asyncio.sleep(pause_s)
            found = await find()
            if found is not None:
                return found
        raise


async def submit_once(
    core: Core, order: Order, claim: Claim | None, *, check: Callable[[], None] = lambda: None
) -> LiveJob:
    """Submit *order*; a repeat gets the job that the first request made and never holds twice.

    Args:
        check: raises what forbids the order; a repeat of one that was taken is not forbidden any more.

    Raises:
        What *check* and `submit` raise.
    """
    if claim is None:
        check()
        return await submit(core, order)
    named = msgspec.structs.replace(order, job_id=claim.resource_id)

    async def find() -> LiveJob | None:
        try:
            return await job_by_id(core, order.owner_id, claim.resource_id)
        except UnknownJob:
            return None

    async def make() -> LiveJob:
        check()
        return await submit(core, named)

    return await once(core, claim, find=find, make=make)
