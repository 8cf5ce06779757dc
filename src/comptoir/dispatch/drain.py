"""Drain: stop accepting jobs, let open answers finish, and leave the rest durable in the queue."""

import asyncio
import logging

from comptoir.dispatch.core import Core, State
from comptoir.kit.db import CommitsLost
from comptoir.kit.errors import Unavailable

log = logging.getLogger(__name__)


class Shutdown(State):
    """How far the shutdown of this coordinator has come."""

    def __init__(self, core: Core) -> None:
        self.leaving = False
        """Set once, when shutdown begins; health checks report it, so that a load balancer stops sending requests."""
        self.draining = False
        """Set once, ``drain_notice_s`` later: no new jobs are accepted."""
        self.when_empty = asyncio.Event()
        """Set when the last lease or mirror ends; a drain then checks whether answers are still open."""

    def announce(self) -> None:
        """Report from now on that this coordinator is leaving; it still accepts jobs."""
        self.leaving = True

    def refuse_jobs(self) -> None:
        """Accept no jobs from now on."""
        self.leaving = self.draining = True


def check_open(core: Core) -> None:
    """Refuse new work while it can't be accepted.

    Raises:
        Unavailable: this coordinator is draining, or its database is known to be unavailable.
        CommitsLost: commits are missing, and an operator has to decide.
    """
    if core.state(Shutdown).draining:
        raise Unavailable("this coordinator is shutting down; try again in a moment", retry_after_s=2.0)
    if core.db.unavailable:
        raise Unavailable("the database is out of reach; try again in a moment")
    if core.db.lost:
        raise CommitsLost


async def drain(core: Core) -> int:
    """Refuse new jobs and wait up to ``drain_s`` for open answers to end; return how many are still open.

    An answer is open if a host here works on it, or if it comes from another coordinator to a client connected to this
    one. What is left stays in the database as running or queued, and another coordinator or the next start resumes it.
    Idempotent.
    """
    stop = core.state(Shutdown)
    stop.refuse_jobs()
    live = core.jobs.live
    if live.open_answers and core.db.lost:
        log.warning("%d answers can't end while commits are missing, and are not waited for", live.open_answers)
    elif live.open_answers:
        log.info("draining: %d answers are still open", live.open_answers)
        try:
            async with asyncio.timeout(core.settings.drain_s):
                while live.open_answers:
                    stop.when_empty.clear()
                    await stop.when_empty.wait()
        except TimeoutError:
            log.warning("%d answers did not finish in %g s and stay queued", live.open_answers, core.settings.drain_s)
    await core.background.drain_tasks()
    return live.open_answers
