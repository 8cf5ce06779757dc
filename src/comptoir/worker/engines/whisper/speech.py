"""One job: a sound is heard piece by piece, and told segment by segment, from where another host was lost."""

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import msgspec

from comptoir.kinds.files import FILE_EXTRA_BYTES_MAX, file_frame
from comptoir.kinds.whisper import Whisper
from comptoir.kinds.whisper.order import MEDIA, SpeechOrder
from comptoir.kinds.whisper.spoken import (
    RESULT_BYTES_MAX,
    Heard,
    HeardLanguage,
    SpokenSegment,
    SpokenWord,
    Transcript,
    milliseconds,
    spoken_frame,
    text_of,
)
from comptoir.link import Usage
from comptoir.worker.engines.base import EngineError, Finish, JobFiles
from comptoir.worker.engines.programs import Relay
from comptoir.worker.engines.whisper.listeners import Listener
from comptoir.worker.engines.whisper.protocol import Piece
from comptoir.worker.engines.whisper.sound import Sound
from comptoir.worker.engines.whisper.writing import WRITERS

PIECE_MS = 900_000
"""Longest piece of sound that is heard at once: a quarter of an hour takes some 300 MB, whatever the whole has."""
EDGE_MS = 2_000
"""A segment that ends so near the end of a piece, which is not the sound's, may have been cut: the next piece begins
with it."""
WINDOW_MS = 30_000
"""What a model hears at once. No frame counts more: longer silence is told in several."""
PROMPT_CHARS = 2_000
"""Of what was said before, what the next piece is heard with; a model looks at its last 223 tokens."""

_encode = msgspec.json.Encoder().encode


