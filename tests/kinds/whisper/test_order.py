"""Orders: the published fields, their defaults and bounds; what can't work is refused by field, before any hold."""

import json
from typing import Any

import pytest

from comptoir.kinds.terms import Ask
from comptoir.kinds.whisper import LANGUAGES, TRANSLATE, Whisper
from comptoir.kinds.whisper.languages import LANGUAGES as CODES
from comptoir.kinds.whisper.order import read_order

FILE = {"inputs": [{"file": "file_1"}]}


def encoded(**fields: Any) -> bytes:
    return json.dumps(FILE | fields).encode()


class TestDefaults:
    def test_are_those_of_the_published_service(self) -> None:
        order = read_order(encoded())

        body = order.body
        assert (order.language, body.task, body.temperature) == ("", "transcribe", 0)
        assert (body.best_of, body.beam_size, body.patience) == (5, 5, 1)
        assert (body.condition_on_previous_text, body.fp16, body.verbose) == (True, True, False)
        assert order.suppress_tokens == (-1,) and body.initial_prompt is None


class TestLanguage:
    @pytest.mark.parametrize(
        ("said", "code"),
        [
            ("auto", ""),
            ("", ""),
            ("en", "en"),
            ("EN", "en"),
            ("English", "en"),
            (" english ", "en"),
            ("jp", "ja"),
            ("Japanese", "ja"),
            ("pt-BR", "pt"),
            ("zh_CN", "zh"),
            ("zh-Hans", "zh"),
            ("iw", "he"),
            ("haitian creole", "ht"),
        ],
    )
    def test_is_understood_as_people_write_it(self, said: str, code: str) -> None:
        assert read_order(encoded(language=said)).language == code

    @pytest.mark.parametrize("said", ["klingon", "e", "xx-YY", "auto-en", "yue"])
    def test_another_is_refused_with_the_values(self, said: str) -> None:
        wrong = Whisper().check(encoded(language=said))

        assert wrong.startswith("language: is auto, ") and " ja, " in wrong and repr(said) in wrong

    def test_the_published_ones_are_there(self) -> None:
        assert {"en", "es", "fr", "de", "it", "pt", "ru", "ja", "ko", "zh"} <= set(CODES) and len(CODES) == 99


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"temperature": 1.1}, "temperature"),
            ({"temperature": -0.1}, "temperature"),
            ({"best_of": 0}, "best_of"),
            ({"best_of": 11}, "best_of"),
            ({"beam_size": 11}, "beam_size"),
            ({"patience": 2.5}, "patience"),
            ({"patience": 0.05}, "patience"),
            ({"task": "summarize"}, "task"),
            ({"suppress_tokens": [51_864]}, "suppress_tokens"),
            ({"suppress_tokens": "1,two"}, "suppress_tokens"),
            ({"suppress_tokens": "-2"}, "suppress_tokens"),
            ({"suppress_tokens": "1--2"}, "suppress_tokens"),
            ({"initial_prompt": "x" * 1_001}, "initial_prompt"),
            ({"outputs": ["srt", "srt"]}, "outputs"),
            ({"outputs": ["docx"]}, "outputs"),
            ({"seconds_max": 14_401}, "seconds_max"),
            ({"inputs": []}, "inputs"),
            ({"audio_url": "https://example.org/a.mp3"}, "body"),
        ],
        ids=str,
    )
    def test_by_field(self, fields: dict[str, Any], field: str) -> None:
        assert Whisper().check(encoded(**fields)).startswith(f"{field}"), Whisper().check(encoded(**fields))

    @pytest.mark.parametrize(
        ("fields", "needed"),
        [
            ({}, []),
            ({"language": "en"}, []),
            ({"language": "German"}, [LANGUAGES]),
            ({"task": "translate"}, [TRANSLATE]),
            ({"task": "translate", "language": "fr"}, [TRANSLATE, LANGUAGES]),
            ({"task": "nonsense"}, []),
        ],
        ids=str,
    )
    def test_what_some_models_cannot_is_asked_for(self, fields: dict[str, Any], needed: list[str]) -> None:
        """So that no English-only or turbo model gets it, and where there are only such, it is refused by its field."""
        assert Whisper().asks(encoded(**fields)) == set(needed)
        assert {Whisper.capabilities[name] for name in needed} <= {"task", "language"}


class TestHold:
    def test_covers_the_seconds_ordered(self) -> None:
        assert Whisper().output_max(encoded(seconds_max=90)) == 90_000

    def test_and_no_more_than_a_file_can_hold(self) -> None:
        """The trading post knows the bytes of a file before it holds anything."""
        body = encoded(inputs=[{"file": "file_1", "size": 800}])
        (part,) = Whisper().parts(Ask("m", body, 3_600_000))

        assert part.output_max == 160_000

    def test_a_long_one_may_run_for_long(self) -> None:
        assert Whisper().runs_s(encoded(seconds_max=14_400)) < 24 * 3600
