"""The kind ``whisper``: what is said in a sound or film, written down or translated into English. Sold by the second of
sound, in whole segments. What a host can be believed, and why: docs/kinds/whisper.md.
"""

from collections.abc import Sequence

import msgspec

from comptoir.kinds.errors import BadOrderField
from comptoir.kinds.extras import BadExtra
from comptoir.kinds.ffmpeg.formats import SANDBOX
from comptoir.kinds.files import FileKind, current, extra_of
from comptoir.kinds.kind import Progress
from comptoir.kinds.output import Size, text_size
from comptoir.kinds.terms import Ask, Part
from comptoir.kinds.units import Unit
from comptoir.kinds.whisper.order import asks_other_languages, read_order
from comptoir.kinds.whisper.spoken import SpokenExtra, Transcript, heard_in, wrong_transcript
from comptoir.link import Usage

AUDIO_MS = Unit(
    "audio_ms", "second of sound", "seconds of sound", 1_000, "second of sound", shown=1_000, usual_rate=50_000
)

TRANSLATE, LANGUAGES = "translate", "multilingual"
"""What some models can't: to translate (English-only ones, and the turbo ones, which were not trained to), and to hear
other languages than English."""

FETCHING_S = 600.0
"""What a host may take for the file of a sound, and for loading a model, beside the work."""
SLOWEST = 4
"""Seconds that a slow host takes for a second of sound: the largest model on a few cores."""
UNITS_PER_BYTE = 2_000
"""Most milliseconds that a byte of a frame can stand for. One frame is of at most 30 seconds, what a model hears at
once, and has at least 18 bytes."""

_SHOWN = (b'"segment"', b'"silent_to"', b'"result"', b'"artifact"', b'"failed"', b'"finish_reason"')
_transcript_in = msgspec.json.Decoder(Transcript).decode
_spoken_in = msgspec.json.Decoder(SpokenExtra).decode


class Whisper(FileKind):
    """Speech, written down, in whole segments.

    Each frame with a segment counts the sound up to its end. A host that is lost has earned that, and the next goes on
    behind it, in the same language.
    """

    name = "whisper"
    output = AUDIO_MS
    capabilities = {TRANSLATE: "task", LANGUAGES: "language", SANDBOX: "inputs"}

    def check(self, body: bytes) -> str:
        """Return which field can't be carried out, and why."""
        try:
            read_order(body)
        except BadOrderField as bad:
            return str(bad)
        return ""

    def output_max(self, body: bytes) -> int:
        """Return the milliseconds of the longest sound that is taken."""
        return read_order(body).milliseconds_max

    def parts(self, ask: Ask) -> tuple[Part, ...]:
        """Return the one part: what the file's bytes can be at most, or what was ordered, whichever is less."""
        return (Part(ask.model, output_max=self._bound(ask.body, ask.output_max)),)

    def part(self, job: Progress) -> Part:
        """Return the same, with its hold."""
        terms = job.terms
        return Part(job.model, output_max=self._bound(job.body, terms.output_max), hold_uusd=terms.hold_uusd)

    def asks(self, body: bytes) -> frozenset[str]:
        """Return what the model has to be able to do."""
        try:
            order = read_order(body)
        except BadOrderField:
            return frozenset()
        needed = {TRANSLATE} if order.body.task == "translate" else set()
        return frozenset(needed | ({LANGUAGES} if asks_other_languages(order) else set()))

    def output_in(self, text: str, extras: Sequence[bytes]) -> Size:
        """Count what was heard: text, segments and their times, stretches of silence, and the result."""
        solid, blank = text_size(text) if text else (0, 0)
        shown = [len(extra) for extra in extras if any(mark in extra for mark in _SHOWN)]
        return solid + sum(shown), blank

    def runs_s(self, body: bytes) -> float:
        """Return how long a slow host takes for the longest sound, and for bringing it."""
        return FETCHING_S + read_order(body).milliseconds_max / 1_000 * SLOWEST

    def believed(self, claimed: int, output_bytes: int, passed_ms: int = 0) -> int:
        """Return the units that so many bytes can stand for, at most `UNITS_PER_BYTE` each."""
        return min(claimed, output_bytes * UNITS_PER_BYTE)

    def check_extra(self, extra: bytes) -> None:
        """Refuse what is no `SpokenExtra`, whose segments the next host goes on from."""
        super().check_extra(extra)
        try:
            _spoken_in(extra)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadExtra(str(error)) from error

    def wrong_output(self, job: Progress, *, finish_reason: str, usage: Usage) -> str:
        """Return why this is no transcript as ordered: one result, paid by the length of the sound that it names."""
        heard = heard_in(current(job.frames))
        try:
            made, order = _transcript_in(heard.result or b"null"), read_order(job.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadOrderField) as error:
            return f"the transcript can't be read: {error}"
        if wrong := wrong_transcript(made, order, heard, input_bytes=self._input_bytes(job)):
            return wrong
        if usage.prompt_tokens:
            return "it has no input to count"
        return "" if finish_reason == "stop" else f"it ends by {finish_reason!r} and not by 'stop'"

    def finished_already(self, job: Progress) -> str:
        """Return the finish reason in the last frame, if that holds the transcript as ordered."""
        reason = super().finished_already(job)
        return "" if reason and self.wrong_output(job, finish_reason=reason, usage=Usage()) else reason

    def _bound(self, body: bytes, output_max: int) -> int:
        try:
            return min(output_max, read_order(body).milliseconds_max)
        except BadOrderField:
            return output_max  # Stored by an older coordinator, which took it.

    def _input_bytes(self, job: Progress) -> int | None:
        """Return the size of the input: of a file by the trading post's word, of an address by its host's."""
        frames = [frame for frame in current(job.frames) if b'"fetched"' in frame.extra]
        fetched = [each.size for frame in frames if (each := extra_of(frame).fetched) is not None]
        return fetched[-1] if fetched else self.inputs(job.body)[0].size


__all__ = ["AUDIO_MS", "Whisper"]
