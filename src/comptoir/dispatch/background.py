"""Background: tasks that nobody awaits. Their failures are logged, and shutdown waits for them."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from comptoir.kit.errors import Unavailable

log = logging.getLogger(__name__)


class Background:
    """The background tasks of one coordinator."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run *work* in the background; a failure is logged, never silent."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Unavailable):
            log.warning("a background task stopped because the database is unavailable: %s", error)
        elif error is not None:
            log.error("a background task failed", exc_info=error)

    async def drain_tasks(self) -> None:
        """Wait until no task is left, including tasks spawned while waiting."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
