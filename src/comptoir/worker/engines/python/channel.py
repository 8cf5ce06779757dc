"""What a job says on its channel, descriptor 3, and what its printed lines say of its progress."""

import asyncio
import re
import time
from typing import Annotated

import msgspec

from comptoir.worker.engines.programs import NOTE_CHARS_MAX, Relay

RESULT_BYTES_MAX = 16 * 1024 * 1024
"""Longest result; what is larger belongs into a file."""
CHANNEL_BYTES_MAX = 2 * RESULT_BYTES_MAX
LINE_CHARS_MAX = 1024
"""Longest printed line that is looked at for progress."""

_PROGRESS = re.compile(rb"\s*progress\s*[:=]\s*([0-9]{1,3}(?:\.[0-9]{0,6})?)\s*%\s*([^\r\n]*)", re.IGNORECASE)


class _Progress(msgspec.Struct):
    done: float | None = None
    note: str = ""


class _Line(msgspec.Struct):
    started: bool = False
    progress: _Progress | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    kind: str = ""


_decode = msgspec.json.Decoder(_Line).decode


class Shown:
    """When the program began, and how far it says that it is; told with the time that it has taken."""

    def __init__(self, relay: Relay) -> None:
        self.began_s = 0.0
        """Monotonic time; 0: it has not begun."""
        self.begun = asyncio.Event()
        self._relay = relay
        self._done: float | None = None
        self._note = ""

    @property
    def wall_ms(self) -> int:
        """Milliseconds since it began."""
        return max(1, round((time.monotonic() - self.began_s) * 1000)) if self.began_s else 0

    def begin(self) -> None:
        """Note that it begins; the first time counts."""
        if not self.began_s:
            self.began_s = time.monotonic()
            self.begun.set()
            self.tell()

    def note(self, done: float | None, note: str) -> None:
        """Note how far it is."""
        self._done, self._note = done, note
        self.tell()

    def tell(self) -> None:
        """Show it."""
        self._relay.progress(done=self._done, note=self._note, count=self.wall_ms)


class Channel:
    """Takes whole lines of JSON; what is none is dropped. The first result counts."""

    def __init__(self, shown: Shown) -> None:
        self.result: bytes | None = None
        self.error = ""
        """What the program did not catch, in a line."""
        self.kind = ""
        """The limit that this stands for; empty: none."""
        self._shown = shown
        self._parts: list[bytes] = []

    async def take(self, piece: bytes) -> None:
        """Take a piece of what was written."""
        lines = piece.split(b"\n")
        for line in lines[:-1]:
            self._parts.append(line)
            self._hear(b"".join(self._parts))
            self._parts = []
        self._parts.append(lines[-1])

    def _hear(self, line: bytes) -> None:
        try:
            said = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if said.started:
            self._shown.begin()
        if said.progress is not None:
            self._shown.note(said.progress.done, said.progress.note)
        if said.result is not msgspec.UNSET and self.result is None:
            self.result = bytes(said.result)
        if said.error and not self.error:
            self.error, self.kind = said.error, said.kind


class PrintedLines:
    """Finds lines such as ``progress: 42 % epoch 3`` in what is printed."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._rest = b""
        self._skips = False

    def take(self, piece: bytes) -> None:
        """Look at a piece of standard output."""
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        if self._skips and lines:
            del lines[0]
            self._skips = False
        if len(self._rest) > LINE_CHARS_MAX:
            self._rest, self._skips = b"", True
        # Of many in one piece the last one counts.
        for line in reversed(lines):
            found = _PROGRESS.fullmatch(line) if len(line) <= LINE_CHARS_MAX else None
            if found is not None:
                note = found[2].decode(errors="replace").strip()[:NOTE_CHARS_MAX]
                self._shown.note(float(found[1]) / 100, note)
                return
