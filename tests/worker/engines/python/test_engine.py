"""What the engine offers, what its owner may choose, and what it says when it can't be."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from comptoir.kinds import Kinds
from comptoir.kinds.capabilities import LACKING, PROBED
from comptoir.worker.engines.base import EngineError, EngineRequest
from comptoir.worker.engines.programs import Programs
from comptoir.worker.engines.python import PythonEngine, about, missing
from comptoir.worker.engines.python.host_python import HostPython, host_python
from comptoir.worker.engines.registry import make_engine, parse_spec
from tests.worker.engines.python.trying import attempt, opened

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


class TestOffer:
    async def test_it_names_the_interpreter_and_all_that_its_owner_allows(self, tmp_path: Path) -> None:
        async with opened(tmp_path, network="yes", memory_mib=5000, cores=4, disk_mib=2048, wall_s=600) as engine:
            any_version, exact = await engine.models()

        assert (any_version.name, exact.name) == ("python", f"python{VERSION}")
        assert any_version.kinds == ["python"] and any_version.can_continue
        said = any_version.capabilities
        able = {name for name, state in said.items() if state == PROBED}
        assert able == {"sandbox", "network", "memory_4g", "cores_2", "cores_4"}
        assert {said[name] for name in set(said) - able} == {LACKING}
        assert set(said) == set(Kinds().get("python").capabilities), "of each it is known"

    async def test_without_walls_buyers_are_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Programs, "sandboxed", False)
        async with opened(tmp_path) as engine:
            offer = (await engine.models())[0]
            with pytest.raises(EngineError, match="grants no sandbox"):
                await attempt(engine, tmp_path, {"code": "print(1)"})

        assert offer.capabilities["sandbox"] == LACKING


class TestOptions:
    def test_they_are_typed_as_on_the_command_line(self, tmp_path: Path) -> None:
        spec = parse_spec("python,network=yes,memory_mib=2048,wall_s=900,cache_mib=100,environment_s=60")

        assert isinstance(make_engine(spec, slots=3, folder=tmp_path), PythonEngine)

    @pytest.mark.parametrize("option", ["network=perhaps", "wall_s=long", "gpu=1"])
    def test_what_is_none_is_refused(self, option: str, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="engine python"):
            make_engine(parse_spec(f"python,{option}"), slots=1, folder=tmp_path)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"memory_mib": 512}, "memory_mib must be at least 1024"),
            ({"wall_s": 60}, "wall_s must be at least 600"),
            ({"builds": "yes", "unsandboxed": "yes"}, "needs a sandbox"),
            ({"torch": Path("/nowhere")}, "no torch in /nowhere"),
        ],
    )
    async def test_what_cannot_be_granted_is_said_at_the_start(
        self, options: dict[str, Any], words: str, tmp_path: Path
    ) -> None:
        with pytest.raises(EngineError, match=words):
            async with opened(tmp_path, **options):
                pass

    async def test_without_a_sandbox_it_does_not_start(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os.path, "exists", lambda path: path != "/proc/self/ns/user")
        with pytest.raises(EngineError) as raised:
            async with opened(tmp_path):
                pass

        assert raised.value.code == "no_sandbox" and "user namespaces" in raised.value.message


class TestDoctor:
    def test_it_says_what_is_sold_and_what_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert missing() == "" and f"Python {VERSION}" in about()

        def nowhere() -> str:
            raise FileNotFoundError

        monkeypatch.setattr("uv.find_uv_bin", nowhere)
        assert "pip install uv" in missing()


class TestRefusals:
    @pytest.mark.parametrize(
        ("order", "code", "fault"),
        [
            ({"code": ""}, "bad_order", "buyer"),
            ({"code": "1", "limits": {"memory_mib": 60_000}}, "not_granted", "capacity"),
            ({"code": "1", "network": True}, "not_granted", "capacity"),
        ],
    )
    async def test_what_the_offer_does_not_grant_never_runs(
        self, order: dict[str, Any], code: str, fault: str, tmp_path: Path
    ) -> None:
        async with opened(tmp_path) as engine:
            with pytest.raises(EngineError) as raised:
                await attempt(engine, tmp_path, order)

        assert (raised.value.code, raised.value.fault) == (code, fault)

    async def test_a_worker_without_files_is_not_asked_for_any(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as engine:
            with pytest.raises(EngineError, match="fetches and delivers no files"):
                [each async for each in engine.run(EngineRequest("python", "python", b'{"code": "1"}'))]


class TestHostPython:
    def test_it_is_the_workers_own_without_its_virtual_environment(self) -> None:
        python = host_python()

        assert python.version == VERSION and Path(python.program(sandboxed=False)).exists()
        assert python.prefix == os.path.realpath(sys.base_prefix)

    def test_below_usr_it_is_where_it_is(self) -> None:
        debian, own = HostPython("/usr", "3.12"), HostPython("/opt/python", "3.12")

        assert (debian.program(sandboxed=True), debian.bounds) == ("/usr/bin/python3.12", [])
        assert own.program(sandboxed=True) == "/python/bin/python3.12" and own.bounds[0].source == "/opt/python"
        assert own.program(sandboxed=False) == "/opt/python/bin/python3.12"
