"""Ends an answer before the buyer's stop strings, whatever the server does with them.

At OpenAI the text ends before the stop string that is complete first. TGI leaves the string in the text (issue 1724),
and servers that look for it token by token miss one that begins inside of a token. So frames are held back while they
may be the beginning of a stop string, and what comes after one is dropped.
"""

from collections.abc import Sequence

import msgspec

from comptoir.link import Frame

_BEGINS = b'"stop"'


class _Stopping(msgspec.Struct):
    stop: str | list[str] | None = None
    include_stop_str_in_output: bool | None = None
    no_stop_trim: bool | None = None
    min_tokens: int | None = None
    echo: bool | None = None


class _Indexed(msgspec.Struct):
    index: int = 0


_read = msgspec.json.Decoder(_Stopping).decode
_index_in = msgspec.json.Decoder(_Indexed).decode


class _Text:
    """What was held back of one choice, and whether its text is over."""

    __slots__ = ("held", "over")

    def __init__(self) -> None:
        self.held: list[Frame] = []
        self.over = False


class StopGuard:
    """Gives the frames of an answer as far as the stop strings let them."""

    def __init__(self, stops: Sequence[str]) -> None:
        """*stops* are not empty."""
        self._stops = stops
        self._texts: dict[int, _Text] = {}

    @property
    def stopped(self) -> bool:
        """Whether choice 0 ended at a stop string."""
        return 0 in self._texts and self._texts[0].over

    def feed(self, frame: Frame) -> list[Frame]:
        """Return the frames that *frame* completes, in order."""
        text = self._texts.setdefault(_index_of(frame), _Text())
        if text.over:
            return [] if frame.text else [frame]
        text.held.append(frame)
        said = "".join([held.text for held in text.held])
        found = [(place + len(stop), place) for stop in self._stops if (place := said.find(stop)) >= 0]
        if found:
            # The one that is complete first, as if the text came letter by letter.
            text.over = True
            return _cut(text, min(found)[1])
        ready = _ready(text.held, len(said) - self._begun(said))
        done, text.held = text.held[:ready], text.held[ready:]
        return done

    def end(self) -> list[Frame]:
        """Return what is still held back: no stop string was completed."""
        return [frame for text in self._texts.values() if not text.over for frame in text.held]

    def _begun(self, said: str) -> int:
        """Return how many characters at the end of *said* may begin a stop string."""
        most = min(len(said), max(len(stop) for stop in self._stops) - 1)
        return next((size for size in range(most, 0, -1) if any(s.startswith(said[-size:]) for s in self._stops)), 0)


def guard_of(body: bytes) -> StopGuard | None:
    """Return a guard for a request's stop strings; None: it has none, or wants them in the text or not heeded yet."""
    if _BEGINS not in body:
        return None
    try:
        asked = _read(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # The server says what is wrong with it.
    if asked.include_stop_str_in_output or asked.no_stop_trim or asked.min_tokens or asked.echo:
        return None
    stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    stops = [stop for stop in stops if stop]
    return StopGuard(stops) if stops else None


def before_stops(frames: Sequence[Frame], guard: StopGuard | None, *, ends: bool = False) -> Sequence[Frame]:
    """Return what *guard* lets through of *frames*, all without one; at the end also what it holds back."""
    if guard is None:
        return frames
    allowed = [one for frame in frames for one in guard.feed(frame)]
    return allowed + guard.end() if ends else allowed


def _index_of(frame: Frame) -> int:
    return _index_in(frame.extra).index if frame.extra else 0


def _ready(held: Sequence[Frame], end: int) -> int:
    """Return how many of the *held* frames lie within the first *end* characters."""
    place = 0
    for count, frame in enumerate(held):
        place += len(frame.text)
        if place > end:
            return count
    return len(held)


def _cut(text: _Text, end: int) -> list[Frame]:
    """Return the frames of the first *end* characters; a frame with the beginning of a stop string loses that."""
    held, text.held = text.held, []
    kept: list[Frame] = []
    for frame in held:
        if end <= 0 and frame.text:
            break
        kept.append(frame if len(frame.text) <= end else Frame(frame.text[:end], frame.tokens, frame.extra))
        end -= len(frame.text)
    return kept
