"""Orders: the published fields, their defaults and bounds; what can't work is refused by field, before any hold."""

import json
from typing import Any

import pytest

from comptoir.kinds.errors import BadOrderField
from comptoir.kinds.ffmpeg import Ffmpeg
from comptoir.kinds.ffmpeg.order import FilmOrder, read_order

FILE = {"inputs": [{"file": "file_1"}]}


def order(**fields: Any) -> FilmOrder:
    return read_order(json.dumps(FILE | fields).encode())


def refusal(**fields: Any) -> str:
    """Return what the kind says of a body; empty: nothing is wrong."""
    return Ffmpeg().check(json.dumps(FILE | fields).encode())


class TestDefaults:
    def test_are_those_of_the_published_service(self) -> None:
        """mp4, preset medium, crf 23, AAC at 128k; H.264 is what it makes of an mp4."""
        plain = order()

        assert (plain.output_format, plain.codec, plain.preset, plain.crf) == ("mp4", "h264", "medium", 23)
        assert (plain.audio_codec, plain.audio_rate_bps) == ("aac", 128_000)
        assert (plain.size, plain.fps, plain.bitrate_bps) == (None, None, None)

    @pytest.mark.parametrize(
        ("output_format", "codec", "audio_codec"),
        [
            ("webm", "vp9", "opus"),
            ("mkv", "h264", "aac"),
            ("gif", "gif", ""),
            ("mp3", "", "mp3"),
            ("opus", "", "opus"),
            ("wav", "", "pcm"),
            ("flac", "", "flac"),
        ],
    )
    def test_follow_the_format(self, output_format: str, codec: str, audio_codec: str) -> None:
        made = order(output_format=output_format)

        assert (made.codec, made.audio_codec) == (codec, audio_codec)

    def test_a_bitrate_takes_the_place_of_the_quality_and_both_bound_it(self) -> None:
        assert order(bitrate="2M").crf is None
        assert (order(bitrate="2M", crf=20).crf, order(bitrate="800k", crf=20).bitrate_bps) == (20, 800_000)

    @pytest.mark.parametrize(
        ("fields", "seconds"),
        [({}, 600), ({"custom_args": ["-t", "1200.5"]}, 1_201), ({"custom_args": ["-t", "5"], "seconds_max": 9}, 9)],
    )
    def test_what_is_paid_at_most_is_what_was_asked_for(self, fields: dict[str, Any], seconds: int) -> None:
        """Whoever asks for a length by ffmpeg's own argument need not say it twice."""
        assert order(**fields).seconds_max == seconds

    def test_arguments_are_read_into_values(self) -> None:
        words = [
            "-ss",
            "00:01:02.5",
            "-t",
            "3",
            "-g",
            "48",
            "-ac",
            "1",
            "-map_metadata",
            "-1",
            "-movflags",
            "+faststart",
        ]
        read = order(custom_args=words).arguments

        assert (read.start_s, read.length_s, read.keyframes, read.channels, read.untitled) == (62.5, 3.0, 48, 1, True)


