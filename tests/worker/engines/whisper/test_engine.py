"""Speech, heard for real by tiny models of the real architecture: what is told is told once, within the sound.

The rows of what went wrong elsewhere: nothing said, times, fields.
"""

import asyncio
import contextlib
import json
import time
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from comptoir.kinds.files import extra_of
from comptoir.kinds.whisper.spoken import SpokenSegment, heard_in, milliseconds, spoken_extra, spoken_frame
from comptoir.link import Frame
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.whisper import WhisperEngine
from comptoir.worker.engines.whisper import speech as speech_module
from tests.worker.engines.whisper.conftest import SpeechOutcome, Stage, tiny
from tests.worker.engines.whisper.tiny_weights import SAID

FIVE_S = "Good morning boats are late today and so"
"""Of what the models say in a window, what begins in the first five seconds."""


class TestHeard:
    @pytest.mark.parametrize("sound", ["short.wav", "film.mkv", "lying.wav"])
    def test_text_segments_and_units_end_with_the_sound(self, stage: Stage, sound: str) -> None:
        """The model goes on to speak behind the end; and a head that says 4 GiB counts for what is there."""
        outcome = stage.hear(sound)

        made = outcome.made
        assert (outcome.wrong, made.text, made.language, made.task) == ("", FIVE_S, "en", "transcribe")
        assert 4.9 <= made.duration <= 5.1 and made.segments is not None
        assert [each.text.strip() for each in made.segments] == list(SAID[:3])
        assert made.segments[-1].end == made.duration, "clamped"
        assert outcome.counted == milliseconds(made.duration)
        assert outcome.finish is not None and outcome.finish.finish_reason == "stop"
        assert stage.runs == []

    def test_each_segment_is_a_frame_that_counts_up_to_its_end(self, stage: Stage) -> None:
        outcome = stage.hear("short.wav")

        told = [(frame.text, frame.tokens) for frame in outcome.frames if spoken_extra(frame.extra).segment]
        assert told == [(" Good morning", 2000), (" boats are late", 2020), (" today and so", 980)]

    @pytest.mark.parametrize("vad", [True, False])
    @pytest.mark.parametrize("sound", ["silence.wav", "nothing.wav"])
    def test_where_nothing_is_said_the_text_is_empty(self, stage: Stage, sound: str, vad: bool) -> None:
        outcome = stage.hear(sound, vad=vad)

        made = outcome.made
        assert (outcome.wrong, made.text, made.segments, made.language) == ("", "", (), None)
        assert outcome.counted == milliseconds(made.duration) == (3_000 if sound == "silence.wav" else 0)

    def test_a_tone_is_no_speech(self, stage: Stage) -> None:
        """Hold music, by default: the model would have invented words for it, as it does without the filter."""
        quiet, invented = stage.hear("short.wav", vad=True), stage.hear("short.wav")

        assert (quiet.wrong, quiet.made.text) == ("", "") and invented.made.text != ""

    def test_several_windows_follow_each_other(self, stage: Stage) -> None:
        outcome = stage.hear("long.wav")

        segments = outcome.made.segments
        assert outcome.wrong == "" and segments is not None and len(segments) == 3 * len(SAID)
        assert all(a.end <= b.start for a, b in pairwise(segments))
        assert outcome.counted == 70_000
        assert max(frame.tokens for frame in outcome.frames) <= 2 * speech_module.WINDOW_MS

    def test_one_window_of_speech_ends_at_its_end(self, stage: Stage) -> None:
        """30.00 s elsewhere ended at 30.02."""
        assert stage.hear("whole.wav").made.duration == 30.0

    def test_words_have_times_within_their_segment(self, stage: Stage) -> None:
        outcome = stage.hear("short.wav", word_timestamps=True)

        segments = outcome.made.segments
        assert outcome.wrong == "" and segments
        for each in segments:
            assert each.words and "".join(word.word for word in each.words) == each.text

    def test_translation_is_done(self, stage: Stage) -> None:
        outcome = stage.hear("short.wav", task="translate")

        assert outcome.wrong == "" and outcome.made.text.startswith("Trans lated")

    @pytest.mark.parametrize(
        "fields",
        [
            {"temperature": 1.0, "best_of": 2},
            {"beam_size": 2, "patience": 0},
            {"suppress_tokens": "-1,301"},
            pytest.param({"suppress_tokens": []}, marks=pytest.mark.proof),
            {"condition_on_previous_text": False, "initial_prompt": "Good"},
            pytest.param({"fp16": False}, marks=pytest.mark.proof),
        ],
        ids=str,
    )
    def test_every_field_is_carried_out(self, stage: Stage, fields: dict[str, Any]) -> None:
        outcome = stage.hear("short.wav", **fields)

        assert outcome.wrong == "", outcome.error
        assert ("morning" in outcome.made.text) == (
            fields.get("suppress_tokens") != "-1,301"
        ) or "temperature" in fields

    def test_verbose_segments_have_their_measures(self, stage: Stage) -> None:
        (first, *_), (plain, *_) = (
            stage.hear("short.wav", verbose=verbose).made.segments or () for verbose in (True, False)
        )

        assert first.tokens and first.avg_logprob is not None and first.no_speech_prob is not None
        assert plain.tokens is None and plain.avg_logprob is None

    def test_files_are_made_as_ordered(self, stage: Stage) -> None:
        outcome = stage.hear("short.wav", outputs=["srt", "vtt", "txt", "json"])

        files = {artifact.name: content.decode() for artifact, content in outcome.delivered}
        assert outcome.wrong == "" and set(files) == {f"short.{ending}" for ending in ("srt", "vtt", "txt", "json")}
        assert files["short.srt"].startswith("1\n00:00:00,000 --> 00:00:02,000\nGood morning\n\n2\n00:00:02,020 -->")
        assert files["short.vtt"].startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nGood morning\n")
        assert files["short.txt"].splitlines() == list(SAID[:3])
        assert json.loads(files["short.json"])["segments"][1]["text"] == " boats are late"


