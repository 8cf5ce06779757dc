"""Engines are found by name, by module, by URL and by file, and complain helpfully."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from bench.trivial_engine import TrivialEngine

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.openai import OpenAIEngine
from comptoir.worker.engines.registry import ENGINES, EngineSpec, make_engine, parse_spec
from tests.worker.scripted_engine import ScriptedEngine


class NeedsMuch:
    """A third party's engine with the constructor of our in-process ones."""

    name = "needs-much"

    def __init__(self, *, path: Path | str, name: str, context_tokens: int, slots: int, threads: int) -> None:
        self.given = (path, name, context_tokens, slots, threads)


class Frugal:
    """A third party's engine that knows how many threads are good for it."""

    name = "frugal"

    def __init__(self, *, threads: int = 1) -> None:
        self.threads = threads


class RunsPrograms:
    """An engine whose programs need room on the disk."""

    name = "runs-programs"

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder


class TestParseSpec:
    @pytest.mark.parametrize(
        ("text", "spec"),
        [
            ("demo", EngineSpec("demo")),
            (
                "openai,base_url=http://h:1/v1,api_key=a=b",
                EngineSpec("openai", {"base_url": "http://h:1/v1", "api_key": "a=b"}),
            ),
            ("http://h:1", EngineSpec("openai", {"base_url": "http://h:1"})),
            ("https://h:1,api_key=x", EngineSpec("openai", {"base_url": "https://h:1", "api_key": "x"})),
            ("127.0.0.1:8000/v1", EngineSpec("openai", {"base_url": "http://127.0.0.1:8000/v1"})),
            ("localhost:11434", EngineSpec("openai", {"base_url": "http://localhost:11434"})),
            (" [::1]:8000/,api_key=x", EngineSpec("openai", {"base_url": "http://[::1]:8000", "api_key": "x"})),
            ("gpu1:8000", EngineSpec("openai", {"base_url": "http://gpu1:8000"})),
            ("HTTP://h:8000//", EngineSpec("openai", {"base_url": "http://h:8000"})),
            ("models.example/v1", EngineSpec("openai", {"base_url": "https://models.example/v1"})),
            ("./m.gguf,slots=2", EngineSpec("llamacpp", {"path": "./m.gguf", "slots": "2"})),
            ("a.b:C, x=1", EngineSpec("a.b:C", {"x": "1"})),
        ],
    )
    def test_what_people_type(self, text: str, spec: EngineSpec) -> None:
        assert parse_spec(text) == spec

    @pytest.mark.parametrize(
        ("address", "base"),
        [
            ("localhost:11434", "http://localhost:11434/v1"),
            ("127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
            ("[::1]:8000", "http://[::1]:8000/v1"),
            ("http://h:8000/", "http://h:8000/v1"),
            ("http://h:8000/v1/chat/completions", "http://h:8000/v1"),
        ],
    )
    def test_a_server_is_asked_below_v1_however_it_is_spelled(self, address: str, base: str) -> None:
        typed = make_engine(parse_spec(address), slots=1)
        option = make_engine(EngineSpec("openai", {"base_url": address}), slots=1)

        assert isinstance(typed, OpenAIEngine) and isinstance(option, OpenAIEngine)
        assert (typed._upstream.base, option._upstream.base) == (base, base)

    @pytest.mark.parametrize(
        "text", ["ftp://h:1", "http://::1:8000", "h:99999", "http://u:p@h:1", "http://h:1/v1?x=1", "[::g]:1", "http://"]
    )
    def test_an_address_that_can_not_be_understood_says_what_to_write(self, text: str) -> None:
        with pytest.raises(EngineError, match=r"http://"):
            parse_spec(text)

    @pytest.mark.parametrize("text", ["", "demo,slots", "demo,=3"])
    def test_nonsense_is_explained(self, text: str) -> None:
        with pytest.raises(EngineError, match=r"option=value|name an engine"):
            parse_spec(text)


class TestMakeEngine:
    def test_any_class_by_module(self) -> None:
        engine = make_engine(parse_spec("bench.trivial_engine:TrivialEngine,tokens=7,per_s=2.5,model=m"), slots=3)

        assert isinstance(engine, TrivialEngine)
        assert (engine._tokens, engine._per_s, engine._model) == (7, 2.5, "m")

    def test_slots_threads_and_name_are_filled_in(self) -> None:
        engine = make_engine(
            parse_spec(f"{__name__}:NeedsMuch,path=/x/Tiny.gguf,context_tokens=512"), slots=3, threads=2
        )

        assert isinstance(engine, NeedsMuch)
        assert engine.given == ("/x/Tiny.gguf", "Tiny", 512, 3, 2)

    def test_an_engines_own_default_of_threads_stays(self) -> None:
        frugal = make_engine(EngineSpec(f"{__name__}:Frugal"), slots=3)
        told = make_engine(EngineSpec(f"{__name__}:Frugal"), slots=3, threads=9)

        assert isinstance(frugal, Frugal) and isinstance(told, Frugal)
        assert (frugal.threads, told.threads) == (1, 9)

    def test_an_engine_of_programs_gets_a_folder_unless_its_owner_named_one(self, tmp_path: Path) -> None:
        named = make_engine(parse_spec(f"{__name__}:RunsPrograms,folder=/disk"), slots=1, folder=tmp_path)
        told = make_engine(EngineSpec(f"{__name__}:RunsPrograms"), slots=1, folder=tmp_path)

        assert isinstance(named, RunsPrograms) and isinstance(told, RunsPrograms)
        assert (named.folder, told.folder) == (Path("/disk"), tmp_path)

    def test_aliases_are_read(self) -> None:
        engine = make_engine(parse_spec("http://h:1,aliases=chat:org/model-7b:q4+big:org/model-70b"), slots=1)

        assert isinstance(engine, OpenAIEngine)
        assert engine._aliases == {"chat": "org/model-7b:q4", "big": "org/model-70b"}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("nobody", "there is no engine 'nobody'; choose container, demo, ffmpeg, infernet, llamacpp, openai"),
            ("no.such.module:Engine", "is no.such.module on the Python path"),
            ("bench.trivial_engine:Nothing", "has no 'Nothing'"),
            ("openai", "openai,base_url="),
            ("bench.trivial_engine:TrivialEngine,speed=1", "has no option 'speed'; it has: tokens"),
            ("bench.trivial_engine:TrivialEngine,tokens=many", "tokens='many'"),
            ("http://h:1,aliases=x", "name:upstream-name"),
        ],
    )
    def test_what_is_wrong_is_said(self, text: str, words: str) -> None:
        with pytest.raises(EngineError) as caught:
            make_engine(parse_spec(text), slots=1)

        assert words in caught.value.message

    def test_a_missing_library_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> ModuleType:
            raise ModuleNotFoundError("No module named 'xllamacpp'", name="xllamacpp")

        monkeypatch.setattr(importlib, "import_module", missing)

        with pytest.raises(EngineError, match=r"needs xllamacpp.*pip install xllamacpp"):
            make_engine(EngineSpec("demo"), slots=1)

    def test_names_are_unique(self) -> None:
        assert len({entry.name for entry in ENGINES}) == len(ENGINES)

    def test_an_engine_without_options_is_fine(self) -> None:
        assert isinstance(
            make_engine(EngineSpec("tests.worker.scripted_engine:ScriptedEngine"), slots=1), ScriptedEngine
        )
