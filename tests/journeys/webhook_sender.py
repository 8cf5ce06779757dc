"""A coordinator that kills itself at one step on the way of an event to its webhook, for `test_webhooks_killed.py`."""

import asyncio
import os
import signal
from typing import Any

from comptoir.app import open_core
from comptoir.dispatch import Core
from comptoir.dispatch import outbox as outbox_loop
from comptoir.dispatch.webhooks import Outgoing
from comptoir.kit.db import Tx
from comptoir.settings import Settings

STEPS = ("told", "put", "put committed", "sent", "answered", "report", "report committed")
"""Where it dies: the event is durable and nobody was told; inside the transaction that makes it a message; after that
commit; while the far side has the request (which then kills it); before the answer is written down; inside that
transaction; after that commit."""


def die(*_: object) -> None:
    """End like a machine that loses power."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(core: Core, step: str) -> None:
    """Die at *step*, the first time that it is reached."""
    if step == "told":
        core.events.publish = die  # type: ignore[method-assign]
    run, call = core.db.run, outbox_loop._LaneCommand.__call__

    def called(self: outbox_loop._LaneCommand, tx: Tx) -> Any:
        reports = self._claimed is not None
        if reports and step == "answered":
            die()
        result = call(self, tx)
        if step == ("report" if reports else "put") and (reports or result.claimed):
            die()
        return result

    def ran(command: Any, **options: Any) -> Any:
        future = run(command, **options)
        if isinstance(command, outbox_loop._LaneCommand):
            reports = command._claimed is not None
            if step == ("report committed" if reports else "put committed"):
                future.add_done_callback(lambda done: die() if reports or done.result().claimed else None)
        return future

    outbox_loop._LaneCommand.__call__ = called  # type: ignore[method-assign]
    core.db.run = ran  # type: ignore[method-assign]


async def until_sent(core: Core, owner_id: bytes) -> None:
    """Wait until every event is a message, and every message is over."""
    out = core.state(Outgoing)
    while True:
        (webhook,) = await out.webhooks.of_owner(owner_id)
        messages = await out.outbox.page(webhook.id)
        if webhook.cursor == await core.events.newest(owner_id) and all(one.over_ms for one in messages):
            return
        await asyncio.sleep(0.01)


async def _serve(data: str, owner: str, step: str) -> None:
    owner_id = bytes.fromhex(owner)
    async with open_core(Settings(data=data, port=0, allow_private_endpoint_urls=True)) as core:
        await until_sent(core, owner_id)
        if step:
            arm(core, step)
            await core.ledger.deposit(owner_id=owner_id, amount_uusd=1)
            await asyncio.Event().wait()


def main(data: str, owner: str, step: str) -> None:
    """Send what is left, then have one event happen and die on the way; without *step*, only send what is left."""
    asyncio.run(_serve(data, owner, step))
