"""A way to see that processes are gone."""

import os
import select
from contextlib import closing


class Watched:
    """A process that is waited for though it is nobody's child here."""

    def __init__(self, pid: int) -> None:
        self._handle = os.pidfd_open(pid)

    def gone(self, within_s: float = 30.0) -> bool:
        """Wait until it is gone."""
        with closing(os.fdopen(self._handle, "rb", buffering=0)) as handle:
            return bool(select.select([handle], [], [], within_s)[0])
