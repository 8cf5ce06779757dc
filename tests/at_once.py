"""What has to happen at once, told in the event loop's own time: a machine that is busy, or that does not run us, costs
nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

BOUND_S = 20.0
"""Ends a block that hangs."""


@contextlib.asynccontextmanager
async def at_once(*, ms: int = 100) -> AsyncIterator[None]:
    """Fail when the block waits longer than *ms* milliseconds in which this loop could run.

    Counted in turns of the loop that sleep a millisecond each: what keeps the loop from running, here or on the whole
    machine, keeps it from counting too. So it bounds what is waited for, not what is computed.
    """
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    counting = asyncio.create_task(count())
    try:
        async with asyncio.timeout(BOUND_S):
            yield
    finally:
        counting.cancel()
    assert turns <= ms, f"that took {turns} ms of the loop's time"
