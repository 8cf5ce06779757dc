"""How many read: the bounds on open event streams, in all and of one job."""

from collections.abc import Callable

from comptoir.dispatch import Core, State
from comptoir.kit.errors import TooManyRequests, Unavailable

AGAIN_AFTER_S = 1.0
"""When a reader that was turned away may come back."""


class OpenStreams(State):
    """Open event streams."""

    def __init__(self, core: Core) -> None:
        self.of_job: dict[bytes, int] = {}
        """How many each job has."""
        self.count = 0
        """How many there are in all."""


def open_stream(core: Core, job_id: bytes) -> Callable[[], None]:
    """Count one more reader of a job; returns what ends the counting (calling it again does nothing).

    Raises:
        TooManyRequests: the job has ``subscribers_per_job_max`` readers.
        Unavailable: ``streams_max`` streams are open.
    """
    settings, streams = core.settings, core.state(OpenStreams)
    readers = streams.of_job
    of_job = readers.get(job_id, 0)
    if of_job >= settings.subscribers_per_job_max:
        raise TooManyRequests(f"{of_job} read this job's stream already", retry_after_s=AGAIN_AFTER_S)
    if streams.count >= settings.streams_max:
        raise Unavailable("too many streams are open; try again in a moment", retry_after_s=AGAIN_AFTER_S)
    readers[job_id] = of_job + 1
    streams.count += 1
    is_open = True

    def close() -> None:
        nonlocal is_open
        if is_open:
            is_open = False
            streams.count -= 1
            left = readers[job_id] - 1
            if left:
                readers[job_id] = left
            else:
                del readers[job_id]

    return close
