"""Subtitles: times are carried, and text can't end or begin a cue."""

import pytest

from comptoir.kinds.whisper.spoken import SpokenSegment, Transcript
from comptoir.worker.engines.whisper.writing import as_srt, as_text, as_vtt, clock

EMPTY = Transcript("", None, 0.0, "transcribe", ())


class TestClock:
    @pytest.mark.parametrize(
        ("seconds", "said"),
        [
            (0.0, "00:00:00,000"),
            (0.9995, "00:00:01,000"),
            (0.9994, "00:00:00,999"),
            (59.9996, "00:01:00,000"),
            (3599.9999, "01:00:00,000"),
            (14_400, "04:00:00,000"),
            (30.02, "00:00:30,020"),
        ],
    )
    def test_milliseconds_are_carried(self, seconds: float, said: str) -> None:
        """Elsewhere 0.9995 s became ``00:00:00,1000``."""
        assert clock(seconds, ",") == said


class TestText:
    def test_a_segment_is_one_line_and_no_time(self) -> None:
        segments = [SpokenSegment(0, 0.0, 1.0, " a\n\n2\n00:00:00,000 --> 00:00:09,000\n<b>&")]

        assert as_srt(EMPTY, segments).count("-->") == 1 and "\n\n" not in as_srt(EMPTY, segments).strip()
        assert "&lt;b&gt;&amp;" in as_vtt(EMPTY, segments) and as_vtt(EMPTY, segments).count("-->") == 1
        assert as_text(EMPTY, segments).count("\n") == 1

    def test_nothing_said_is_a_file_without_cues(self) -> None:
        assert (as_srt(EMPTY, []), as_vtt(EMPTY, []), as_text(EMPTY, [])) == ("", "WEBVTT\n", "")
