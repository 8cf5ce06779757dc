"""What this worker's containers report about themselves, sent to the coordinator.

It is sent on every connection and on changes, and single questions are answered (`Inquire`). A worker without
containers sends nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from comptoir.link import FromWorker, Inquire, Report, Resources
from comptoir.worker.engines.base import Engine, ReportsResources

_log = logging.getLogger(__name__)

INQUIRIES_MAX = 64
"""Most concurrent questions to containers; further ones get an empty answer."""

INQUIRY_TIMEOUT_S = 4.5
"""Most seconds for a container's answer: the coordinator waits for 5 s."""


class ResourceReporter:
    """Asks the engines with `ReportsResources`; *wake* is called when `take` has something to return."""

    def __init__(self, *, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._routes: Mapping[str, Engine] = {}
        self._reported: dict[str, bytes] | None = None
        """The containers' last report; None: there are none, or they were not asked yet."""
        self._due = False
        self._reports: list[Report] = []
        self._inquiries: set[asyncio.Task[None]] = set()
        """Those of this connection."""

    def offer(self, routes: Mapping[str, Engine]) -> None:
        """Set which engine serves which container; engines without reports are ignored."""
        self._routes = routes

    async def refresh(self) -> None:
        """Ask all containers; their report is sent if it changed."""
        engines = {id(engine): engine for engine in self._routes.values()}.values()
        found: dict[str, bytes] = {}
        telling = [engine for engine in engines if isinstance(engine, ReportsResources)]
        for engine in telling:
            said = await engine.resources()
            found |= {name: body for name, body in said.items() if self._routes.get(name) is engine}
        if found != self._reported and (telling or self._reported):
            self._reported = found
            self._due = True
            self._wake()

    def connected(self) -> None:
        """Begin a new connection: the coordinator knows nothing, and questions of the last connection are dropped."""
        self._forget_inquiries()
        self._due = self._reported is not None

    def inquire(self, message: Inquire) -> None:
        """Ask a container; its `Report` is taken later."""
        if len(self._inquiries) >= INQUIRIES_MAX:
            self._report(Report(message.inquiry, b""))
            return
        task = asyncio.get_running_loop().create_task(self._inquire(message))
        self._inquiries.add(task)
        task.add_done_callback(self._inquiries.discard)

    def take(self) -> list[FromWorker]:
        """Return what is to be sent now."""
        batch: list[FromWorker] = []
        if self._due and self._reported is not None:
            batch.append(Resources(self._reported))
        self._due = False
        batch += self._reports
        self._reports = []
        return batch

    async def close(self) -> None:
        """Stop asking."""
        inquiries = list(self._inquiries)
        self._forget_inquiries()
        if inquiries:
            await asyncio.wait(inquiries)

    def _forget_inquiries(self) -> None:
        for task in self._inquiries:
            task.cancel()
        # A new set: a task that is being cancelled takes no place from the new connection's.
        self._inquiries = set()
        self._reports = []

    async def _inquire(self, message: Inquire) -> None:
        engine: object = self._routes.get(message.container)
        body = b""
        if isinstance(engine, ReportsResources):
            try:
                body = await asyncio.wait_for(engine.supports(message.container, message.model_id), INQUIRY_TIMEOUT_S)
            except TimeoutError:
                _log.info("container %s did not say in time whether it supports a model", message.container)
            except Exception:  # A third-party engine's bug must not leave the coordinator without an answer.
                _log.exception("asking container %s failed", message.container)
        self._report(Report(message.inquiry, body))

    def _report(self, report: Report) -> None:
        self._reports.append(report)
        self._wake()
