"""A buyer's file, made into samples by ffmpeg in the sandbox: looked at first, as films are, and refused by field."""

import asyncio
from pathlib import Path
from typing import BinaryIO

from comptoir.kinds.errors import BadOrderField
from comptoir.kinds.whisper.order import SpeechOrder, milliseconds_believed
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.ffmpeg.command import input_words
from comptoir.worker.engines.ffmpeg.media import Media
from comptoir.worker.engines.ffmpeg.probing import Tools, probe
from comptoir.worker.engines.ffmpeg.running import Words, check_ended, run_to_end
from comptoir.worker.engines.programs import Relay
from comptoir.worker.engines.whisper.protocol import SAMPLE_BYTES, SAMPLE_RATE
from comptoir.worker.sandbox.process import SandboxRun
from comptoir.worker.sandbox.results import NoResult, open_result
from comptoir.worker.sandbox.types import Bound

SOURCE = "/input/sound"
"""Where a program in the sandbox finds the input."""
NAME = "sound.pcm"
"""What it writes."""
OVER_S = 1
"""Seconds that are decoded beyond what was ordered, by which a longer sound is known."""
SAMPLES_PER_MS = SAMPLE_RATE // 1_000


class Sound:
    """The samples of one input, on the disk of this host until its run is erased."""

    def __init__(self, run: SandboxRun) -> None:
        self._work = run.work
        with self._open() as content:
            self.samples = content.seek(0, 2) // SAMPLE_BYTES

    @property
    def duration_ms(self) -> int:
        """How long it is, from the samples that are there; what is less than a millisecond is left out."""
        return self.samples // SAMPLES_PER_MS

    def read(self, from_ms: int, most_ms: int) -> bytes:
        """Return the samples from *from_ms* on, of at most *most_ms*. Blocks."""
        with self._open() as content:
            content.seek(from_ms * SAMPLES_PER_MS * SAMPLE_BYTES)
            found = content.read(min(most_ms, self.duration_ms - from_ms) * SAMPLES_PER_MS * SAMPLE_BYTES)
            return bytes(found)

    def _open(self) -> BinaryIO:
        try:
            return open_result(self._work, NAME)
        except NoResult as gone:
            raise EngineError("ffmpeg", f"the decoded sound is gone: {gone}") from gone


async def decode(tools: Tools, run: SandboxRun, relay: Relay, *, order: SpeechOrder, source: Path) -> Sound:
    """Decode *source*, a file of this host's.

    Raises:
        EngineError: it can't be, or is longer than was ordered; the fault says whose doing that is.
    """
    place = SOURCE if tools.sandboxed else str(source)
    given, size = Bound(str(source), SOURCE), (await asyncio.to_thread(source.stat)).st_size
    relay.progress(note="looking at the input")
    media = await probe(tools, run, place, given=given)
    if isinstance(media, str):
        raise _refused("inputs", f"is no sound and no film that is read here: {media}")
    if media.sound is None:
        raise _refused("inputs", "has no sound")
    if media.duration_s is not None:
        check_length(order, round(media.duration_s * 1_000), input_bytes=size)
    relay.progress(note="decoding")
    await _run_decoder(tools, run, media, place=place, given=given, seconds=order.body.seconds_max + OVER_S)
    sound = Sound(run)
    check_length(order, sound.duration_ms, input_bytes=size)
    return sound


def check_length(order: SpeechOrder, duration_ms: int, *, input_bytes: int) -> None:
    """Refuse a sound that is longer than was ordered, or than so many bytes can be.

    Raises:
        EngineError: it is.
    """
    if duration_ms > order.body.seconds_max * 1_000:
        words = f"is {order.body.seconds_max}, and the sound has {duration_ms / 1_000:.1f} s"
        raise _refused("seconds_max", words)
    if duration_ms > milliseconds_believed(input_bytes):
        raise _refused("inputs", f"says that {input_bytes} bytes are {duration_ms / 1_000:.0f} s of sound")


async def _run_decoder(tools: Tools, run: SandboxRun, media: Media, *, place: str, given: Bound, seconds: int) -> None:
    assert media.sound is not None
    words = [tools.ffmpeg, "-nostdin", "-hide_banner", "-nostats", "-loglevel", "error", "-y"]
    words += ["-threads", str(tools.limits.cores), *input_words(place), "-map", f"0:{media.sound.index}"]
    words += ["-vn", "-sn", "-dn", "-ac", "1", "-ar", str(SAMPLE_RATE), "-t", str(seconds)]
    words += ["-c:a", "pcm_s16le", "-f", "s16le", run.inside(f"/work/{NAME}")]
    said = Words(0)
    inputs = [*tools.program.bound, given]
    report = await run_to_end(run, words, inputs=inputs, limits=tools.limits, sinks=(said.take, said.take))
    check_ended(report, said, doing="decoding the sound")


def _refused(field: str, words: str) -> EngineError:
    return EngineError("bad_request", str(BadOrderField(field, words)), fault="buyer", status=422)
