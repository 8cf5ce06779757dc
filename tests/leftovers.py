"""No process outlives the tests that started it, however they end: Ctrl-C, kill -9 of the run or of one of its
processes.

Each test process writes its mark into its environment, which whatever it starts inherits, and starts a reaper
(`tests.reaper`) that ends what bears the mark when the test process is gone. A process that is started with an
environment of its own is given the mark by `mark`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.in_memory import use_memory

NAME = "STARTED_BY_TESTS"
"""Variable with the folder of the test process; no COMPTOIR_ in front, which would be taken for a setting."""


def mark(folder: Path | None = None) -> dict[str, str]:
    """Return the variable that marks a process as ours, for an environment that is not inherited.

    With the *folder* of the run it is ended with the run, not with this test process.
    """
    return {NAME: str(folder) if folder is not None else os.environ[NAME]}


class Leftovers:
    """The mark, the folder and the reaper of one test process."""

    def __init__(self, config: pytest.Config) -> None:
        run = getattr(config, "workerinput", {}).get("run_folder")
        self.run = Path(run if run is not None else tempfile.mkdtemp(prefix="comptoir-tests-"))
        """Folder of the whole run: of the process that the others report to. Short, for sockets; others may pass
        through it."""
        self.folder = self.run / config.workerinput["workerid"] if run is not None else self.run  # type: ignore[attr-defined]
        self.folder.mkdir(exist_ok=True)
        self.run.chmod(0o755)
        self._before = os.environ.get(NAME)
        os.environ[NAME] = str(self.folder)
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", Path(__file__).with_name("reaper.py"), f"{NAME}={self.folder}", self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={},
            start_new_session=True,
        )

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: object) -> None:
        """Tell each process of the run where the run's folder is."""
        node.workerinput["run_folder"] = str(self.run)  # type: ignore[attr-defined]

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Have what is left ended, and wait for that."""
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        self._reaper.wait()
        if self._before is None:
            del os.environ[NAME]
        else:
            os.environ[NAME] = self._before


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begin before anything can be started."""
    use_memory()
    config.pluginmanager.register(Leftovers(config), "leftovers")


@pytest.fixture(scope="session")
def run_folder(pytestconfig: pytest.Config) -> Path:
    """Give the folder of the whole run, which its processes share and which goes with it."""
    leftovers = pytestconfig.pluginmanager.getplugin("leftovers")
    assert isinstance(leftovers, Leftovers)
    return leftovers.run
