"""Films, made for real: what is delivered is what was ordered, whole, and of the real streams; all else is refused.

The rows of what went wrong elsewhere are in `REFUSED` and `TestMade`: text in a film's clothes, empty success, no
duration, which stream, names that become options.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from comptoir.kinds import Terms
from comptoir.kinds.ffmpeg import Ffmpeg
from comptoir.kinds.ffmpeg.made import MadeFilm
from comptoir.kinds.ffmpeg.work import Picture, units_of
from comptoir.kinds.files import WorkProgress, extra_of, file_frame
from comptoir.kit.file_names import UNFIT
from comptoir.link import Frame
from comptoir.worker.engines.base import EngineError, EngineRequest
from tests.worker.engines.ffmpeg.conftest import FFMPEG, FilmOutcome, Films, Studio
from tests.worker.sandbox.conftest import living

HEADS = {
    "mp4": b"ftyp",
    "mov": b"ftyp",
    "mkv": b"\x1aE\xdf\xa3",
    "webm": b"webm",
    "ts": b"G@",
    "gif": b"GIF89a",
    "mp3": b"",
    "m4a": b"M4A",
    "opus": b"OpusHead",
    "ogg": b"OggS",
    "wav": b"WAVE",
    "flac": b"fLaC",
}
DEAR = pytest.mark.proof


def shape(made: MadeFilm) -> tuple[str, int, int, str]:
    video, audio = made.video, made.audio
    size = (video.codec, video.width, video.height) if video else ("", 0, 0)
    return (*size, audio.codec if audio else "")


class TestMade:
    @pytest.mark.parametrize(
        ("film", "fields", "expected"),
        [
            ("film.mp4", {}, ("h264", 64, 48, "aac")),
            ("film.mp4", {"output_format": "mov", "audio_codec": "pcm"}, ("h264", 64, 48, "pcm")),
            ("film.mp4", {"output_format": "mkv", "audio_codec": "flac"}, ("h264", 64, 48, "flac")),
            ("film.mp4", {"output_format": "webm"}, ("vp9", 64, 48, "opus")),
            ("film.mp4", {"output_format": "ts", "audio_codec": "mp3"}, ("h264", 64, 48, "mp3")),
            ("film.mp4", {"codec": "h265", "resolution": "32x24", "fps": 5}, ("h265", 32, 24, "aac")),
            pytest.param("film.mp4", {"codec": "av1"}, ("av1", 64, 48, "aac"), marks=DEAR),
            ("film.mp4", {"output_format": "gif"}, ("gif", 64, 48, "")),
            ("film.mp4", {"output_format": "m4a"}, ("", 0, 0, "aac")),
            ("film.mp4", {"output_format": "ogg", "audio_codec": "flac"}, ("", 0, 0, "flac")),
            ("sound.wav", {"output_format": "flac"}, ("", 0, 0, "flac")),
            # Sound is optional with a film; the picture that goes with a sound is none.
            ("silent.mp4", {}, ("h264", 64, 48, "")),
            ("cover.mp3", {"output_format": "opus"}, ("", 0, 0, "opus")),
            ("cover.mp3", {"output_format": "wav"}, ("", 0, 0, "pcm")),
            # The film and the sound of several streams; subtitles and attachments are left out.
            ("subtitled.mkv", {}, ("h264", 64, 48, "aac")),
            # Colours are halved, so odd sides are padded; a size that was ordered is kept to.
            ("odd.mkv", {}, ("h264", 62, 48, "")),
            ("odd.mkv", {"custom_args": ["-pix_fmt", "yuv444p"]}, ("h264", 61, 47, "")),
            ("turned.mp4", {}, ("h264", 48, 64, "aac")),
            ("film.mp4", {"resolution": "100x20"}, ("h264", 100, 20, "aac")),
            ("film.mp4", {"custom_args": ["-an", "-t", "0.5", "-ss", "0.2"]}, ("h264", 64, 48, "")),
        ],
        ids=str,
    )
    async def test_is_what_was_ordered(
        self, studio: Studio, film: str, fields: dict[str, Any], expected: tuple[str, int, int, str]
    ) -> None:
        outcome = await studio.make(film, **fields)

        made = outcome.made
        ((artifact, content),) = outcome.delivered
        assert shape(made) == expected
        assert HEADS[made.output_format] in content[:64] and len(content) == made.size == artifact.size
        assert artifact.name == f"{film.partition('.')[0]}.{made.output_format}"
        assert self._accepted(studio.request(film, **fields), outcome) == ""
        assert studio.runs == []

    def _accepted(self, request: EngineRequest, outcome: FilmOutcome) -> str:
        """Return what the kind has against it, as the coordinator asks it."""
        assert outcome.finish is not None
        claim = sum(frame.tokens for frame in outcome.frames)
        terms = Terms(output_max=request.max_tokens)
        job: Any = SimpleNamespace(body=request.body, frames=outcome.frames, segment_claim=claim, terms=terms)
        return Ffmpeg().wrong_output(job, finish_reason=outcome.finish.finish_reason, usage=outcome.finish.usage)

    async def test_padding_is_said(self, studio: Studio) -> None:
        odd, whole = await studio.make("odd.mkv"), await studio.make("film.mp4", resolution="32x24")

        assert odd.made.padded and not whole.made.padded

    async def test_all_units_come_with_the_film_and_follow_from_it(self, studio: Studio) -> None:
        """So a host that is lost before has earned nothing, and no host earns more than its film is worth."""
        outcome = await studio.make("film.mp4", preset="slow")

        video = outcome.made.video
        assert video is not None and video.frames == 10
        units = units_of(Picture("h264", 64, 48, 10), preset="slow", sound_ms=outcome.made.duration_ms)
        assert [frame.tokens for frame in outcome.frames] == [0] * (len(outcome.frames) - 1) + [units]
        assert outcome.finish is not None and outcome.finish.usage.completion_tokens == units
        assert units > outcome.made.duration_ms // 100, "the pictures were forgotten"

    async def test_without_a_length_it_ends_where_that_was_agreed(self, studio: Studio) -> None:
        """A browser's film does not say how long it is: a part of it is unknown, not a negative one."""
        whole, part = await studio.make("browser.webm"), await studio.make("browser.webm", custom_args=["-t", "0.3"])
        cut = await studio.make("endless.mkv", seconds_max=1)

        assert whole.made.input.duration_ms is None and (whole.made.ended_by, part.made.ended_by) == ("", "")
        assert cut.made.ended_by == "seconds" and 800 <= cut.made.duration_ms <= 1_200
        assert cut.finish is not None and cut.finish.finish_reason == "length"
        for outcome in (whole, part, cut):
            shown = [extra_of(frame).progress for frame in outcome.frames]
            assert {one.done for one in shown if one and " bytes" in one.note and "deliver" not in one.note} <= {None}

    async def test_a_gif_that_loops_for_ever_is_made_once(self, studio: Studio) -> None:
        made = (await studio.make("loop.gif", seconds_max=30)).made

        assert 900 <= made.duration_ms <= 1_200 and made.ended_by == ""