class TestPieces:
    def test_a_long_sound_is_heard_in_pieces_and_no_segment_is_cut(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(speech_module, "PIECE_MS", 36_000)
        outcome = stage.hear("long.wav")

        assert outcome.wrong == "" and outcome.counted == 70_000
        segments = outcome.made.segments or ()
        assert {round(each.end - each.start, 2) for each in segments[:-1]} == {2.0}, "one was cut at the end of a piece"
        assert segments[-1].start > 60


class TestGoesOn:
    @pytest.mark.parametrize("kept", [*(pytest.param(n, marks=pytest.mark.proof) for n in (1, 3, 4)), 2, 5])
    def test_behind_what_a_lost_host_told_at_every_frame(self, stage: Stage, kept: int) -> None:
        """What was delivered whole is not told, counted or delivered again; the language stays as it was heard."""
        first = stage.hear("short.wav", outputs=["txt"])
        told = [frame for frame in first.frames if not extra_of(frame).progress][:kept]
        second = stage.wait(stage.carry_out(stage.request("short.wav", outputs=["txt"], prefix=tuple(told))))

        assert second.wrong == "" and second.made.duration == 5.0
        assert sum(frame.tokens for frame in told) + second.counted == 5_000
        assert not any(each.begun_again for each in second.extras)
        assert second.made.text.startswith(heard_in(told).segments[0].text.strip() if kept > 1 else "Good")
        assert len(second.delivered) == (0 if kept == 5 else 1)

    def test_after_the_last_frame_only_the_end_is_left(self, stage: Stage) -> None:
        first = stage.hear("short.wav")
        second = stage.wait(stage.carry_out(stage.request("short.wav", prefix=tuple(first.frames))))

        assert second.frames == [] and second.finish is not None and second.finish.finish_reason == "stop"

    def test_who_counted_more_than_there_is_heard_another_sound(self, stage: Stage) -> None:
        lie = spoken_frame(" a lie", 30_000, segment=SpokenSegment(0, 0.0, 30.0, " a lie"))
        outcome = stage.wait(stage.carry_out(stage.request("short.wav", prefix=(lie,))))

        assert outcome.wrong == "" and outcome.made.text == FIVE_S and outcome.counted == 5_000
        assert any(each.begun_again for each in outcome.extras)


class TestRefused:
    @pytest.mark.parametrize(
        ("sound", "fields", "said"),
        [
            ("playlist.mp3", {}, "inputs: is no sound"),
            ("silent.mp4", {}, "inputs: has no sound"),
            ("short.wav", {"seconds_max": 4}, "seconds_max: is 4, and the sound has 5.0 s"),
            ("lying.wav", {"seconds_max": 4}, "seconds_max: is 4, and the sound has 5.0 s"),
            ("short.wav", {"task": "translate", "model": "turbo"}, "task: turbo can't translate"),
            ("short.wav", {"task": "translate", "model": "tiny.en"}, "task: tiny.en can't translate"),
            ("short.wav", {"language": "de", "model": "tiny.en"}, "language: tiny.en hears English"),
            ("short.wav", {"initial_prompt": "x" * 300}, "initial_prompt: has 301 tokens, and 223 are heard"),
            ("short.wav", {"suppress_tokens": [51_863], "model": "tiny.en"}, ""),
            ("short.wav", {"beam_size": 99}, "beam_size: "),
        ],
    )
    def test_by_field_and_as_the_buyers(self, stage: Stage, sound: str, fields: dict[str, Any], said: str) -> None:
        outcome = stage.hear(sound, **fields)

        if not said:
            assert outcome.wrong == ""
            return
        assert outcome.error is not None and outcome.error.fault == "buyer", outcome.finish
        assert outcome.error.message.startswith(said) and outcome.counted == 0
        assert stage.runs == []

    def test_a_bound_of_the_buyers_below_the_sound_is_refused_not_cut(self, stage: Stage) -> None:
        request = msgspec.structs.replace(stage.request("short.wav"), max_tokens=4_999)
        outcome = stage.wait(stage.carry_out(request))

        assert outcome.error is not None and outcome.error.message.startswith("output_max: is 4999"), outcome.finish
        assert outcome.counted == 0

    def test_a_refused_order_keeps_the_process_warm(self, stage: Stage) -> None:
        """Else a buyer could have a model of gigabytes loaded again at no cost."""
        before = processes(stage)
        stage.hear("short.wav", initial_prompt="x" * 300)

        assert processes(stage) & before


def processes(stage: Stage) -> set[int]:
    return {each._process.pid for each in stage.engine._listeners._free}


class TestStopped:
    def test_closing_ends_the_process_at_once(self, stage: Stage) -> None:
        async def cancel() -> tuple[set[int], float]:
            run = stage.engine.run(stage.request("long.wav", beam_size=10))
            async for item in run:
                if isinstance(item, Frame) and item.tokens:
                    break
            free, began = processes(stage), time.monotonic()
            await run.aclose()  # type: ignore[attr-defined]
            return free, time.monotonic() - began

        free, took_s = stage.wait(cancel())

        assert took_s < 2 and processes(stage) == free
        assert stage.hear("short.wav").made.text == FIVE_S
        assert stage.runs == []

    def test_one_that_dies_is_the_hosts_fault_and_the_next_job_has_another(self, stage: Stage) -> None:
        stage.hear("short.wav")
        # The one that was given back last is lent next.
        listener = stage.engine._listeners._free[-1]
        assert listener.spec.folder == tiny("tiny")

        async def killed() -> SpeechOutcome:
            doing = asyncio.ensure_future(stage.carry_out(stage.request("long.wav")))
            async with asyncio.timeout(20):
                while listener in stage.engine._listeners._free:
                    await asyncio.sleep(0.01)
            listener._process.kill()
            return await doing

        outcome = stage.wait(killed())

        assert outcome.error is not None and (outcome.error.code, outcome.error.fault) == ("whisper", "host")
        assert stage.hear("short.wav").wrong == ""


class TestOffered:
    def test_each_model_with_its_hash_and_what_it_was_seen_to_do(self, stage: Stage) -> None:
        offers = {offer.name: offer for offer in stage.wait(stage.engine.models())}

        able = {
            name: (offer.capabilities["translate"], offer.capabilities["multilingual"])
            for name, offer in offers.items()
        }
        assert able == {
            "tiny": ("probed", "probed"),
            "tiny.en": ("lacking", "lacking"),
            "turbo": ("lacking", "probed"),
        }
        assert all(offer.fingerprint.startswith("sha256:") and offer.can_continue for offer in offers.values())
        assert len({offer.fingerprint for offer in offers.values()}) == 3

    async def test_without_weights_it_says_what_to_do(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(EngineError, match="no weights of faster-whisper") as raised:
            await WhisperEngine(folder=tmp_path / "runs", threads=1).start()

        assert raised.value.code == "model_not_found"

    async def test_broken_weights_are_said_with_the_librarys_words(self, tmp_path: Any) -> None:
        broken = tmp_path / "model"
        broken.mkdir()
        for file in tiny("tiny").iterdir():
            (broken / file.name).write_bytes(file.read_bytes()[: None if file.suffix == ".json" else -1000])
        engine = WhisperEngine(folder=tmp_path / "runs", threads=1, model={"a": str(broken)}, device="cpu")
        with pytest.raises(EngineError) as raised:
            await engine.start()
        with contextlib.suppress(EngineError):
            await engine.close()

        assert raised.value.code in ("model_not_loaded", "whisper") and str(tmp_path) not in raised.value.message[20:]
