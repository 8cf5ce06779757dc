"""What a host can be believed of a film: what follows from its description, and no more than its bytes allow."""

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from comptoir.kinds import Resume, Terms
from comptoir.kinds.ffmpeg import Ffmpeg
from comptoir.kinds.files import Artifact, Fetched, WorkProgress, file_frame
from comptoir.kinds.output import bounding_bytes
from comptoir.kinds.registry import Kinds
from comptoir.link import Frame, Usage

SHA = "a" * 64
SIZE = 50_000
VIDEO = {"codec": "h264", "width": 640, "height": 360, "frames": 60, "fps": 30.0}
AUDIO = {"codec": "aac", "channels": 2, "sample_rate": 48_000}
INPUT = {"format": "mov", "duration_ms": 2_000, "size": 90_000, "video": VIDEO, "audio": AUDIO}
UNITS = 243
"""Two seconds at a ninth of the pixels, 222.2, and 20 of sound."""
MADE = {
    "output_format": "mp4",
    "duration_ms": 2_000,
    "size": SIZE,
    "video": VIDEO,
    "audio": AUDIO,
    "padded": False,
    "ended_by": "",
    "units": UNITS,
    "input": INPUT,
}


def last(made: dict[str, Any] = MADE, *, units: int = UNITS, size: int = SIZE, reason: str = "stop") -> Frame:
    artifact = Artifact("film.mp4", "file_2", size, SHA, "video/mp4")
    result = msgspec.Raw(msgspec.json.encode(made))
    return file_frame("", units, artifact=artifact, result=result, finish_reason=reason)


def job(*frames: Frame, **fields: Any) -> Any:
    """Return a job as kinds see it: its order, what was delivered, and what its host says that is worth."""
    body = {"inputs": [{"file": "file_1", "size": 90_000, "sha256": SHA}], "seconds_max": 10} | fields
    encoded = json.dumps(body).encode()
    claim = sum(frame.tokens for frame in frames)
    terms = Terms(output_max=Ffmpeg().output_max(encoded))
    return SimpleNamespace(body=encoded, frames=list(frames), segment_claim=claim, terms=terms)


def wrong(view: Any, *, reason: str = "stop", usage: Usage | None = None) -> str:
    return Ffmpeg().wrong_output(view, finish_reason=reason, usage=usage or Usage(0, UNITS))


PROGRESS = file_frame(progress=WorkProgress(0.5))


class TestWrongOutput:
    def test_a_film_as_ordered_is_none(self) -> None:
        assert wrong(job(PROGRESS, last())) == ""

    def test_one_that_was_ended_by_its_bound_says_length(self) -> None:
        ended = MADE | {"ended_by": "seconds"}

        assert wrong(job(last(ended)), reason="length") == "" and wrong(job(last(ended)))

    @pytest.mark.parametrize(
        ("lie", "said"),
        [
            ({"units": UNITS + 1}, "worth"),
            ({"duration_ms": 20_000}, "long"),
            ({"duration_ms": 0}, "long"),
            ({"size": SIZE + 1}, "bytes"),
            ({"output_format": "mkv"}, "ordered"),
            ({"video": None, "units": 20}, "streams"),
            ({"video": VIDEO | {"codec": "av1"}}, "pictures"),
            ({"video": VIDEO | {"frames": 0}}, "pictures"),
            ({"video": VIDEO | {"frames": 6_000}}, "frames"),
            ({"video": VIDEO | {"width": 7680, "height": 7680}}, "pictures"),
            ({"video": "none"}, "read"),
        ],
        ids=str,
    )
    def test_a_description_that_can_not_be(self, lie: dict[str, Any], said: str) -> None:
        assert said in wrong(job(last(MADE | lie)))

    @pytest.mark.parametrize(
        ("frames", "said"),
        [
            ((), "last frame"),
            ((PROGRESS,), "last frame"),
            ((last(), PROGRESS), "last frame"),
            ((last(), last()), "one file"),
            ((last(units=UNITS + 1),), "not 244"),
            ((last(units=0),), "not 0"),
            ((file_frame("", 1), last()), "not 244"),
            ((last(size=1),), "bytes"),
        ],
    )
    def test_another_number_of_films_or_units(self, frames: tuple[Frame, ...], said: str) -> None:
        assert said in wrong(job(*frames))

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"resolution": "320x180"}, "pixels"),
            ({"fps": 10}, "frames"),
            ({"output_format": "mp3"}, "ordered"),
            ({"custom_args": ["-an"]}, "streams"),
            ({"seconds_max": 1, "custom_args": ["-t", "0.5"]}, "long"),
            ({"preset": "ultrafast"}, "worth"),
        ],
    )
    def test_another_film_than_was_ordered(self, fields: dict[str, Any], said: str) -> None:
        assert said in wrong(job(last(), **fields))

    def test_more_seconds_than_the_input_has_bytes_for(self) -> None:
        """A tiny input is no hour of film, whatever its host says: by what the trading post or the host knows of it."""
        hour = MADE | {"duration_ms": 3_000_000, "units": 22_230 + 7_999}
        small = {"inputs": [{"file": "file_1", "size": 100}], "seconds_max": 3_600}
        fetched = file_frame(fetched=Fetched(0, 100, SHA))

        assert "of 100 bytes" in wrong(job(last(hour), **small))
        linked = small | {"inputs": [{"url": "https://a.example/b"}]}
        assert "of 100 bytes" in wrong(job(fetched, last(hour), **linked))

    def test_input_that_is_counted(self) -> None:
        assert wrong(job(last()), usage=Usage(5, UNITS))

    def test_what_was_beyond_the_hold_is_cut(self) -> None:
        view = job(last(units=100))
        view.terms = Terms(output_max=100)

        assert wrong(view) == ""

    def test_a_host_that_began_again_answers_for_its_own_frames(self) -> None:
        again = file_frame(begun_again=True)

        assert wrong(job(PROGRESS, again, last())) == ""
        assert wrong(job(last(), again, PROGRESS)) != ""


class TestFinishedAlready:
    def test_the_film_is_there_and_its_host_was_lost_before_it_said_so(self) -> None:
        kind = Ffmpeg()

        assert kind.finished_already(job(PROGRESS, last())) == "stop"
        assert kind.finished_already(job(PROGRESS)) == ""
        assert kind.finished_already(job(last(), file_frame(begun_again=True))) == ""


class TestBelieved:
    def test_bytes_of_the_film_bound_its_units(self) -> None:
        """One small file for a whole hold is what this catches; the description bounds the rest."""
        kind = Ffmpeg()
        size = bounding_bytes(kind.output_in("", [last(units=10**6, size=10).extra]))

        assert kind.believed(10**6, size) < 10_000
        assert kind.believed(UNITS, bounding_bytes(kind.output_in("", [last().extra]))) == UNITS

    def test_progress_stands_for_nothing(self) -> None:
        assert Ffmpeg().output_in("a log", [PROGRESS.extra]) == (0, 0)


class TestKind:
    def test_is_sold_and_goes_on_by_beginning_again(self) -> None:
        kind = Kinds().get("ffmpeg")

        assert kind.resume(job()) is Resume.FROM_PIECE and not kind.may_hedge and not kind.pays_half
        assert kind.output.priced == "per second of video"
