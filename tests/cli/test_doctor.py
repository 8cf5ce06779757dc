"""``comptoir host doctor``: what this machine is ready to host, tried, and what to do about the rest."""

import json
from pathlib import Path

import pytest

from comptoir.worker.engines import registry
from comptoir.worker.engines.registry import EngineEntry, missing_for
from tests.cli.conftest import Invoke


class TestDoctor:
    def test_it_tells_of_each_layer_and_each_engine(self, invoke: Invoke) -> None:
        result = invoke("host", "doctor", "--json")

        assert result.exit_code == 0, result.output
        rows = {row["part"]: row for row in json.loads(result.output)}
        assert rows["sandbox bubblewrap"]["ready"] and rows["sandbox landlock"]["ready"]
        assert {f"engine {entry.name}" for entry in registry.ENGINES} <= set(rows)
        assert {"control groups", "user"} <= set(rows)
        assert rows["engine whisper"]["ready"] and "decodes with" in rows["engine whisper"]["found"]
        assert rows["engine ffmpeg"]["ready"] and "version" in rows["engine ffmpeg"]["found"]

    def test_without_a_layer_it_says_what_to_install_and_fails(
        self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr("comptoir.worker.sandbox.layers.landlock_version", lambda: 0)
        result = invoke("host", "doctor")

        assert result.exit_code == 1
        assert "bubblewrap is not installed: apt-get install bubblewrap" in result.output
        assert "the kernel has no Landlock: take Linux 5.19 or newer" in result.output

    def test_serving_still_needs_no_word_of_its_own(self, invoke: Invoke) -> None:
        """`host` became a group of commands for this one, and goes on as it was without it."""
        result = invoke("host")

        assert result.exit_code == 2 and "no engine was chosen" in result.output


class TestMissing:
    @pytest.mark.parametrize(
        ("entry", "said"),
        [
            (EngineEntry("broken", "comptoir_nowhere:Engine", "pip install nowhere"), "pip install nowhere"),
            (EngineEntry("whole", "comptoir.worker.engines.demo:DemoEngine", "-"), ""),
            (EngineEntry("lame", "comptoir.worker.engines.demo:DemoEngine", "-", f"{__name__}:leg"), "a leg is broken"),
        ],
        ids=lambda value: value.name if isinstance(value, EngineEntry) else None,
    )
    def test_a_library_or_the_engines_own_check_says_it(
        self, entry: EngineEntry, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, "ENGINES", (entry,))

        assert said in missing_for(entry) and bool(said) == bool(missing_for(entry))


def leg() -> str:
    """Be an engine's own check."""
    return "a leg is broken"
