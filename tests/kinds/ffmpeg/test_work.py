"""Work: what a second of film costs follows from its frames, and the hold covers the most that there can be."""

import json

import pytest

from comptoir.kinds.ffmpeg.formats import PRESETS, VIDEO_CODECS
from comptoir.kinds.ffmpeg.order import read_order
from comptoir.kinds.ffmpeg.work import BASE_FPS, PIXELS_MAX, UNITS_PER_BYTE, WEIGHTS, Picture, units_of
from comptoir.link import COUNT_MAX

HD = (1920, 1080)


def film(frames: int = BASE_FPS, *, size: tuple[int, int] = HD, codec: str = "h264", preset: str = "medium") -> int:
    return units_of(Picture(codec, *size, frames), preset=preset, sound_ms=0)


class TestUnits:
    @pytest.mark.parametrize(
        ("made", "units"),
        [
            (film(), 1_000),
            (film(2 * BASE_FPS), 2_000),
            (film(size=(960, 540)), 250),
            (film(size=(3840, 2160)), 4_000),
            (film(preset="ultrafast"), 250),
            (film(codec="av1", preset="veryslow"), 6_000),
            (film(0), 1),
            (units_of(None, preset="medium", sound_ms=60_000), 600),
            (units_of(None, preset="medium", sound_ms=1), 1),
            (units_of(Picture("h264", *HD, 30), preset="medium", sound_ms=1_000), 1_010),
            (units_of(Picture("h264", 16, 16, 1), preset="medium", sound_ms=0), 1),
        ],
    )
    def test_scale_with_frames_pixels_codec_and_preset(self, made: int, units: int) -> None:
        assert made == units

    @pytest.mark.parametrize("codec", WEIGHTS)
    def test_a_slower_preset_is_never_cheaper(self, codec: str) -> None:
        assert len(WEIGHTS[codec]) == len(PRESETS)
        assert list(WEIGHTS[codec]) == sorted(WEIGHTS[codec])

    def test_the_dearest_frame_is_believed_of_its_smallest_size(self) -> None:
        """Else an honest host would be cut: of 8K at veryslow, a frame in which nothing moves has over 100 bytes."""
        dearest = max(film(1, size=(7680, PIXELS_MAX // 7680), codec=codec, preset="veryslow") for codec in WEIGHTS)

        assert dearest <= 100 * UNITS_PER_BYTE


class TestHold:
    @pytest.mark.parametrize(
        ("fields", "units"),
        [
            # Size and frames a second are left open: 1920x1080 at 60, and ten minutes, with their sound.
            ({}, 600 * 2_000 + 6_000),
            ({"seconds_max": 10}, 20_100),
            ({"seconds_max": 10, "custom_args": ["-an"]}, 20_000),
            ({"seconds_max": 10, "custom_args": ["-t", "2", "-an"]}, 4_000),
            ({"seconds_max": 10, "fps": 30, "resolution": "960x540"}, 2_600),
            ({"seconds_max": 10, "preset": "ultrafast", "custom_args": ["-an"]}, 5_000),
            ({"seconds_max": 10, "output_format": "mp3"}, 100),
        ],
    )
    def test_covers_the_agreed_seconds(self, fields: dict[str, object], units: int) -> None:
        order = read_order(json.dumps({"inputs": [{"file": "f"}]} | fields).encode())

        assert units <= order.units_max <= units * 1.01 + 50

    @pytest.mark.parametrize("codec", VIDEO_CODECS)
    def test_an_hour_of_anything_fits_a_count(self, codec: str) -> None:
        body = {
            "inputs": [{"file": "f"}],
            "codec": codec,
            "preset": "veryslow",
            "output_format": "mkv",
            "seconds_max": 3_600,
        }

        assert read_order(json.dumps(body).encode()).units_max < COUNT_MAX
