"""Repeats: under one Idempotency-Key a thing is done once, however often it is asked for."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from comptoir.dispatch import Core, Order, State
from comptoir.dispatch.submit import submit
from comptoir.gateway.follow import job_by_id
from comptoir.idempotency import Claim
from comptoir.jobs import LiveJob, UnknownJob
from comptoir.kit.http import Request

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


async def claim(core: Core, request: Request, *, scope: str = "") -> Claim | None:
    """Bind the request's ``Idempotency-Key``; None when it has none.

    Args:
        scope: sets callers without a credential apart, where they are not one and the same.

    Raises:
        InvalidField: the key is malformed.
        IdempotencyMismatch: the key was used with another request.
    """
    key = request.header(b"idempotency-key")
    if not key:
        return None
    owner = request.principal.id if request.principal is not None else None
    whole = b"\n".join((request.method.encode(), request.path.encode(), request.raw))
    if scope:
        whole = scope.encode() + b"\n" + whole
    return await core.idempotency.claim(owner_id=owner, key=key, request=whole)


async def once(
    core: Core,
    claimed: Claim | None,
    *,
    find: Callable[[], Awaitable[T | None]],
    make: Callable[[], Coroutine[Any, Any, T]],
) -> T:
    """Return what *claimed* is bound to: found, being made right now, or made here. Without a claim just make it.

    A first request that was refused leaves nothing behind, so its repeat is tried again. Another coordinator may get the
    same request at the same moment; the database lets one of them make it, and the other finds what was made.

    Raises:
        Whatever *make* raises; requests that wait for the same making get the same refusal.
    """
    if claimed is None:
        return await make()
    key, tasks = claimed.resource_id, core.state(Making).tasks
    task: asyncio.Task[T] | None = tasks.get(key)
    if task is None and not claimed.first:
        found = await find()
        if found is not None:
            return found
        task = tasks.get(key)
    if task is None:
        making = _make_or_find(core, claimed, find=find, make=make)
        task = tasks[key] = asyncio.get_running_loop().create_task(making)
        task.add_done_callback(lambda _: tasks.pop(key, None))
    # Shielded: the client that asked first may hang up, those that repeat still want the answer.
    return await asyncio.shield(task)


async def _make_or_find(
    core: Core, claimed: Claim, *, find: Callable[[], Awaitable[T | None]], make: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """Make it; if that is refused, whatever the words, look whether another coordinator made it meanwhile.

    The words don't tell: who is second may hear that the name is taken or that the credit is gone, for the first has both.
    """
    try:
        return await make()
    except Exception:
        repeat = not claimed.first and core.clock.now_ms() - claimed.bound_ms < YOUNG_MS
        for pause_s in LOOK_AGAIN_S if repeat else LOOK_AGAIN_S[:1]:
            await asyncio.sleep(pause_s)
            found = await find()
            if found is not None:
                return found
        raise


async def submit_once(
    core: Core, order: Order, claimed: Claim | None, *, check: Callable[[], None] = lambda: None
) -> LiveJob:
    """Submit *order*; a repeat gets the job that the first request made and never holds twice.

    Args:
        check: raises what forbids the order; a repeat of one that was taken is not forbidden any more.

    Raises:
        What *check* and `submit` raise.
    """
    if claimed is None:
        check()
        return await submit(core, order)
    named = msgspec.structs.replace(order, job_id=claimed.resource_id)

    async def find() -> LiveJob | None:
        try:
            return await job_by_id(core, order.owner_id, claimed.resource_id)
        except UnknownJob:
            return None

    async def make() -> LiveJob:
        check()
        return await submit(core, named)

    return await once(core, claimed, find=find, make=make)
