"""One film: the input is probed, it is decided what is made, that is made, probed, and delivered.

All of it runs in one sandbox run, which sees the fetched input under a name of ours and has no network. The film, its
description and all its units come in one frame, the last: a host that is lost before has earned nothing.
"""

from pathlib import Path

import msgspec

from comptoir.kinds.errors import BadOrderField
from comptoir.kinds.ffmpeg import Ffmpeg
from comptoir.kinds.ffmpeg.made import AudioStream, EndedBy, MadeFilm, MadeFrom, VideoStream, units_in, wrong_film
from comptoir.kinds.ffmpeg.order import FilmOrder
from comptoir.kinds.ffmpeg.work import Picture, units_of
from comptoir.kinds.files import file_frame
from comptoir.link import Usage
from comptoir.worker.engines.base import EngineError, Finish, JobFiles
from comptoir.worker.engines.ffmpeg.command import CommandHost, command
from comptoir.worker.engines.ffmpeg.media import Media
from comptoir.worker.engines.ffmpeg.plan import Plan, make_plan
from comptoir.worker.engines.ffmpeg.probing import Tools, probe
from comptoir.worker.engines.ffmpeg.running import FilmProgress, check_ended, run_to_end
from comptoir.worker.engines.programs import Relay
from comptoir.worker.sandbox.process import SandboxRun
from comptoir.worker.sandbox.results import NoResult, open_result
from comptoir.worker.sandbox.types import Bound

SOURCE = "/input/film"
"""Where a program in the sandbox finds the input."""
NEARLY_S = 0.2
"""How near its bound a film ends that was ended by it: a frame, or a packet of sound, is left out."""

_encode = msgspec.json.Encoder().encode