class Speech:
    """The speech of one order's sound, of which *heard* was delivered already."""

    def __init__(self, listener: Listener, relay: Relay, sound: Sound, *, order: SpeechOrder, heard: Heard) -> None:
        self._listener, self._relay, self._sound = listener, relay, sound
        self._order, self._body = order, order.body
        self._heard = heard
        self._told_ms = 0
        """Milliseconds that this host has counted."""

    async def tell(self, files: JobFiles) -> Finish:
        """Hear it to its end, make what files were ordered, and say what came of it.

        Raises:
            EngineError: it can't be; the fault says whose doing that is.
        """
        if self._order.language and self._heard.language is None:
            await self._say_language(HeardLanguage(self._order.language, 1.0))
        duration_ms = self._sound.duration_ms
        while self._heard.position_ms < duration_ms:
            await self._hear_piece(duration_ms)
        await self._say_result(files, duration_ms)
        return Finish("stop", Usage(completion_tokens=self._told_ms))

    async def _hear_piece(self, duration_ms: int) -> None:
        """Hear from where it is on, at most `PIECE_MS`, and tell what is sure."""
        heard, begin_ms = self._heard, self._heard.position_ms
        length_ms = min(PIECE_MS, duration_ms - begin_ms)
        last = begin_ms + length_ms == duration_ms
        self._progress(begin_ms, duration_ms)
        samples = await asyncio.to_thread(self._sound.read, begin_ms, length_ms)
        go_on_ms = begin_ms + length_ms - (0 if last else EDGE_MS)
        said = self._listener.hear(self._piece(samples), samples)
        cut = False
        async for each in said:
            if each.language and heard.language is None:
                await self._say_language(HeardLanguage(each.language, min(1.0, max(0.0, each.probability))))
            if each.segment is None or cut:
                continue
            segment = self._segment(each.segment, begin_ms, begin_ms + length_ms)
            if not last and milliseconds(segment.end) > go_on_ms and milliseconds(segment.start) > begin_ms:
                # It and all after it are heard again, whole; the rest of this piece is heard in vain.
                go_on_ms, cut = milliseconds(segment.start), True
                continue
            await self._say_segment(segment)
            self._progress(heard.position_ms, duration_ms)
        await self._say_silence(max(go_on_ms, heard.position_ms))

    def _piece(self, samples: bytes) -> Piece:
        body, heard = self._body, self._heard
        first = not heard.position_ms and not heard.segments
        said = text_of(heard.segments)[-PROMPT_CHARS:] if body.condition_on_previous_text else ""
        asked = body.initial_prompt or "" if first or body.condition_on_previous_text else ""
        return Piece(
            samples=len(samples) // 2,
            language=heard.language.language if heard.language else "",
            task=body.task,
            temperature=body.temperature,
            best_of=body.best_of,
            beam_size=body.beam_size,
            patience=body.patience,
            suppress_tokens=self._order.suppress_tokens,
            prompt=f"{asked} {said}".strip(),
            whole_prompt=first,
            conditioned=body.condition_on_previous_text,
            words=body.word_timestamps,
            vad=body.vad,
        )

    def _segment(self, said: dict[str, Any], begin_ms: int, end_ms: int) -> SpokenSegment:
        """Return a segment of a piece, with its times within the piece and behind the last segment."""
        before_ms = milliseconds(self._heard.segments[-1].end) if self._heard.segments else 0

        def within(seconds: float, least_ms: int, most_ms: int) -> int:
            return max(least_ms, min(most_ms, begin_ms + milliseconds(seconds)))

        start_ms = within(said["start"], max(begin_ms, before_ms), end_ms)
        stop_ms = within(said["end"], start_ms, end_ms)
        words, at_ms = [], start_ms
        for text, start, end, probability in said["words"] or ():
            first_ms = within(start, at_ms, stop_ms)
            at_ms = within(end, first_ms, stop_ms)
            words.append(SpokenWord(text, first_ms / 1_000, at_ms / 1_000, min(1.0, max(0.0, probability))))
        measures = {}
        if self._body.verbose:
            names = ("tokens", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob")
            measures = {name: said[name] for name in names} | {"tokens": tuple(said["tokens"])}
        return SpokenSegment(
            len(self._heard.segments),
            start_ms / 1_000,
            stop_ms / 1_000,
            said["text"],
            words=tuple(words) if self._body.word_timestamps else None,
            **measures,
        )

    # -- what is said --------------------------------------------------------------------------------------------

    def _progress(self, at_ms: int, duration_ms: int) -> None:
        note = f"{at_ms / 1_000:.1f} of {duration_ms / 1_000:.1f} s"
        self._relay.progress(done=at_ms / duration_ms, note=note, count=at_ms)

    async def _say_language(self, language: HeardLanguage) -> None:
        self._heard.language = language
        await self._relay.say(spoken_frame(heard=language))

    async def _say_segment(self, segment: SpokenSegment) -> None:
        if milliseconds(segment.start) == milliseconds(segment.end):
            return  # Said behind the sound's end, or within what was said already.
        await self._say_silence(milliseconds(segment.start), least_ms=WINDOW_MS)
        self._heard.segments.append(segment)
        count = self._counted(milliseconds(segment.end))
        await self._relay.say(spoken_frame(segment.text, count, segment=segment))

    async def _say_silence(self, to_ms: int, *, least_ms: int = 0) -> None:
        """Tell that nothing was said up to *to_ms*; with *least_ms*, so much of it may be left to the next frame."""
        for at_ms in windows(self._heard.position_ms, to_ms - least_ms):
            await self._relay.say(spoken_frame("", self._counted(at_ms), silent_to=at_ms / 1_000))

    def _counted(self, to_ms: int) -> int:
        count = to_ms - self._heard.position_ms
        assert count >= 0, "what was counted is behind"
        self._heard.position_ms = to_ms
        self._told_ms += count
        return count

    async def _say_result(self, files: JobFiles, duration_ms: int) -> None:
        heard, body = self._heard, self._body
        language = heard.language.language if heard.language else None
        whole = Transcript(text_of(heard.segments), language, duration_ms / 1_000, body.task, tuple(heard.segments))
        for number, ending in enumerate(body.outputs):
            if number < len(heard.files):
                continue  # Delivered by the host that was lost.
            self._relay.progress(done=1.0, note=f"delivering {ending}", count=duration_ms)
            content = io.BytesIO(WRITERS[ending](whole, heard.segments).encode(errors="replace"))
            artifact = await files.deliver(content, name=self._called(ending), media=MEDIA[ending])
            heard.files.append(artifact.name)
            await self._relay.say(file_frame(artifact=artifact))
        result = _encode(whole)
        if len(result) > RESULT_BYTES_MAX:
            result = _encode(msgspec.structs.replace(whole, segments=None))
        if len(result) > FILE_EXTRA_BYTES_MAX - 1_024:
            raise EngineError("whisper", "the text is longer than a result can be")
        await self._relay.say(file_frame(result=msgspec.Raw(result), finish_reason="stop"))

    def _called(self, ending: str) -> str:
        (given,) = Whisper().inputs(_encode(self._body))
        return given.made_into(0, ending, otherwise="sound")


def windows(from_ms: int, to_ms: int) -> Iterator[int]:
    """Yield the ends of stretches of at most `WINDOW_MS`, from the one to the other."""
    while from_ms < to_ms:
        from_ms = min(to_ms, from_ms + WINDOW_MS)
        yield from_ms
