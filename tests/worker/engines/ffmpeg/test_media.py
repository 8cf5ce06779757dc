"""What is in a file, by ffprobe's word and by ffmpeg's own: both are read into the same, and into nothing else."""

import json
from typing import Any

import pytest

from comptoir.worker.engines.ffmpeg.media import (
    FPS_SEEN_MAX,
    STREAMS_MAX,
    Media,
    PictureStream,
    SoundStream,
    read_probe,
    read_report,
)

REPORT = """Input #0, matroska,webm, from '/input/film':
  Metadata:
    title           : a
                    : Input #0, hls, from 'http://a':
  Duration: 01:02:03.50, start: 0.000000, bitrate: 100 kb/s
  Stream #0:0(eng): Subtitle: subrip (default)
  Stream #0:1[0x2](und): Video: hevc (Main) (hvc1 / 0x31637668), yuv420p(tv), 1920x1080 [SAR 4:3 DAR 64:27], 25 fps (default)
    Metadata:
      title           :   Stream #0:9: Video: h264, yuv420p, 9x9, 25 fps
    Side data:
      Display Matrix: rotation of -90.00 degrees
  Stream #0:2: Video: mjpeg (Baseline), yuvj420p(pc), 500x500, 90k tbr, 90k tbn (attached pic)
  Stream #0:3: Audio: ac3, 48000 Hz, 5.1(side), fltp, 448 kb/s
  Stream #0:4: Audio: pcm_s16le, 8000 Hz, 3 channels, s16
  Stream #0:5: Audio: aac (LC), 44100 Hz, mono, fltp (default)
  Stream #0:6: Video: vp9, yuv420p, 640x360, SAR 1:1 DAR 16:9, 1k fps, 1k tbr
  Stream #0:7: Video: none, none, 90k tbr
  Stream #0:8: Attachment: ttf
"""
PROBE: dict[str, Any] = {
    "format": {"format_name": "matroska,webm", "duration": "3723.500000"},
    "streams": [
        {"index": 0, "codec_type": "subtitle", "codec_name": "subrip"},
        {
            "index": 1,
            "codec_type": "video",
            "codec_name": "hevc",
            "width": 1920,
            "height": 1080,
            "sample_aspect_ratio": "4:3",
            "avg_frame_rate": "25/1",
            "disposition": {"default": 1, "attached_pic": 0},
            "side_data_list": [{"side_data_type": "Display Matrix", "rotation": -90}],
        },
        {
            "index": 2,
            "codec_type": "video",
            "codec_name": "mjpeg",
            "width": 500,
            "height": 500,
            "disposition": {"attached_pic": 1},
        },
        {"index": 3, "codec_type": "audio", "codec_name": "ac3", "channels": 6, "sample_rate": "48000"},
        {"index": 4, "codec_type": "audio", "codec_name": "pcm_s16le", "channels": 3, "sample_rate": "8000"},
        {
            "index": 5,
            "codec_type": "audio",
            "codec_name": "aac",
            "channels": 1,
            "sample_rate": "44100",
            "disposition": {"default": 1},
        },
        {
            "index": 6,
            "codec_type": "video",
            "codec_name": "vp9",
            "width": 640,
            "height": 360,
            "sample_aspect_ratio": "1:1",
            "avg_frame_rate": "1000/1",
        },
        {"index": 7, "codec_type": "video", "width": 0, "height": 0},
        {"index": 8, "codec_type": "attachment"},
    ],
}
FILM = PictureStream(index=1, codec="h265", width=1920, height=1080, turned=True, square=False, fps=25.0, default=True)
SECOND = PictureStream(index=6, codec="vp9", width=640, height=360, fps=FPS_SEEN_MAX)
SOUNDS = (
    SoundStream(index=3, codec="ac3", channels=6, sample_rate=48_000),
    SoundStream(index=4, codec="pcm", channels=3, sample_rate=8_000),
    SoundStream(index=5, codec="aac", channels=1, sample_rate=44_100, default=True),
)
EXPECTED = Media("matroska,webm", 3_723.5, (FILM, SECOND), SOUNDS, covers=2)


class TestBoth:
    def test_say_the_same(self) -> None:
        """Covers, attachments and streams that nobody can decode are no film; titles are no streams."""
        assert read_report(REPORT) == EXPECTED == read_probe(json.dumps(PROBE).encode())

    def test_the_default_is_taken_before_the_largest(self) -> None:
        assert EXPECTED.picture == FILM and EXPECTED.sound == SOUNDS[2]
        assert Media("", None, (SECOND,), SOUNDS[:2]).sound == SOUNDS[0]

    @pytest.mark.parametrize("text", ["", "x", "Error opening input file", "Output #0, mp4, to 'x':"])
    def test_nothing_is_read_of_what_is_no_report(self, text: str) -> None:
        assert read_report(text) is None and read_probe(text.encode()) is None

    @pytest.mark.parametrize("said", ["N/A", "nan", "-5", "inf", "1e400", None, [], 0])
    def test_no_length_is_unknown_and_not_nothing(self, said: object) -> None:
        """As of a browser's film, of which a part would be some part of nothing, or of a negative length."""
        probe = PROBE | {"format": {"format_name": "webm", "duration": said}}
        report = REPORT.replace("01:02:03.50", "N/A")

        assert read_probe(json.dumps(probe).encode()).duration_s is None  # type: ignore[union-attr]
        assert read_report(report).duration_s is None  # type: ignore[union-attr]


class TestProbe:
    @pytest.mark.parametrize(
        "stream",
        [
            {"codec_type": "video", "codec_name": "h264", "width": "x", "height": []},
            {"codec_type": "video", "codec_name": "h264", "width": 10**9, "height": 1},
            {"codec_type": "video", "codec_name": 5, "width": 64, "height": 64},
            {"codec_type": "audio", "codec_name": None},
            {"codec_type": ["video"]},
            {},
        ],
        ids=str,
    )
    def test_a_stream_that_can_not_be_is_left_out(self, stream: dict[str, Any]) -> None:
        media = read_probe(json.dumps({"format": {"format_name": "mov"}, "streams": [stream]}).encode())

        assert media is not None and media.pictures == media.sounds == ()

    @pytest.mark.parametrize(
        "text", [b"[]", b'{"format": 5}', b'{"format": {"a": 1}, "streams": 5}', b"\xff", b"[" * 9999]
    )
    def test_other_json_is_no_probe(self, text: bytes) -> None:
        assert read_probe(text) is None

    def test_streams_are_bounded(self) -> None:
        sound = {"codec_type": "audio", "codec_name": "aac", "channels": 1, "sample_rate": "8000"}
        many = {"format": {"format_name": "mov"}, "streams": [sound] * (STREAMS_MAX + 50)}
        lines = [f"  Stream #0:{n}: Audio: aac, 8000 Hz, mono" for n in range(STREAMS_MAX + 50)]
        report = "\n".join(["Input #0, mov, from 'x':", *lines])

        assert len(read_probe(json.dumps(many).encode()).sounds) == STREAMS_MAX  # type: ignore[union-attr]
        assert len(read_report(report).sounds) == STREAMS_MAX  # type: ignore[union-attr]
