"""Reads the logs of an episode for errors of our own: what is killed may say that others are away, and nothing else."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.books import Violation

RAISED = re.compile(
    r"^\s*(?:\|\s*)*((?:\w+\.)*[A-Z]\w*(?:Error|Exception|Disconnect(?:ed)?|Interrupt|Unavailable|Refused))(?::|$)(.*)"
)
"""The last line of a traceback."""

EXPECTED = (
    "psycopg.", "sqlite3.OperationalError", "comptoir.kit.errors.Unavailable", "asyncio.exceptions.CancelledError",
    "starlette.websockets.WebSocketDisconnect", "ConnectionRefusedError", "ConnectionResetError", "BrokenPipeError",
    "ConnectionAbortedError", "TimeoutError", "OSError", "aiohttp.client_exceptions.", "comptoir.kit.bus.",
)  # fmt: skip
"""What says that a database, a bus, a disk or the other end of a line is away, or that a stop cut something short."""


def check_logs(folder: Path) -> Iterator[Violation]:
    """Yield every kind of error in the logs that no kill explains, with how often it was logged and where first."""
    found: Counter[str] = Counter()
    first: dict[str, str] = {}
    for path in sorted(folder.glob("coordinator*.log")) + sorted(folder.glob("worker*.log")):
        with path.open(errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                raised = RAISED.match(line)
                if raised is not None and not raised[1].startswith(EXPECTED):
                    found[raised[1]] += 1
                    first.setdefault(raised[1], f"{path.name}:{number}: {line.strip()[:200]}")
    for kind, count in found.items():
        yield Violation("no error of our own is logged", "", f"{kind} {count} times, first {first[kind]}")
