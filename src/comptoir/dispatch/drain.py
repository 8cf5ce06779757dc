"""Drain: stop taking jobs, let open answers finish, leave the rest durable in line."""

import asyncio
import logging

from comptoir.dispatch.house import House

log = logging.getLogger(__name__)


async def drain(house: House) -> int:
    """Refuse new jobs and wait up to ``drain_s`` for leased ones to end; return how many are still open.

    Those stay in the database as running or queued; the next start takes them up. Idempotent.
    """
    house.draining = True
    if house.jobs.live.leased:
        house.when_empty.clear()
        log.info("draining: %d answers are still open", house.jobs.live.leased)
        try:
            await asyncio.wait_for(house.when_empty.wait(), house.settings.drain_s)
        except TimeoutError:
            log.warning(
                "%d answers did not finish in %g s and stay in line", house.jobs.live.leased, house.settings.drain_s
            )
    await house.settle_down()
    return house.jobs.live.leased
