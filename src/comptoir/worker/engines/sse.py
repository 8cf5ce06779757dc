"""Server-sent events, read incrementally: any chunking, any line ending, comments skipped, lines bounded."""

LINE_BYTES_MAX = 16 * 1024 * 1024
"""Longest line of a stream, and most bytes of one event. A line of tool arguments or logprobs can be large."""


class SseTooLong(Exception):
    """A line or an event is longer than `LINE_BYTES_MAX`."""


class SseParser:
    """Feed it bytes as they come, get whole events as ``(event name, data)``."""

    __slots__ = ("_after_cr", "_data", "_data_bytes", "_event", "_held", "_held_bytes")

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._after_cr = False
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = b""

    def feed(self, chunk: bytes) -> list[tuple[bytes, bytes]]:
        """Return the events that *chunk* completes.

        Raises:
            SseTooLong: the bound was passed; the parser is of no use afterwards.
        """
        if self._after_cr or b"\r" in chunk:
            chunk = self._without_cr(chunk)
        if b"\n" not in chunk:
            # Pieces are joined once, when their line ends: a long line costs linear time.
            self._held.append(chunk)
            self._held_bytes += len(chunk)
            if self._held_bytes > LINE_BYTES_MAX:
                raise SseTooLong(f"a line of the stream is longer than {LINE_BYTES_MAX} bytes")
            return []
        if self._held:
            self._held.append(chunk)
            chunk = b"".join(self._held)
            self._held.clear()
        lines = chunk.split(b"\n")
        rest = lines.pop()
        self._held_bytes = len(rest)
        if rest:
            self._held.append(rest)
        return self._events(lines)

    def end(self) -> list[tuple[bytes, bytes]]:
        """Return what is complete but for its closing blank line (servers that end without one)."""
        last = b"".join(self._held)
        self._held.clear()
        return self._events([last, b""])

    def _without_cr(self, chunk: bytes) -> bytes:
        if not chunk:
            return chunk
        if self._after_cr and chunk[:1] == b"\n":
            chunk = chunk[1:]
        self._after_cr = chunk[-1:] == b"\r"
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _events(self, lines: list[bytes]) -> list[tuple[bytes, bytes]]:
        events: list[tuple[bytes, bytes]] = []
        data = self._data
        for line in lines:
            if not line:
                if data:
                    events.append((self._event, data[0] if len(data) == 1 else b"\n".join(data)))
                    data.clear()
                    self._data_bytes = 0
                self._event = b""
            elif line.startswith((b"data:", b"error:")):
                if line[:1] == b"e":
                    # No field of the standard: with it llama.cpp's server said that it failed.
                    self._event, line = b"error", line[1:]
                data.append(line[6:] if line[5:6] == b" " else line[5:])
                self._data_bytes += len(line)
                if self._data_bytes > LINE_BYTES_MAX:
                    raise SseTooLong(f"an event of the stream is longer than {LINE_BYTES_MAX} bytes")
            elif line.startswith(b"event:"):
                self._event = line[6:].strip()
        return events
