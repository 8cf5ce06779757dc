"""Packages: resolved by the real uv from a folder of the tests' own, made once, shown read-only, and evicted."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.python import PythonEngine, environments
from comptoir.worker.engines.python.index import folders_in, index_settings, no_index, secrets_in
from comptoir.worker.engines.python.machine_own import meets
from comptoir.worker.engines.python.uv import Uv
from comptoir.worker.sandbox.process import SandboxRun
from tests.worker.engines.python.trying import Tried, attempt, opened
from tests.worker.engines.python.wheels import simple, source, wheel

pytestmark = pytest.mark.asyncio(loop_scope="module")

MORE = "Provides-Extra: more\n"

BACKEND = """
import os, pathlib, socket, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    seen = sorted(os.environ) + [str(os.getuid() == 0)] + os.listdir("/")
    name = "built-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as made:
        made.writestr("built.py", f"seen = {seen!r}")
        made.writestr("built-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: built\\nVersion: 1.0\\n")
        made.writestr("built-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        made.writestr("built-1.0.dist-info/RECORD", "")
    return name
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of packages."""
    folder = tmp_path_factory.mktemp("index")
    wheel(folder, "greet", "1.0", {"greet/__init__.py": "def hi(): return 'one'"}, requires=["base"])
    wheel(folder, "greet", "1.1", {"greet/__init__.py": "def hi(): return 'two'"}, requires=["base"], extra=MORE)
    wheel(folder, "base", "2.0", {"base.py": "import sys\nname = __name__", "base.pth": "import sys; sys.marked = 1\n"})
    wheel(folder, "heavy", "1.0", {"heavy.py": "x = 1", "data.bin": "\0" * (24 << 20)})
    wheel(folder, "vision", "1.0", {"vision.py": "import torch\nversion = torch.__version__"}, requires=["torch>=2"])
    wheel(folder, "torch", "9.9", {"torch.py": "__version__ = 'from the index'"})
    source(folder, "built", "1.0", BACKEND)
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module", autouse=True)
def owner(index: Path) -> Any:
    """Have the owner's environment name that folder and nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
            patch.delenv(name)
        patch.setenv("UV_DEFAULT_INDEX", f"file://{simple(index)}")
        patch.setenv("UV_NO_CONFIG", "1")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worker")


@pytest.fixture(scope="module")
def machine_own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give this machine's own packages, with a torch among them."""
    place = tmp_path_factory.mktemp("own")
    place.chmod(0o755)
    (place / "torch.py").write_text("__version__ = '2.4.1+cu126'")
    (place / "torch-2.4.1+cu126.dist-info").mkdir()
    (place / "torch-2.4.1+cu126.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torch\nVersion: 2.4.1+cu126\n"
    )
    return place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folder: Path, machine_own: Path) -> AsyncIterator[PythonEngine]:
    async with opened(folder, builds="yes", torch=machine_own, environment_mib=64) as made:
        yield made


async def run(engine: PythonEngine, folder: Path, code: str, *lines: str, **order: Any) -> Tried:
    return await attempt(engine, folder, {"code": code, "requirements": lines} | order)


