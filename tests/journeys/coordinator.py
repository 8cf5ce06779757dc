"""A coordinator as a process, for tests that kill it:
``python -m tests.journeys.coordinator DATA DATABASE PORT [BUS]``."""

import asyncio
import sys

import uvloop

from comptoir.app import serve
from comptoir.settings import Settings


def main(data: str, database: str, port: str, bus: str = "") -> None:
    """Serve until a signal."""
    settings = Settings(
        data=data,
        database=database,
        port=int(port),
        bus=bus,
        drain_s=5.0,
        requests_per_minute_per_ip=1_000_000,
        requests_per_minute_per_key=1_000_000,
        infernet_requests_per_minute=1_000_000,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


if __name__ == "__main__":
    main(*sys.argv[1:])