REFUSED = [
    # field that is named, body
    ("inputs", {"inputs": []}),
    ("inputs", {"inputs": [{"file": "a"}, {"file": "b"}]}),
    ("inputs", {"inputs": [{"file": "a", "url": "https://a.example/b"}]}),
    ("inputs", {"inputs": [{"name": "x"}]}),
    ("inputs", {"inputs": "film.mp4"}),
    ("output_format", {"output_format": "exe"}),
    ("codec", {"codec": "prores"}),
    ("codec", {"codec": "h264", "output_format": "webm"}),
    ("codec", {"codec": "vp9", "output_format": "mov"}),
    ("codec", {"codec": "h264", "output_format": "mp3"}),
    ("codec", {"codec": "h264", "output_format": "gif"}),
    ("crf", {"crf": 20, "output_format": "gif"}),
    ("resolution", {"resolution": "640x360", "output_format": "flac"}),
    ("preset", {"preset": "placebo"}),
    ("crf", {"crf": 52}),
    ("crf", {"crf": -1}),
    ("crf", {"crf": 20.5}),
    ("crf", {"crf": True}),
    ("resolution", {"resolution": "641x480"}),
    ("resolution", {"resolution": "640x481", "codec": "vp9"}),
    ("resolution", {"resolution": "0x0"}),
    ("resolution", {"resolution": "8000x10"}),
    ("resolution", {"resolution": "7680x7680"}),
    ("resolution", {"resolution": "640x480,drawtext=textfile=/etc/passwd"}),
    ("resolution", {"resolution": "٦٤٠x٤٨٠"}),
    ("resolution", {"resolution": "640x480\n"}),
    ("bitrate", {"bitrate": "fast"}),
    ("bitrate", {"bitrate": "0"}),
    ("bitrate", {"bitrate": "999999M"}),
    ("bitrate", {"bitrate": "2m"}),
    ("fps", {"fps": 0}),
    ("fps", {"fps": 121}),
    ("fps", {"fps": "30"}),
    ("audio_codec", {"audio_codec": "dts"}),
    ("audio_codec", {"audio_codec": "aac", "output_format": "webm"}),
    ("audio_codec", {"audio_codec": "aac", "output_format": "gif"}),
    ("audio_bitrate", {"audio_bitrate": "900k"}),
    ("audio_bitrate", {"audio_bitrate": "400k", "audio_codec": "mp3"}),
    ("audio_bitrate", {"audio_bitrate": "128k", "output_format": "flac"}),
    ("audio_bitrate", {"audio_bitrate": "128k", "custom_args": ["-an"]}),
    ("seconds_max", {"seconds_max": 0}),
    ("seconds_max", {"seconds_max": 86_401}),
    ("body", {"input_url": "https://a.example/b"}),
    ("custom_args", {"custom_args": ["-i", "/etc/passwd"]}),
    ("custom_args", {"custom_args": ["-f", "hls"]}),
    ("custom_args", {"custom_args": ["-vf", "movie=/etc/passwd"]}),
    ("custom_args", {"custom_args": ["-protocol_whitelist", "file,http"]}),
    ("custom_args", {"custom_args": ["/tmp/other.mp4"]}),
    ("custom_args", {"custom_args": ["-y.mp4"]}),
    ("custom_args", {"custom_args": ["-t"]}),
    ("custom_args", {"custom_args": ["-t", "0"]}),
    ("custom_args", {"custom_args": ["-t", "nan"]}),
    ("custom_args", {"custom_args": ["-t", "1e9"]}),
    ("custom_args", {"custom_args": ["-t", "-1"]}),
    ("custom_args", {"custom_args": ["-ss", "1", "-ss", "2"]}),
    ("custom_args", {"custom_args": ["-t", "10.5"], "seconds_max": 10}),
    ("custom_args", {"custom_args": ["-g", "0"]}),
    ("custom_args", {"custom_args": ["-g", "٤"]}),
    ("custom_args", {"custom_args": ["-movflags", "frag_keyframe"]}),
    ("custom_args", {"custom_args": ["-map_metadata", "0"]}),
    ("custom_args", {"custom_args": ["-tune", "film"], "codec": "h265"}),
    ("custom_args", {"custom_args": ["-tune", "film"], "output_format": "mp3"}),
    ("custom_args", {"custom_args": ["-profile:v", "high"], "codec": "vp9"}),
    ("custom_args", {"custom_args": ["-profile:v", "high"], "crf": 0}),
    ("custom_args", {"custom_args": ["-profile:v", "high", "-pix_fmt", "yuv444p"]}),
    ("custom_args", {"custom_args": ["-pix_fmt", "yuv444p"], "codec": "av1"}),
    ("custom_args", {"custom_args": ["-bufsize", "2M"]}),
    ("custom_args", {"custom_args": ["-ac", "6"], "output_format": "mp3"}),
    ("custom_args", {"custom_args": ["-ar", "44100"], "output_format": "opus"}),
    ("custom_args", {"custom_args": ["-ac", "2", "-an"]}),
    ("custom_args", {"custom_args": ["-an"], "output_format": "mp3"}),
    ("custom_args", {"custom_args": ["-an"] * 65}),
    ("custom_args", {"custom_args": ["-" + "a" * 64]}),
    ("bitrate", {"custom_args": ["-maxrate", "2M"], "bitrate": "1M", "crf": 20}),
]


class TestRefused:
    @pytest.mark.parametrize(("field", "fields"), REFUSED, ids=[json.dumps(fields) for _, fields in REFUSED])
    def test_by_the_field_that_has_to_change(self, field: str, fields: dict[str, Any]) -> None:
        assert refusal(**fields).partition(":")[0] == field

    def test_an_unknown_word_is_answered_with_those_that_are_known(self) -> None:
        assert "h264, h265, vp9, av1" in refusal(codec="prores")

    @pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"inputs":' + b"[" * 2000, b'{"preset": "\\ud800"}'])
    def test_what_is_no_order_at_all(self, body: bytes) -> None:
        assert Ffmpeg().check(body)
        assert Ffmpeg().asks(body) == frozenset()

    @pytest.mark.parametrize(
        "fields",
        [
            {"resolution": "641x481", "output_format": "gif"},
            {"resolution": "641x481", "custom_args": ["-pix_fmt", "yuv444p"]},
            {"fps": 29.97, "bitrate": "800k", "audio_bitrate": "96k", "codec": "h265"},
            {"custom_args": ["-tune", "film", "-profile:v", "main", "-level", "4.1", "-bf", "2", "-refs", "3"]},
            {"custom_args": ["-maxrate", "2M", "-bufsize", "4M"]},
        ],
    )
    def test_but_not_what_works(self, fields: dict[str, Any]) -> None:
        assert refusal(**fields) == ""

    def test_the_error_says_field_and_words(self) -> None:
        with pytest.raises(BadOrderField) as raised:
            order(fps=500)

        assert raised.value.field == "fps"


class TestAsks:
    def test_a_host_needs_both_codecs(self) -> None:
        kind = Ffmpeg()
        body = json.dumps(FILE | {"output_format": "webm", "codec": "av1"}).encode()

        assert kind.asks(body) == {"av1", "opus"} <= set(kind.capabilities)