class Film:
    """The film of one order, made from *source*, a file of this host's."""

    def __init__(
        self, tools: Tools, run: SandboxRun, relay: Relay, *, order: FilmOrder, source: Path, units_max: int
    ) -> None:
        self._tools, self._run, self._relay = tools, run, relay
        self._order = order
        self._size = source.stat().st_size
        self._units_max = units_max
        self._given = Bound(str(source), SOURCE)
        self._source = SOURCE if tools.sandboxed else str(source)
        self._name = f"film.{order.output_format}"
        self._target = run.inside(f"/work/{self._name}")

    async def make(self, files: JobFiles, body: bytes) -> Finish:
        """Make and deliver it, and say so in one frame.

        Raises:
            EngineError: it can't be made; the fault says whose doing that is.
        """
        order = self._order
        self._relay.progress(note="looking at the input")
        media = await self._probe(self._source)
        if isinstance(media, str):
            raise _refused(BadOrderField("inputs", f"is no film and no sound that is read here: {media}"))
        try:
            plan = make_plan(order, media, input_bytes=self._size, units_max=self._units_max)
        except BadOrderField as bad:
            raise _refused(bad) from bad
        told = await self._encode(plan)
        self._relay.progress(done=1.0, note="looking at the film")
        made = await self._look(plan, told, media)
        self._relay.progress(done=1.0, note=f"delivering {made.size:,} bytes", count=made.units)
        try:
            with open_result(self._run.work, self._name) as content:
                artifact = await files.deliver(content, name=_called(body, order), media=order.file_format.media)
        except NoResult as gone:
            raise EngineError("ffmpeg", f"the film is gone: {gone}") from gone
        reason = "length" if made.ended_by else "stop"
        result = msgspec.Raw(_encode(made))
        await self._relay.say(file_frame("", made.units, artifact=artifact, result=result, finish_reason=reason))
        return Finish(reason, Usage(completion_tokens=made.units))

    async def _probe(self, place: str) -> Media | str:
        return await probe(self._tools, self._run, place, given=self._given)

    async def _encode(self, plan: Plan) -> FilmProgress:
        """Have it made."""
        tools, order = self._tools, self._order
        host = CommandHost(tools.ffmpeg, self._source, self._target, tools.limits.cores, tools.bytes_max)
        words = command(order, plan, host, encoders=tools.encoders)

        def units(frames: int, seconds: float) -> int:
            picture = Picture(order.codec, plan.width, plan.height, frames) if plan.picture is not None else None
            return units_of(picture, preset=order.preset, sound_ms=int(seconds * 1000) if plan.sound is not None else 0)

        expected_s = None if plan.expected_s is None else min(plan.expected_s, plan.length_s)
        fps = plan.fps or plan.picture.fps if plan.picture is not None else 0.0
        told = FilmProgress(self._relay, expected_s=expected_s, fps=fps, units=units)
        inputs = [*tools.program.bound, self._given]
        report = await run_to_end(
            self._run, words, inputs=inputs, limits=tools.limits, sinks=(told.progress, told.complain)
        )
        check_ended(report, told.words, doing="making the film")
        return told

    async def _look(self, plan: Plan, told: FilmProgress, media: Media) -> MadeFilm:
        """Probe what was made, and describe it.

        Raises:
            EngineError: it is empty, or not what was ordered.
        """
        try:
            with open_result(self._run.work, self._name) as content:
                size = content.seek(0, 2)
        except NoResult:
            size = 0
        out = await self._probe(self._target) if size else "it is empty"
        if isinstance(out, str) or (plan.picture and not out.picture) or (plan.sound and not out.sound):
            why = out if isinstance(out, str) else "a stream of it is missing"
            raise EngineError(
                "empty", f"nothing came of the film: {why}; {told.words.reason}", fault="buyer", status=422
            )
        lines = told.lines
        seconds = out.duration_s or lines.seconds
        video, audio = None, None
        if plan.picture is not None and out.picture is not None:
            seen, fps = out.picture, round(lines.frames / seconds, 3) if seconds else 0.0
            video = VideoStream(seen.codec, seen.width, seen.height, lines.frames, fps)
        if plan.sound is not None and out.sound is not None:
            audio = AudioStream(out.sound.codec, out.sound.channels, out.sound.sample_rate)
        made = MadeFilm(
            self._order.output_format,
            round(seconds * 1000),
            size,
            video,
            audio,
            plan.padded,
            self._ended_by(plan, told, seconds),
            0,
            self._made_from(plan, media),
        )
        made = msgspec.structs.replace(made, units=units_in(made, self._order))
        if wrong := wrong_film(made, self._order, size=size, input_bytes=self._size):
            raise EngineError("ffmpeg", f"the film is not what was ordered: {wrong}")
        return made

    def _ended_by(self, plan: Plan, told: FilmProgress, seconds: float) -> EndedBy:
        """Return which bound was reached before the input's end; empty: none."""
        if told.lines.size >= self._tools.bytes_max:
            return "bytes"
        if plan.picture is not None and told.lines.frames >= plan.frames_max:
            return "units"
        asked_s = self._order.arguments.length_s
        if asked_s is not None and asked_s <= plan.length_s:
            return ""  # It was to end there.
        over = plan.expected_s is None or plan.expected_s > plan.length_s
        return "seconds" if over and seconds >= plan.length_s - NEARLY_S else ""

    def _made_from(self, plan: Plan, media: Media) -> MadeFrom:
        picture, sound = plan.picture, plan.sound
        duration_ms = None if media.duration_s is None else round(media.duration_s * 1000)
        video = VideoStream(picture.codec, picture.width, picture.height, 0, picture.fps) if picture else None
        audio = AudioStream(sound.codec, sound.channels, sound.sample_rate) if sound else None
        return MadeFrom(media.format, duration_ms, self._size, video, audio)


def _refused(bad: BadOrderField) -> EngineError:
    return EngineError("bad_request", str(bad), fault="buyer", status=422)


def _called(body: bytes, order: FilmOrder) -> str:
    """Return what the buyer finds the film as: what the input is called, with the ending of the format."""
    (given,) = Ffmpeg().inputs(body)
    return given.made_into(0, order.output_format, otherwise="film")
