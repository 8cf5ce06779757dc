"""A worker as a process of its own: ``python -m tests.chaos.worker CONFIG``, a JSON file with a `WorkerConfig`."""

import asyncio
import logging
import signal
import sys
from pathlib import Path

import msgspec
import uvloop

from comptoir.worker import backoff
from comptoir.worker.run import WorkerConfig, run_worker

BACKOFF_LAST_S = 1.0
"""An episode has no time for the 15 s that a worker may wait after a long outage."""


async def work(config: WorkerConfig) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run_worker(config, stop=stop)


def main(path: str) -> None:
    """Read the configuration and work."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    backoff.BACKOFF_LAST_S = BACKOFF_LAST_S
    config = msgspec.json.decode(Path(path).read_bytes(), type=WorkerConfig)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(config))


if __name__ == "__main__":
    main(*sys.argv[1:])
