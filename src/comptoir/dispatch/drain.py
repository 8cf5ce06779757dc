"""Drain: stop taking jobs, let open answers finish, leave the rest durable in line."""

import asyncio
import logging

from comptoir.dispatch.house import House, State
from comptoir.kit.errors import Unavailable

log = logging.getLogger(__name__)


class Shutdown(State):
    """How far the shutdown of this coordinator has come."""

    def __init__(self, house: House) -> None:
        self.leaving = False
        """Set once, when a stop begins: it is said to whoever asks, so that a balancer looks elsewhere."""
        self.draining = False
        """Set once, ``drain_notice_s`` later: no new jobs are accepted."""
        self.when_empty = asyncio.Event()
        """Set when the last lease or the last mirror ends: a drain then looks whether answers are still open."""

    def announce(self) -> None:
        """Say from now on that this coordinator is leaving; it still takes jobs."""
        self.leaving = True

    def refuse_jobs(self) -> None:
        """Take no jobs from now on."""
        self.leaving = self.draining = True


def check_open(house: House) -> None:
    """Refuse what is new while that is the only honest answer.

    Raises:
        Unavailable: the house is draining, or its database is known to be out of reach.
    """
    if house.state(Shutdown).draining:
        raise Unavailable("this coordinator is shutting down; try again in a moment", retry_after_s=2.0)
    if house.db.away:
        raise Unavailable("the database is out of reach; try again in a moment")


async def drain(house: House) -> int:
    """Refuse new jobs and wait up to ``drain_s`` for open answers to end; return how many are still open.

    Open are the answers that hosts here work on, and those that come from another coordinator to a client that is connected to
    this one. What is left stays in the database as running or queued: another coordinator takes it up, or the next start.
    Idempotent.
    """
    stop = house.state(Shutdown)
    stop.refuse_jobs()
    live = house.jobs.live
    if live.open_answers:
        log.info("draining: %d answers are still open", live.open_answers)
        try:
            async with asyncio.timeout(house.settings.drain_s):
                while live.open_answers:
                    stop.when_empty.clear()
                    await stop.when_empty.wait()
        except TimeoutError:
            log.warning("%d answers did not finish in %g s and stay in line", live.open_answers, house.settings.drain_s)
    await house.background.settle_down()
    return live.open_answers
