"""``comptoir up --member``: a coordinator without output for people; it reports as JSON lines to its launcher."""

import asyncio
import os
from typing import Any

import msgspec
import uvloop

from comptoir.app import Listening, serve
from comptoir.cli.people import bootstrap_users
from comptoir.dispatch import Core
from comptoir.events import CoordinatorDraining
from comptoir.settings import Settings


def run_member(settings: Settings) -> None:
    """Serve until a signal, draining first.

    Raises:
        OSError: the address is taken.
    """

    async def people(core: Core) -> None:
        core.events.subscribe(CoordinatorDraining, lambda event: _say("Draining", open=event.open_answers))
        await bootstrap_users(core, settings.data_path())

    def ready(listening: Listening) -> None:
        _say("Listening", url=listening.url)

    async def run() -> None:
        await serve(settings, on_open=people, on_ready=ready)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def _say(kind: str, **facts: Any) -> None:
    try:
        os.write(1, msgspec.json.encode({"event": kind, **facts}) + b"\n")
    except BrokenPipeError:
        # The launcher is gone; the kernel ends us in the same moment.
        return
