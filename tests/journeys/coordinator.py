"""A coordinator as a process, for tests that kill it:
``python -m tests.journeys.coordinator DATA DATABASE PORT [BUS]``."""

import asyncio
import sys
from typing import Any

import uvloop

from comptoir.app import serve
from comptoir.settings import Settings


def main(data: str, database: str, port: str, bus: str = "") -> None:
    """Serve until a signal."""
    _serve(data, database, port=port, bus=bus)


def serve_press(data: str, database: str, port: str) -> None:
    """The same, and sell a kind with files that does not ship."""
    _serve(data, database, port=port, kinds=("tests.kinds.press:Press",))


def _serve(data: str, database: str, *, port: str, **more: Any) -> None:
    settings = Settings(
        data=data,
        database=database,
        port=int(port),
        drain_s=5.0,
        requests_per_minute_per_ip=1_000_000,
        requests_per_minute_per_key=1_000_000,
        infernet_requests_per_minute=1_000_000,
        **more,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


if __name__ == "__main__":
    main(*sys.argv[1:])
