"""Drain: stop taking jobs, let open answers finish, leave the rest durable in line."""

import asyncio
import logging

from comptoir.dispatch.house import House

log = logging.getLogger(__name__)


async def drain(house: House) -> int:
    """Refuse new jobs and wait up to ``drain_s`` for open answers to end; return how many are still open.

    Open are the answers that hosts here work on, and those that come from another coordinator to a client that is connected to
    this one. What is left stays in the database as running or queued: another coordinator takes it up, or the next start.
    Idempotent.
    """
    house.leaving = house.draining = True
    live = house.jobs.live
    if live.open_answers:
        log.info("draining: %d answers are still open", live.open_answers)
        try:
            async with asyncio.timeout(house.settings.drain_s):
                while live.open_answers:
                    house.when_empty.clear()
                    await house.when_empty.wait()
        except TimeoutError:
            log.warning("%d answers did not finish in %g s and stay in line", live.open_answers, house.settings.drain_s)
    await house.settle_down()
    return live.open_answers
