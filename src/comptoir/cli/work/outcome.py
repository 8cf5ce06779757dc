"""What came of a job so far, folded from its frames."""

from typing import Any

from comptoir.cli.answer import Told

STDOUT, STDERR = "stdout", "stderr"


class WorkOutcome:
    """Takes frames as a stream tells them, from the start again where a stream or a host begins again.

    What was written before is passed over where it comes again, so that a reader of the output has it once.
    """

    def __init__(self) -> None:
        self.written = {STDOUT: Told(), STDERR: Told()}
        self.artifacts: list[dict[str, Any]] = []
        """Those that are part of the result, in the order in which they came."""
        self.fetched: list[dict[str, Any]] = []
        self.result: Any = None
        self.failed: dict[str, Any] = {}
        """How the program failed by its own doing; empty: it did not, or not yet."""
        self.progress: dict[str, Any] = {}
        self.count = 0
        """Units of output that arrived."""
        self.begun_again = 0
        """How often another host began from the start."""
        self.end: dict[str, Any] = {}

    def told_again(self) -> None:
        """The stream begins anew: nothing of what it told counts."""
        self._begin()
        self.count = self.begun_again = 0

    def take(self, frame: dict[str, Any]) -> list[tuple[str, str]]:
        """Take a frame; return what is new of the program's output, by stream."""
        extra = frame.get("extra") or {}
        if extra.get("begun_again"):
            self._begin()
            self.begun_again += 1
        self.count += frame.get("count", 0)
        self.progress = extra.get("progress") or self.progress
        self.failed = extra.get("failed") or self.failed
        if "artifact" in extra:
            self.artifacts.append(extra["artifact"])
        if "fetched" in extra:
            self.fetched.append(extra["fetched"])
        if "result" in extra:
            self.result = extra["result"]
        text, stream = frame.get("text", ""), STDERR if extra.get("stream") == STDERR else STDOUT
        fresh = self.written[stream].take(text) if text else ""
        return [(stream, fresh)] if fresh else []

    @property
    def contradicted(self) -> bool:
        """Whether another host wrote something else than the one before it; asking it clears it."""
        found = any(told.restarted for told in self.written.values())
        for told in self.written.values():
            told.restarted = False
        return found

    def _begin(self) -> None:
        for told in self.written.values():
            told.told_again()
        self.artifacts, self.fetched, self.progress, self.failed = [], [], {}, {}
        self.result = None
