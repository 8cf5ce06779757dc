"""How what was bought ends for whoever waits for it: the signals that cancel it, and its books."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from comptoir.cli.api import Api
from comptoir.cli.failure import Failure
from comptoir.cli.screen import note

ENDING = (signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "SIGHUP") else (signal.SIGTERM,)
"""Besides Ctrl-C; without a terminal that can hang up there is no SIGHUP."""

SETTLE_WAIT_S = 3.0
"""Most seconds to wait for the books after the last token: settlement takes milliseconds."""

SETTLE_POLL_S = 0.02


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP (the terminal is gone) do as Ctrl-C does: the job must not go on for nobody."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may listen to signals.
        return
    before = {number: signal.signal(number, end) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def settled(api: Api, job_id: str) -> dict[str, Any]:
    """Return the job once it is settled; what is known of it when that takes too long, or the server has stopped."""
    until = time.monotonic() + SETTLE_WAIT_S
    job: dict[str, Any] = {}
    while True:
        try:
            job = api.get(f"/house/jobs/{job_id}").json()
        except Failure as failure:
            # The answer is here and must not be lost; a server that drains stops right after its last byte.
            if time.monotonic() > until:
                note(f"its cost could not be read ({failure}); later: comptoir jobs {job_id}")
                return job
        else:
            if job["receipt"] or time.monotonic() > until:
                return job
        time.sleep(SETTLE_POLL_S)
