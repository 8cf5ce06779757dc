"""The command line: made of our words and of numbers, whatever the order says."""

import itertools
import json
import re
from typing import Any

import pytest

from comptoir.kinds.errors import BadOrderField
from comptoir.kinds.ffmpeg.formats import FORMATS, PRESETS
from comptoir.kinds.ffmpeg.order import FilmOrder, read_order
from comptoir.worker.engines.ffmpeg.command import ENCODERS, CommandHost, command, probe_words, report_words
from comptoir.worker.engines.ffmpeg.media import Media, PictureStream, SoundStream
from comptoir.worker.engines.ffmpeg.plan import FPS_UNKNOWN, Plan, make_plan

HOST = CommandHost("/usr/bin/ffmpeg", "/input/film", "/work/film", threads=2, bytes_max=1_000_000)
SECRET = "SECRET"


def order(**fields: Any) -> FilmOrder:
    return read_order(json.dumps({"inputs": [{"file": "f", "name": f"-{SECRET} $(id).mp4"}]} | fields).encode())


def media(*, duration_s: float | None = 10.0, channels: int = 2, **picture: Any) -> Media:
    given = {"index": 3, "codec": SECRET, "width": 640, "height": 360, "fps": 25.0} | picture
    sound = SoundStream(index=5, codec=SECRET, channels=channels, sample_rate=48_000)
    return Media(SECRET, duration_s, (PictureStream(**given),), (sound,))


def plan(asked: FilmOrder, found: Media | None = None, *, units_max: int = 0, input_bytes: int = 10**9) -> Plan:
    return make_plan(asked, found or media(), input_bytes=input_bytes, units_max=units_max)


def words(asked: FilmOrder, found: Media | None = None, **kinds: str) -> list[str]:
    encoders = {codec: names[0] for codec, names in ENCODERS.items()} | kinds
    return command(asked, plan(asked, found), HOST, encoders=encoders)


def pairs(line: list[str]) -> dict[str, str]:
    return dict(itertools.pairwise(line))


class TestCommand:
    @pytest.mark.parametrize("output_format", FORMATS)
    @pytest.mark.parametrize("av1", ENCODERS["av1"])
    def test_nothing_of_the_buyer_is_on_it(self, output_format: str, av1: str) -> None:
        """Names and tags are the buyer's; no word may be one of them, nor open more than the one input."""
        for codec in FORMATS[output_format].video or (None,):
            fields = {"codec": codec, "preset": "slow"} if codec not in (None, "gif") else {}
            line = words(order(output_format=output_format, **fields), av1=av1)

            assert SECRET not in " ".join(line) and line.count("-i") == 1
            assert line[line.index("-i") + 1] == HOST.source and line[-1] == HOST.target
            before = line[: line.index("-i")]
            assert pairs(before)["-protocol_whitelist"] == "file"
            assert not {"hls", "concat", "dash", "sdp", "image2"} & set(pairs(before)["-format_whitelist"].split(","))
            assert all(re.fullmatch(r"[-\w.,:=/+\[\]; *]+", word) for word in line)

    def test_so_are_the_looks_at_it(self) -> None:
        for line in (probe_words("/usr/bin/ffprobe", "/input/film"), report_words("/usr/bin/ffmpeg", "/input/film")):
            assert pairs(line)["-protocol_whitelist"] == "file" and "-format_whitelist" in line

    def test_arguments_are_written_anew(self) -> None:
        line = words(order(custom_args=["-ss", "00:00:01.50", "-t", "07", "-g", "0048", "-ac", "1", "-maxrate", "2M"]))

        assert line.index("-ss") < line.index("-i") < line.index("-t")
        found = pairs(line)
        assert (found["-ss"], found["-t"], found["-g"], found["-ac"]) == ("1.5", "7", "48", "1")
        assert (found["-maxrate"], found["-bufsize"]) == ("2000000", "4000000")

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({}, {"-crf": "23", "-preset": "medium", "-c:v": "libx264", "-pix_fmt": "yuv420p"}),
            ({"bitrate": "2M"}, {"-b:v": "2000000"}),
            ({"bitrate": "2M", "crf": 20}, {"-crf": "20", "-maxrate": "2000000"}),
            ({"codec": "vp9", "output_format": "webm"}, {"-crf": "23", "-b:v": "0", "-deadline": "good"}),
            ({"codec": "vp9", "bitrate": "1M", "crf": 30}, {"-crf": "30", "-b:v": "1000000"}),
            ({"codec": "h265"}, {"-tag:v": "hvc1"}),
            ({"codec": "av1", "preset": "veryslow"}, {"-preset": "3", "-svtav1-params": "lp=2"}),
            ({"fps": 12.5}, {"-r": "12.5"}),
        ],
        ids=str,
    )
    def test_says_what_was_ordered(self, fields: dict[str, Any], expected: dict[str, str]) -> None:
        assert expected.items() <= pairs(words(order(**fields))).items()

    @pytest.mark.parametrize("preset", PRESETS)
    def test_every_preset_has_a_level_of_each_encoder(self, preset: str) -> None:
        for codec, encoder in itertools.product(("vp9", "av1"), ("libvpx-vp9", "libsvtav1", "libaom-av1")):
            assert words(order(codec=codec, preset=preset), **{codec: encoder})

    def test_threads_and_bytes_are_bounded(self) -> None:
        line = words(order(codec="h265"))

        assert pairs(line)["-fs"] == "1000000" and "pools=2" in pairs(line)["-x265-params"]
        assert {line[at + 1] for at, word in enumerate(line) if word == "-threads"} == {"2"}


