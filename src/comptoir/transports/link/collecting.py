"""Asks one worker for the receipts that it keeps and our database lost, one question at a time."""

import asyncio
import logging
from collections.abc import Callable

from comptoir.dispatch.core import Core
from comptoir.dispatch.hand_in import LISTED_PER_WORKER_MAX, HandedIn, take, wanted
from comptoir.kit.errors import Unavailable
from comptoir.kit.ids import public
from comptoir.link import HANDED_MAX, AskReceipts, HandIn

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 60.0
"""How long a worker may take to answer one question: it reads up to 64 MiB of its disk for the first."""


class Collecting:
    """The questions to one worker on one connection."""

    def __init__(self, core: Core, host_id: bytes) -> None:
        self._core = core
        self._host_id = host_id
        self._asked: asyncio.Future[HandIn] | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, post: Callable[[AskReceipts], None]) -> None:
        """Ask for everything that is missing, in the background; does nothing while that is going on.

        *post* sends the worker a message. Only the task holds it, so that an ended connection holds no circle.
        """
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(post))
            self._core.state(HandedIn).asking_until(self._task)

    def answer(self, message: HandIn) -> bool:
        """Take an answer; False: there was no question."""
        asked, self._asked = self._asked, None
        if asked is None or asked.done():
            return False
        asked.set_result(message)
        return True

    def end(self) -> None:
        """Ask nothing more: the connection is over."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, post: Callable[[AskReceipts], None]) -> None:
        host, handed = public("host", self._host_id), self._core.state(HandedIn)
        try:
            async with handed.asking:
                await self._collect(post)
        except TimeoutError:
            log.warning("host %s did not say within %.0f s which receipts it keeps", host, ANSWER_WITHIN_S)
        except Unavailable as outage:
            log.warning("host %s can't hand in its receipts now: %s", host, outage)

    async def _collect(self, post: Callable[[AskReceipts], None]) -> None:
        core, handed, listed = self._core, self._core.state(HandedIn), 0
        while listed < LISTED_PER_WORKER_MAX:
            page = await self._ask(post, AskReceipts(after=listed))
            missing = await wanted(core, page.listed)
            while missing:
                if handed.full:
                    handed.run_short()
                    return
                asked, missing = missing[:HANDED_MAX], missing[HANDED_MAX:]
                answer = await self._ask(post, AskReceipts(wanted=asked))
                if not await take(core, self._host_id, asked, answer.receipts):
                    return
            listed += len(page.listed)
            if not page.more or not page.listed:
                return

    async def _ask(self, post: Callable[[AskReceipts], None], question: AskReceipts) -> HandIn:
        self._asked = asyncio.get_running_loop().create_future()
        post(question)
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await self._asked
