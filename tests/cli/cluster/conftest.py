"""Places for clusters, and a way to see that processes are gone."""

import os
import select
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a folder for a cluster. It can't be one of pytest's: run as root, PostgreSQL is another user and must reach it."""
    with tempfile.TemporaryDirectory(prefix="comptoir-c-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "data"


class Watched:
    """A process that is waited for though it is nobody's child here."""

    def __init__(self, pid: int) -> None:
        self._handle = os.pidfd_open(pid)

    def gone(self, within_s: float = 30.0) -> bool:
        """Wait until it is gone."""
        with closing(os.fdopen(self._handle, "rb", buffering=0)) as handle:
            return bool(select.select([handle], [], [], within_s)[0])