class TestPlan:
    @pytest.mark.parametrize(
        ("fields", "found", "size", "padded"),
        [
            ({}, {}, (640, 360), False),
            ({}, {"width": 641, "height": 481}, (642, 482), True),
            ({}, {"width": 641, "height": 480, "turned": True}, (480, 642), True),
            ({}, {"width": 3, "height": 3}, (16, 16), True),
            ({"resolution": "1280x720"}, {}, (1280, 720), False),
            ({"resolution": "100x100"}, {}, (100, 100), True),
            ({"output_format": "gif"}, {"width": 641, "height": 481}, (641, 481), False),
        ],
        ids=str,
    )
    def test_sides_are_even_where_they_have_to_be(
        self, fields: dict[str, Any], found: dict[str, Any], size: tuple[int, int], padded: bool
    ) -> None:
        made = plan(order(**fields), media(**found))

        assert ((made.width, made.height), made.padded) == (size, padded)

    @pytest.mark.parametrize(
        ("fields", "found", "field"),
        [
            ({}, {"width": 9_000}, "resolution"),
            ({"seconds_max": 5}, {}, "seconds_max"),
            ({"custom_args": ["-ss", "11"]}, {}, "custom_args"),
        ],
        ids=str,
    )
    def test_what_this_input_does_not_allow(self, fields: dict[str, Any], found: dict[str, Any], field: str) -> None:
        with pytest.raises(BadOrderField) as raised:
            plan(order(**fields), media(**found))

        assert raised.value.field == field

    def test_a_small_input_is_no_long_film(self) -> None:
        """What bounds a host's word about the length is refused here first, so that no honest host says it."""
        with pytest.raises(BadOrderField) as raised:
            plan(order(seconds_max=3_600), media(duration_s=3_000.0), input_bytes=1_000)

        assert raised.value.field == "inputs"
        assert plan(order(), media(duration_s=None), input_bytes=80).length_s == 70

    def test_units_bound_frames_and_refuse_a_film_that_is_known_to_be_longer(self) -> None:
        asked = order(custom_args=["-an"])
        units = 1_000 * 640 * 360 // (1920 * 1080)  # A second of it at 30 frames.

        assert plan(asked, media(duration_s=None), units_max=units).frames_max == 30 - 1
        with pytest.raises(BadOrderField) as raised:
            plan(asked, media(duration_s=10.0), units_max=units)
        assert raised.value.field == "seconds_max"

    @pytest.mark.parametrize(
        ("fps", "expected"), [(0.0, FPS_UNKNOWN), (1_000.0, FPS_UNKNOWN), (25.0, 0.0), (120.0, 0.0)]
    )
    def test_frames_a_second_are_the_inputs_where_they_can_be(self, fps: float, expected: float) -> None:
        assert plan(order(), media(fps=fps)).fps == expected
        assert plan(order(fps=10), media(fps=fps)).fps == 10

    @pytest.mark.parametrize(("codec", "channels"), [("aac", 6), ("opus", 2), ("mp3", 2), ("flac", 6)])
    def test_more_channels_than_a_codec_has_are_mixed_down(self, codec: str, channels: int) -> None:
        assert plan(order(output_format="mkv", audio_codec=codec), media(channels=6)).channels == channels
