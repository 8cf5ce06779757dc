"""Turn llama.cpp's stream into frames: names the tokens of each piece, holds text back that may become a stop string.

A frame's ``extra`` carries ``ids`` (the piece's token ids) only where the text alone doesn't tell them, ``stop: true``
on a piece that a stop string cut short, and ``logprobs`` when asked for.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from comptoir.link import Frame

from .base import cannot_continue
from .gguf_metadata import TokenBytes

Json = dict[str, Any]


class LlamaExtra(msgspec.Struct, omit_defaults=True):
    """``Frame.extra`` as this engine writes and reads it."""

    ids: list[int] = []
    stop: bool = False
    logprobs: Any = None
    delta: Any = None


class Logprob(msgspec.Struct):
    """One alternative as llama.cpp names it."""

    token: str
    logprob: float
    bytes: list[int] = []


class TokenLogprob(Logprob):
    """The sampled token and its alternatives."""

    top_logprobs: list[Logprob] = []


class LlamaPiece(msgspec.Struct):
    """Whole characters and the tokens they stand for."""

    text: str
    tokens: int
    ids: list[int] | None
    """None when the tokens can't be told from what llama.cpp sends."""
    logprobs: list[TokenLogprob] = []
    stop: bool = False


class StopScanner:
    """Holds back pieces that may be the beginning of a stop string; delivers whole pieces only.

    *before* is what was delivered before by a host that may not have held anything back: a stop string that begins in
    it ends the answer too, though its beginning can't be taken back.
    """

    def __init__(self, stops: Sequence[str], *, before: str = "") -> None:
        self._stops = stops
        self._held: list[LlamaPiece] = []
        longest = max((len(stop) for stop in stops), default=0)
        self._before = before[-(longest - 1) :] if longest > 1 else ""
        self.hit = False

    def feed(self, piece: LlamaPiece) -> list[LlamaPiece]:
        """Return the pieces that are safe to deliver; sets ``hit`` when a stop string is complete."""
        if not self._stops:
            return [piece]
        self._held.append(piece)
        old = len(self._before)
        text = self._before + "".join(held.text for held in self._held)
        # One that ends before the new text had been passed by already.
        found = [place for stop in self._stops if (place := text.find(stop, max(0, old - len(stop) + 1))) >= 0]
        if found:
            self.hit = True
            return self._cut(max(0, min(found) - old))
        ready = self._release(len(text) - self._beginning(text) - old)
        if ready:
            # What may still become a stop string begins after this.
            self._before = ""
        return ready

    def rest(self) -> list[LlamaPiece]:
        """Return what is still held when the answer ends by itself."""
        held, self._held = self._held, []
        return held

    def _beginning(self, text: str) -> int:
        """Return how many characters at the end of *text* begin a stop string."""
        longest = max(len(stop) for stop in self._stops) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0

    def _release(self, end: int) -> list[LlamaPiece]:
        ready: list[LlamaPiece] = []
        at = 0
        while self._held and at + len(self._held[0].text) <= end:
            at += len(self._held[0].text)
            ready.append(self._held.pop(0))
        return ready

    def _cut(self, place: int) -> list[LlamaPiece]:
        ready = self._release(place)
        left = place - sum(len(piece.text) for piece in ready)
        if left > 0:
            first = self._held[0]
            ready.append(msgspec.structs.replace(first, text=first.text[:left], stop=True))
        self._held = []
        return ready


class Framer:
    """Writes pieces as frames in the shape of the request's kind."""

    def __init__(self, table: TokenBytes | None, *, kind: str, top_logprobs: int, offset: int = 0) -> None:
        """*top_logprobs* < 0: none asked for; *offset*: characters delivered before."""
        self._table = table
        self._kind = kind
        self._top = top_logprobs
        self._offset = offset

    def frame(self, piece: LlamaPiece) -> Frame:
        """Return the frame of *piece*."""
        named = piece.ids is None or (
            len(piece.ids) == 1
            and not piece.stop
            and self._table is not None
            and self._table.names(piece.text, piece.ids[0])
        )
        if named and self._top < 0:
            return Frame(piece.text, piece.tokens)
        extra = LlamaExtra(ids=[] if named else piece.ids or [], stop=piece.stop)
        if self._top >= 0:
            extra.logprobs = self._logprobs(piece)
        self._offset += len(piece.text)
        return Frame(piece.text, piece.tokens, msgspec.json.encode(extra))

    def _logprobs(self, piece: LlamaPiece) -> Json:
        tops = [[_entry(top) for top in entry.top_logprobs[: self._top]] for entry in piece.logprobs]
        if self._kind == "chat":
            content = [_entry(entry) | {"top_logprobs": top} for entry, top in zip(piece.logprobs, tops, strict=True)]
            return {"content": content}
        return {
            "tokens": [entry.token for entry in piece.logprobs],
            "token_logprobs": [entry.logprob for entry in piece.logprobs],
            "top_logprobs": [{entry["token"]: entry["logprob"] for entry in top} for top in tops],
            "text_offset": [self._offset] * len(piece.logprobs),
        }


def _entry(entry: Logprob) -> Json:
    return {"token": entry.token, "logprob": entry.logprob, "bytes": entry.bytes}


_read_extra = msgspec.json.Decoder(LlamaExtra).decode


def prefix_ids(prefix: Sequence[Frame], table: TokenBytes | None) -> list[int] | None:
    """Return the token ids of delivered frames, None when one of them can't be named exactly."""
    ids: list[int] = []
    for frame in prefix:
        known = list(_named(frame, table))
        if len(known) != frame.tokens:
            return None
        ids.extend(known)
    return ids


def prefix_text(prefix: Sequence[Frame]) -> str:
    """Return the text of delivered frames.

    Raises:
        EngineError: ``cannot_continue``: there is more in them than text.
    """
    for frame in prefix:
        extra = _read_extra(frame.extra) if frame.extra else LlamaExtra()
        if extra.delta:
            raise cannot_continue("it has parts other than text")
    return "".join(frame.text for frame in prefix)


def _named(frame: Frame, table: TokenBytes | None) -> Iterator[int]:
    extra = _read_extra(frame.extra) if frame.extra else LlamaExtra()
    if extra.ids:
        yield from extra.ids
    elif frame.tokens == 1 and table is not None and (token := table.id_of(frame.text)) is not None:
        yield token


def ended_by_stop(prefix: Sequence[Frame]) -> bool:
    """Return whether the last delivered frame was cut by a stop string, so that nothing may follow."""
    return bool(prefix and prefix[-1].extra and _read_extra(prefix[-1].extra).stop)


def same_frame(one: Frame, other: Frame) -> bool:
    """Return whether two frames say the same: logprobs may differ in the last digit, ids of tool calls are random."""
    if (one.text, one.tokens) != (other.text, other.tokens):
        return False
    return one.extra == other.extra or _comparable(one.extra) == _comparable(other.extra)


def _comparable(extra: bytes) -> tuple[list[int], bool, Any]:
    read = _read_extra(extra) if extra else LlamaExtra()
    delta = read.delta
    if isinstance(delta, dict) and "tool_calls" in delta:
        delta = delta | {"tool_calls": [call | {"id": ""} for call in delta["tool_calls"]]}
    return read.ids, read.stop, delta