class TestUse:
    async def test_the_newest_that_fits_is_there_with_what_it_needs(self, engine: PythonEngine, folder: Path) -> None:
        code = (
            "import greet, base, sys, os\nprint(greet.hi(), base.name, sys.marked, greet.__file__)\n"
            "print(sorted(n for n in os.listdir(os.path.dirname(greet.__file__) + '/__pycache__')))\n"
            "try: open(greet.__file__, 'a')\nexcept OSError as e: print('not writable')"
        )
        new = await run(engine, folder, code, "greet [more]>=1.0, <2 ; python_version >= '3'", "base")
        old = await run(engine, folder, code, "Greet<1.1")

        cached = f"__init__.cpython-{sys.version_info[0]}{sys.version_info[1]}.pyc"
        rest = f"base 1 /environment/greet/__init__.py\n['{cached}']\nnot writable\n"
        assert (new.out, old.out) == (f"two {rest}", f"one {rest}"), new.err
        assert new.reason == "stop" and (None, "preparing the packages") in new.progress

    async def test_the_second_job_needs_no_index(
        self, engine: PythonEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await run(engine, folder, "import greet", "greet")

        async def away(*_: object, **__: object) -> None:
            raise EngineError("requirements", "the index is away", fault="capacity")

        monkeypatch.setattr(Uv, "_uv", away)
        again = await run(engine, folder, "import greet; print(greet.hi())", "  greet  ", "greet")

        assert again.out == "two\n", "the same lines, however they are written"
        with pytest.raises(EngineError, match="index is away"):
            await run(engine, folder, "pass", "greet==1.0")
        monkeypatch.setattr(environments, "LOCK_FRESH_S", -1.0)
        old = await run(engine, folder, "import greet; print(greet.hi())", "greet")
        assert old.out == "two\n", "a lock that is due for a look serves while none is possible"

    async def test_different_lines_with_one_lock_are_one_environment(self, engine: PythonEngine, folder: Path) -> None:
        made = folder / "runs" / "environments" / "made"
        await run(engine, folder, "pass", "greet==1.1", "base")
        before = sorted(made.iterdir())
        await run(engine, folder, "pass", "base>=1", "greet>1.0")

        assert sorted(made.iterdir()) == before

    async def test_jobs_at_the_same_time_make_it_once(
        self, engine: PythonEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []
        real = Uv.install

        async def counted(self: Uv, *arguments: Any, **options: Any) -> Path:
            calls.append(1)
            return await real(self, *arguments, **options)

        monkeypatch.setattr(Uv, "install", counted)
        tried = await asyncio.gather(*[run(engine, folder, "import base; print(1)", "base==2.0") for _ in range(4)])

        assert [each.out for each in tried] == ["1\n"] * 4 and len(calls) == 1


class TestRefused:
    @pytest.mark.parametrize(
        ("lines", "words"),
        [
            (["nothing-of-that-name"], "nothing-of-that-name was not found"),
            (["greet==7"], "no version of greet==7"),
            (["greet==1.0", "greet==1.1"], "greet"),
        ],
    )
    async def test_what_cannot_be_met_is_the_buyers_fault(
        self, lines: list[str], words: str, engine: PythonEngine, folder: Path
    ) -> None:
        with pytest.raises(EngineError, match=words) as raised:
            await run(engine, folder, "pass", *lines)

        assert (raised.value.code, raised.value.fault, raised.value.status) == ("requirements", "buyer", 422)

    async def test_it_is_not_tried_again_at_once(
        self, engine: PythonEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Looking is work that nobody pays for."""
        with pytest.raises(EngineError):
            await run(engine, folder, "pass", "never-there")
        monkeypatch.setattr(Uv, "lock", None)

        with pytest.raises(EngineError, match="never-there"):
            await run(engine, folder, "pass", "never-there")

    async def test_packages_that_are_too_large_are_stopped(self, folder: Path) -> None:
        async with opened(folder, environment_mib=8) as small:
            with pytest.raises(EngineError, match="more than 8 MiB"):
                await run(small, folder, "pass", "heavy")


class TestBuilds:
    async def test_without_the_buyers_word_nothing_is_built(self, engine: PythonEngine, folder: Path) -> None:
        with pytest.raises(EngineError, match="requirements can't be met"):
            await run(engine, folder, "pass", "built")

    async def test_what_is_built_runs_behind_the_walls(self, engine: PythonEngine, folder: Path) -> None:
        tried = await run(engine, folder, "import built; print(built.seen)", "built", builds=True)

        assert tried.reason == "stop", tried.err
        assert "'False'" in tried.out and "'root'" not in tried.out and "STARTED_BY_TESTS" not in tried.out

    async def test_links_that_a_build_leaves_lead_nowhere(
        self, engine: PythonEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The worker, which may be root, would read, write or open to all what they point at."""
        secret = folder / "secret"
        secret.write_text("the host's own")
        secret.chmod(0o600)

        async def planted(self: Uv, run: SandboxRun, words: list[str], *, builds: bool) -> None:
            if "compile" in words:
                (run.work / "lock.txt").symlink_to(secret)
            else:
                (run.work / "site").rmdir()
                (run.work / "site").symlink_to(folder)

        monkeypatch.setattr(Uv, "_uv", planted)
        run_of = engine._programs.new_run
        with pytest.raises(EngineError, match="there is no lock"):
            await engine._uv.lock(run_of(), ["built"], left_out=[], builds=True)
        with pytest.raises(EngineError, match="replaced its own folder"):
            await engine._uv.install(run_of(), "built==1.0", builds=True)

        assert secret.read_text() == "the host's own" and secret.stat().st_mode & 0o777 == 0o600

    async def test_a_host_that_builds_nothing_refuses(self, folder: Path) -> None:
        async with opened(folder) as plain:
            with pytest.raises(EngineError, match="grants no builds"):
                await run(plain, folder, "pass", "built", builds=True)


class TestTorch:
    async def test_it_is_this_machines_own(self, engine: PythonEngine, folder: Path) -> None:
        tried = await run(engine, folder, "import vision; print(vision.version)", "vision", "torch>=2,<3")
        alone = await run(engine, folder, "import torch; print(torch.__version__)", "torch")

        assert (tried.out, alone.out) == ("2.4.1+cu126\n", "2.4.1+cu126\n"), tried.err

    async def test_another_version_is_refused_in_words(self, engine: PythonEngine, folder: Path) -> None:
        with pytest.raises(EngineError, match=r"has torch 2\.4\.1\+cu126, and 'torch>=3' was asked") as raised:
            await run(engine, folder, "pass", "torch>=3")

        assert raised.value.fault == "capacity", "another host may have it"

    async def test_a_host_without_one_never_fetches_it(self, folder: Path) -> None:
        async with opened(folder) as plain:
            with pytest.raises(EngineError, match="grants no torch"):
                await run(plain, folder, "pass", "torch")
            with pytest.raises(EngineError, match="add a line 'torch'"):
                await run(plain, folder, "pass", "vision")

    @pytest.mark.parametrize(
        ("line", "met"),
        [
            ("torch", True), ("torch==2.4.1", True), ("torch==2.4", False), ("torch==2.4.*", True), ("torch!=2.4.*", False),
            ("torch>=2.4.1,<2.5", True), ("torch>2.4.1", False), ("torch~=2.3", True), ("torch~=2.3.0", False),
            ("torch<=2.4.1.0", True), ("torch!=2.4.1", False), ("torch<3; python_version<'4'", True), ("torch==3.*", False),
        ],
    )  # fmt: skip
    async def test_its_release_is_compared(self, line: str, met: bool) -> None:
        assert meets(line, "2.4.1+cu126") is met and not meets(line, "")


class TestEviction:
    async def test_the_longest_unused_goes_and_never_one_in_use(self, folder: Path) -> None:
        made = folder / "evicting" / "runs" / "environments" / "made"
        async with opened(folder / "evicting", environment_mib=64, cache_mib=1) as engine:
            async with engine._environments.ready(["heavy"], builds=False, left_out={}) as heavy:
                assert heavy is not None
                await run(engine, folder, "pass", "base")
                assert (heavy / "heavy.py").is_file(), "it is in use"
                assert len(list(made.iterdir())) == 2
            await run(engine, folder, "pass", "greet")

            assert not heavy.exists() and len(list(made.iterdir())) >= 1


class TestIndex:
    async def test_it_is_the_owners_for_uv_or_else_for_pip(self, tmp_path: Path) -> None:
        config = tmp_path / "pip.conf"
        config.write_text("[global]\nindex-url = https://a.example/simple\n[install]\nfind-links = /x\n  /y\n")
        pip = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(config), "PIP_EXTRA_INDEX_URL": "https://b.example/s"}

        assert index_settings({"HOME": "/h", "SECRET": "s", "UV_INDEX": "https://c.example"}) == {
            "HOME": "/h",
            "UV_INDEX": "https://c.example",
        }
        of_pip = index_settings(pip)
        assert of_pip["UV_INDEX_URL"] == "https://a.example/simple"
        assert (of_pip["UV_EXTRA_INDEX_URL"], of_pip["UV_FIND_LINKS"]) == ("https://b.example/s", "/x,/y")
        assert "UV_INDEX_URL" not in index_settings(pip | {"UV_INDEX": "https://c.example"})
        assert no_index(pip | {"PIP_NO_INDEX": "1"}) and not no_index(pip)

    async def test_a_password_is_found_before_a_build_could_see_it(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert secrets_in({"UV_INDEX": "https://me:secret@a.example/simple"}) == ["UV_INDEX"]
        assert secrets_in({"UV_INDEX_A_PASSWORD": "x", "UV_INDEX": "https://a.example"}) == ["UV_INDEX_A_PASSWORD"]
        assert folders_in({"UV_FIND_LINKS": f"{folder},/nowhere", "UV_INDEX_URL": f"file://{folder}"}) == [folder]
        monkeypatch.setenv("UV_INDEX", "https://me:secret@a.example/simple")
        with pytest.raises(EngineError, match="builds=yes would show the password in UV_INDEX"):
            async with opened(folder, builds="yes"):
                pass
