"""Repeats: under one Idempotency-Key an action is done once, however often it is requested."""

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
"""Pauses before each check for what another coordinator may be creating: half a second in all."""

YOUNG_MS = 2_000
"""The first request under a key is over this long after the key was bound; a refusal is then final at once."""


class Making(State):
    """Requests with an Idempotency-Key that are in progress."""

    def __init__(self, core: Core) -> None:
        self.tasks: dict[bytes, asyncio.Task[Any]] = {}
        """By the id of the resource they create."""


async def claim(core: Core, request: Request, *, scope: str = "") -> Claim | None:
    """Bind the request's ``Idempotency-Key``; None when it has none.

    Args:
        scope: distinguishes callers without a credential.

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
    """Return the resource that *claimed* is bound to: found, in progress, or created here. Without a claim, create it.

    A first request that was refused leaves nothing behind, so its repeat is tried again. If another coordinator gets
    the same request at the same moment, the database lets one of them create the resource, and the other finds it.

    Raises:
        Whatever *make* raises; requests that wait for the same creation get the same refusal.
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
    # Shielded: the first client may hang up, while those that repeat the request still want the answer.
    return await asyncio.shield(task)


async def _make_or_find(
    core: Core, claimed: Claim, *, find: Callable[[], Awaitable[T | None]], make: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """Create it; on any refusal, check whether another coordinator has created it meanwhile.

    The kind of refusal does not tell: the second may be told that the name is taken or the credit used up, by the
    first.
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
        check: raises if the order is forbidden; not called for the repeat of an accepted one.

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
