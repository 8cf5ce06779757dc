"""The kind ``ffmpeg``: a film or sound is made into another format, codec or size. Sold by the second of output, scaled
by the work that it is (`work.units_of`). What a host can be believed, and why: docs/kinds/ffmpeg.md.
"""

from collections.abc import Sequence

import msgspec

from comptoir.kinds.errors import BadOrderField
from comptoir.kinds.ffmpeg.formats import AUDIO_CODECS, GIF, SANDBOX, VIDEO_CODECS
from comptoir.kinds.ffmpeg.made import MadeFilm, wrong_film
from comptoir.kinds.ffmpeg.order import read_order
from comptoir.kinds.ffmpeg.work import UNITS_PER_BYTE
from comptoir.kinds.files import FileKind, artifact_in, current, extra_of
from comptoir.kinds.kind import Progress
from comptoir.kinds.output import Size
from comptoir.kinds.units import Unit
from comptoir.link import Usage

VIDEO_MS = Unit(
    "video_ms", "second of video", "seconds of video", 1_000, "second of video", shown=1_000, usual_rate=100_000
)

FETCHING_S = 600.0
"""What a host may take for the files of a film, in both directions, beside the work."""
SLOWEST = 4
"""Seconds that a slow host takes for a second of standard video; one core of ours takes two and a half."""

_film_in = msgspec.json.Decoder(MadeFilm).decode


class Ffmpeg(FileKind):
    """A film, made again: whole, or not at all.

    Its one artifact, its result and all its units come in one frame, the last. A host that is lost before has earned
    nothing, and the next begins again.
    """

    name = "ffmpeg"
    output = VIDEO_MS
    noun = "encoder"
    pays_half = False
    pays_cancelled = False
    pays_lost = False
    output_over_max = 0
    capabilities = {
        **dict.fromkeys((*VIDEO_CODECS, GIF), "codec"),
        **dict.fromkeys(AUDIO_CODECS, "audio_codec"),
        SANDBOX: "inputs",
    }

    def check(self, body: bytes) -> str:
        """Return which field can't be carried out, and why."""
        try:
            read_order(body)
        except BadOrderField as bad:
            return str(bad)
        return ""

    def output_max(self, body: bytes) -> int:
        """Return what the agreed seconds are worth, at the size that was asked for or 1920x1080."""
        return read_order(body).units_max

    def asks(self, body: bytes) -> frozenset[str]:
        """Return the codecs that are needed."""
        try:
            order = read_order(body)
        except BadOrderField:
            return frozenset()
        return frozenset({order.codec, order.audio_codec} - {""})

    def output_in(self, text: str, extras: Sequence[bytes]) -> Size:
        """Count the bytes of the film: they are what is bought."""
        made = [artifact_in(extra) for extra in extras]
        return sum([artifact.size for artifact in made if artifact is not None]), 0

    def runs_s(self, body: bytes) -> float:
        """Return how long a slow host takes for what the hold covers, and for bringing it to and fro."""
        return FETCHING_S + read_order(body).units_max / 1_000 * SLOWEST

    def believed(self, claimed: int, output_bytes: int, passed_ms: int = 0) -> int:
        """Return the units that so many bytes can stand for, at most `work.UNITS_PER_BYTE` each."""
        return min(claimed, output_bytes * UNITS_PER_BYTE)

    def wrong_output(self, job: Progress, *, finish_reason: str, usage: Usage) -> str:
        """Return why this is no film as ordered: one artifact, described, and paid by that description alone."""
        frames = current(job.frames)
        last = extra_of(frames[-1]) if frames else None
        if last is None or last.artifact is None or last.result is msgspec.UNSET:
            return "the last frame of a film has it, and its description"
        if sum([b'"artifact"' in frame.extra for frame in frames]) != 1:
            return "a film is one file"
        try:
            made, order = _film_in(last.result), read_order(job.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadOrderField) as error:
            return f"the description of the film can't be read: {error}"
        if wrong := wrong_film(made, order, size=last.artifact.size, input_bytes=self._input_bytes(job)):
            return wrong
        if usage.prompt_tokens or job.segment_claim != min(made.units, job.terms.output_max or made.units):
            return f"a film of {made.units} units is not {job.segment_claim}, and has no input to count"
        words = "length" if made.ended_by else "stop"
        return "" if finish_reason == words else f"it ends by {finish_reason!r} and not by {words!r}"

    def _input_bytes(self, job: Progress) -> int | None:
        """Return the size of the input: of a file by the trading post's word, of an address by its host's."""
        frames = [frame for frame in current(job.frames) if b'"fetched"' in frame.extra]
        fetched = [each.size for frame in frames if (each := extra_of(frame).fetched) is not None]
        return fetched[-1] if fetched else self.inputs(job.body)[0].size


__all__ = ["VIDEO_MS", "Ffmpeg"]