REFUSED = [
    # film, what is ordered, what the buyer is told
    ("playlist.mp4", {}, "inputs: "),
    ("concat.mp4", {}, "inputs: is no film and no sound that is read here: its format"),
    ("page.mp4", {}, "inputs: "),
    ("nothing.mp4", {}, "inputs: "),
    ("cover.mp3", {}, "output_format: mp4 is a film, and the input has sound and a cover alone"),
    ("sound.wav", {"output_format": "webm"}, "output_format: webm is a film, and the input has sound alone"),
    ("silent.mp4", {"output_format": "mp3"}, "output_format: mp3 is sound, and the input has none"),
    ("film.mp4", {"custom_args": ["-ss", "5"]}, "custom_args: -ss is behind the end"),
    ("long.mp4", {"seconds_max": 5}, "seconds_max: is 5, and the input is 20.0 s long"),
    ("silence.wav", {"output_format": "mp3"}, ""),
    ("browser.webm", {"custom_args": ["-ss", "50"]}, ""),
]


class TestRefused:
    @pytest.mark.parametrize(("film", "fields", "said"), REFUSED, ids=str)
    async def test_nothing_is_paid_and_the_field_is_named(
        self, studio: Studio, film: str, fields: dict[str, Any], said: str
    ) -> None:
        outcome = await studio.make(film, **fields)

        assert outcome.error is not None and outcome.error.fault == "buyer", outcome.finish
        assert outcome.error.message.startswith(said)
        assert outcome.delivered == [] and not any(frame.tokens for frame in outcome.frames)
        assert str(studio.folder) not in outcome.error.message and studio.runs == []

    async def test_what_an_order_may_be_paid_ends_it_before_it_begins(self, studio: Studio) -> None:
        request = msgspec.structs.replace(studio.request("long.mp4"), max_tokens=10)

        outcome = await studio.carry_out(request)

        assert outcome.error is not None and outcome.error.message.startswith("seconds_max: covers 10 units")

    async def test_half_a_film_is_made_as_far_as_it_goes(self, studio: Studio) -> None:
        """It says ten frames; what arrives is what is there, described and paid as such, or nothing."""
        outcome = await studio.make("broken.mp4")

        if outcome.error is None:
            assert outcome.made.video is not None and outcome.made.video.frames < 10
        else:
            assert outcome.error.fault == "buyer"

    async def test_files_that_can_not_be_had_or_kept(self, studio: Studio) -> None:
        gone, full = studio.request("film.mp4"), studio.request("film.mp4")
        gone.files.inputs = [EngineError("gone", "no such file", fault="buyer")]  # type: ignore[union-attr]
        full.files.refusal = EngineError("quota", "no room", fault="buyer")  # type: ignore[union-attr]

        first, second = await studio.carry_out(gone), await studio.carry_out(full)

        assert first.error is not None and first.error.code == "gone"
        assert second.error is not None and second.error.code == "quota" and not any(f.tokens for f in second.frames)
        assert studio.runs == []

    async def test_a_host_that_never_got_the_files(self, studio: Studio) -> None:
        request = msgspec.structs.replace(studio.request("film.mp4"), files=None)

        with pytest.raises(EngineError) as raised:
            [each async for each in studio.engine.run(request)]

        assert raised.value.fault == "host"


