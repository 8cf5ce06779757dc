"""Do a thing once, however often it is asked for under one Idempotency-Key."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from comptoir.desk.follow import job_by_id
from comptoir.dispatch import House, Order
from comptoir.dispatch.submit import submit
from comptoir.idempotency import Claim
from comptoir.jobs import LiveJob, UnknownJob

T = TypeVar("T")


async def once(
    house: House, claim: Claim | None, *, find: Callable[[], Awaitable[T | None]], make: Callable[[], Coroutine[Any, Any, T]]
) -> T:  # fmt: skip
    """Return what *claim* is bound to: found, being made right now, or made here. Without a claim just make it.

    A first request that was refused leaves nothing behind, so its repeat is tried again.

    Raises:
        Whatever *make* raises; requests that wait for the same making get the same refusal.
    """
    if claim is None:
        return await make()
    key = claim.resource_id
    task: asyncio.Task[T] | None = house.pending.get(key)
    if task is None and not claim.first:
        found = await find()
        if found is not None:
            return found
        task = house.pending.get(key)
    if task is None:
        task = house.pending[key] = asyncio.get_running_loop().create_task(make())
        task.add_done_callback(lambda _: house.pending.pop(key, None))
    # Shielded: the client that asked first may hang up, those that repeat still want the answer.
    return await asyncio.shield(task)


async def submit_once(house: House, order: Order, claim: Claim | None) -> LiveJob:
    """Submit *order*; a repeat gets the job that the first request made and never holds twice.

    Raises:
        What `submit` raises.
    """
    if claim is None:
        return await submit(house, order)
    named = msgspec.structs.replace(order, job_id=claim.resource_id)

    async def find() -> LiveJob | None:
        try:
            return await job_by_id(house, order.owner_id, claim.resource_id)
        except UnknownJob:
            return None

    return await once(house, claim, find=find, make=lambda: submit(house, named))
