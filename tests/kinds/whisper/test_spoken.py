"""What a host may say that it heard: each lie about it is found by the kind, honest words are not."""

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from comptoir.kinds import BadExtra, Terms
from comptoir.kinds.files import Artifact, file_frame
from comptoir.kinds.whisper import UNITS_PER_BYTE, Whisper
from comptoir.kinds.whisper.spoken import HeardLanguage, SpokenSegment, SpokenWord, Transcript, spoken_frame
from comptoir.link import Frame, Usage

NO_USAGE = Usage()
SEGMENTS = (SpokenSegment(0, 0.0, 2.0, " Good morning"), SpokenSegment(1, 2.5, 4.0, " boats"))
MADE = Transcript("Good morning boats", "en", 5.0, "transcribe", SEGMENTS)


def frames(*, segments: Any = SEGMENTS, made: Transcript = MADE, last: int = 1_000, **extra: Any) -> list[Frame]:
    told = [spoken_frame(heard=HeardLanguage("en", 0.9))]
    at_ms = 0
    for each in segments:
        told.append(spoken_frame(each.text, round(each.end * 1_000) - at_ms, segment=each))
        at_ms = round(each.end * 1_000)
    told.append(spoken_frame("", last, silent_to=5.0))
    told.append(file_frame(result=msgspec.Raw(msgspec.json.encode(made)), finish_reason="stop", **extra))
    return told


def wrong(
    told: list[Frame], *, reason: str = "stop", size: int = 100_000, usage: Usage = NO_USAGE, **fields: Any
) -> str:
    body = json.dumps({"inputs": [{"file": "file_1", "size": size}]} | fields).encode()
    for frame in told:
        Whisper().check_extra(frame.extra)
    job: Any = SimpleNamespace(body=body, frames=told, terms=Terms(output_max=3_600_000))
    return Whisper().wrong_output(job, finish_reason=reason, usage=usage)


def replaced(**fields: Any) -> list[Frame]:
    return frames(made=msgspec.structs.replace(MADE, **fields))


class TestWrongOutput:
    def test_an_honest_transcript_is_none(self) -> None:
        assert wrong(frames()) == ""

    def test_segments_may_be_left_out_of_a_long_result(self) -> None:
        assert wrong(replaced(segments=None)) == ""

    @pytest.mark.parametrize(
        ("told", "said"),
        [
            (frames(last=999), "is not 4999 units"),
            (replaced(duration=6.0), "is not 5000 units"),
            (replaced(text="Something else"), "its text is not"),
            (replaced(segments=SEGMENTS[:1]), "its segments are not"),
            (replaced(task="translate"), "was not ordered"),
            (frames()[:-1], "can't be read"),
            (frames(artifact=Artifact("a.srt", "file_2", 1, "0" * 64)), "1 files came, and 0 were ordered"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_what_does_not_fit_together_is_found(self, told: list[Frame], said: str) -> None:
        assert said in wrong(told)

    @pytest.mark.parametrize(
        "segments",
        [
            (SEGMENTS[1], SEGMENTS[0]),
            (SpokenSegment(0, 3.0, 2.0, " a"),),
            (SpokenSegment(0, 0.0, 5.02, " a"),),
            (SpokenSegment(0, 0.0, 2.0, " a"), SpokenSegment(1, 1.9, 3.0, " b")),
            (SpokenSegment(1, 0.0, 2.0, " a"),),
            (SpokenSegment(0, 0.0, 2.0, " a", words=(SpokenWord(" a", 0.0, 2.1, 1.0),)),),
        ],
        ids=["order", "backwards", "behind the end", "overlap", "number", "word"],
    )
    def test_times_are_within_the_sound_and_in_order(self, segments: Any) -> None:
        text = "".join(each.text for each in segments).strip()
        last = 5_000 - round(segments[-1].end * 1_000)

        assert "segment" in wrong(
            frames(segments=segments, last=last, made=MADE.__class__(text, "en", 5.0, "transcribe", segments))
        )

    def test_another_language_than_ordered_is_found(self) -> None:
        assert "was not ordered" in wrong(frames(), language="German")

    def test_a_sound_is_no_longer_than_its_bytes_or_the_order_allow(self) -> None:
        told = replaced(duration=70.0)
        told.insert(1, spoken_frame("", 65_000, silent_to=65.0))

        assert "are no sound of 70000 ms" in wrong(told, size=8)
        assert "was to be refused" in wrong(frames(), seconds_max=4)

    def test_how_it_ended_and_what_else_is_counted(self) -> None:
        assert "ends by 'length'" in wrong(frames(), reason="length")
        assert "no input" in wrong(frames(), usage=Usage(prompt_tokens=1))


class TestBelieved:
    def test_an_honest_frame_is_believed_whole(self) -> None:
        frame = spoken_frame("", 30_000, silent_to=30.0)
        size = sum(Whisper().output_in(frame.text, [frame.extra]))

        assert Whisper().billable(30_000, size) == 30_000

    def test_one_small_frame_is_no_hour(self) -> None:
        size = sum(Whisper().output_in("", [spoken_frame("", 0, silent_to=30.0).extra]))

        assert Whisper().billable(3_600_000, size) == size * UNITS_PER_BYTE < 60_000

    def test_progress_counts_nothing(self) -> None:
        assert Whisper().output_in("", [b'{"progress":{"done":0.5}}']) == (0, 0)


class TestCheckExtra:
    @pytest.mark.parametrize("extra", [b'{"segment":{"id":0}}', b'{"silent_to":-1}', b'{"heard":{"language":7}}'])
    def test_what_the_next_host_could_not_go_on_from_is_refused(self, extra: bytes) -> None:
        with pytest.raises(BadExtra):
            Whisper().check_extra(extra)