class TestNames:
    @pytest.mark.parametrize(
        "name", ["-y.mp4", "a.mp4 -i http:x $(id)", "..mp4", "é" * 255, "a\\b.mp4", "\x9b.mp4", "\u202ea.mp4"]
    )
    async def test_are_only_what_the_film_is_called(self, studio: Studio, name: str) -> None:
        """None reaches a command line; the film is called after it, however it is spelled."""
        outcome = await studio.make("silent.mp4", inputs=[{"file": "file_1", "name": name}])

        ((artifact, _),) = outcome.delivered
        assert artifact.name.endswith(".mp4") and len(artifact.name) <= 255 and not UNFIT.search(artifact.name)
        assert outcome.made.video is not None


class TestWhileItRuns:
    async def test_it_says_how_far_it_is_and_stops_at_once(self, studio: Studio) -> None:
        """Stopped, nothing of it lives on, and nothing of it is left on the disk."""
        mark = "-g\0977"
        request = studio.request("long.mp4", preset="veryslow", custom_args=["-g", "977"])
        stream = studio.engine.run(request)
        shown = await self._until(stream, lambda frame: (extra_of(frame).progress or _NONE).done is not None)
        progress = extra_of(shown).progress

        assert progress is not None and progress.done is not None and 0 <= progress.done < 1
        assert progress.count is not None and " of 20.0 s" in progress.note
        assert living(mark), "the mark is on no command line"
        await stream.aclose()  # type: ignore[attr-defined]
        assert not living(mark) and studio.runs == []

    async def _until(self, stream: Any, found: Callable[[Frame], bool]) -> Frame:
        async for item in stream:
            if isinstance(item, Frame) and found(item):
                return item
        raise AssertionError("it ended first")

    async def test_after_a_host_that_was_lost_it_begins_again_and_says_so(self, studio: Studio) -> None:
        lost = (file_frame(progress=WorkProgress(0.5)), file_frame("half a log", stream="stderr"))
        outcome = await studio.carry_out(studio.request("silent.mp4", prefix=lost))

        assert extra_of(outcome.frames[0]).begun_again
        assert outcome.made.video is not None and outcome.made.video.frames == 10


_NONE = WorkProgress()


class TestLimits:
    async def test_bytes_end_a_film_that_goes_on(self, films: Films, tmp_path: Path) -> None:
        """It is whole as far as it goes, and says that there is more."""
        studio = Studio(tmp_path, films, output_mib=1)
        await studio.engine.start()
        try:
            began_s = time.monotonic()
            outcome = await studio.make("long.mp4", output_format="wav")
            made = await studio.make("long.mp4", crf=0, custom_args=["-g", "1"], resolution="640x480")
        finally:
            await studio.engine.close()

        assert outcome.error is not None and time.monotonic() - began_s < 60
        assert made.made.ended_by == "bytes" and made.made.size < 1.3 * 1024 * 1024

    async def test_memory_is_the_hosts_to_bound(self, films: Films, tmp_path: Path) -> None:
        studio = Studio(tmp_path, films, memory_mib=1)
        with pytest.raises(EngineError):
            await asyncio.wait_for(studio.engine.start(), 60)
        await studio.engine.close()


class TestFfprobe:
    SAID = {
        "format": {"format_name": "by ffprobe", "duration": "1.0"},
        "streams": [{"index": 0, "codec_type": "video", "codec_name": "h264", "width": 64, "height": 48}],
    }

    @pytest.mark.parametrize(("end", "refused"), [(0, False), (1, True)])
    async def test_is_asked_where_it_is(
        self, end: int, refused: bool, films: Films, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of the input and of the film, in the sandbox; ffmpeg's own report is not looked at then."""
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "ffmpeg").symlink_to(FFMPEG)
        probe = tmp_path / "bin" / "ffprobe"
        probe.write_text(f"#!/bin/sh\ntest -e /input/film || exit 3\necho '{json.dumps(self.SAID)}'\nexit {end}\n")
        probe.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        studio = Studio(tmp_path, films)
        await studio.engine.start()
        try:
            outcome = await studio.make("silent.mp4")
        finally:
            await studio.engine.close()

        if refused:
            assert outcome.error is not None and outcome.error.message.startswith("inputs: ")
        else:
            assert outcome.made.input.format == "by ffprobe" and outcome.made.video is not None


class TestOffer:
    async def test_says_which_codecs_were_seen_to_work(self, studio: Studio) -> None:
        (offer,) = await studio.engine.models()

        assert offer.kinds == ["ffmpeg"] and offer.can_continue
        assert {name for name, state in offer.capabilities.items() if state == "probed"} == set(Ffmpeg.capabilities)
