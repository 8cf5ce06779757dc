"""A coordinator that kills itself while it writes events on request, or just after, for `test_webhooks_killed.py`."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from comptoir.dispatch import Core
from comptoir.events import Event, Events, HostChanged, JobAccepted, JobAssigned, NumberedEvent
from comptoir.kit.db import Tx
from tests.journeys.webhook_sender import die
from tests.street import FakeChannel, open_street

STEPS = tuple(
    f"{kind.__name__} {where}" for kind in (JobAccepted, JobAssigned, HostChanged) for where in ("in", "after")
)
"""Type of the event, and where the process dies: inside the transaction that writes it, or after that commit."""


def _arm(core: Core, step: str) -> None:
    publish, insert = core.events.publish, Events.insert_rows

    def published(event: Event) -> None:
        if step == f"{type(event).__name__} after":
            die()
        publish(event)

    def inserted(tx: Tx, events: Sequence[NumberedEvent]) -> None:
        insert(tx, events)
        if any(step == f"{type(event).__name__} in" for event in events):
            die()

    core.events.publish = published  # type: ignore[method-assign]
    Events.insert_rows = staticmethod(inserted)  # type: ignore[method-assign]


async def _live(folder: str, buyer: str, host: str, step: str) -> None:
    host_id = bytes.fromhex(host)
    async with open_street(Path(folder), buyer=bytes.fromhex(buyer)) as street:
        _arm(street.core, step)
        await street.submit()  # Its host is not there yet, so it waits.
        street.link(host_id, FakeChannel())
        await street.core.background.drain_tasks()
        await street.core.hosts.flush()
        street.unlink(host_id)
        await street.core.hosts.flush()


def main(folder: str, buyer: str, host: str, step: str) -> None:
    """Have a job accepted and leased, and its host come and go; die at the step, if one is named."""
    asyncio.run(_live(folder, buyer, host, step))
