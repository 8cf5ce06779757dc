"""The command line as people meet it: real processes, a real trading post, an engine that costs nothing."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from comptoir.cli.api import Api
from comptoir.cli.main import program
from comptoir.cli.quickstart import Quickstart, read_quickstart
from tests.house.tree import ROOT

ENGINE = "bench.trivial_engine:TrivialEngine"
WITHIN_S = 60.0
"""Most seconds for anything a test waits for: far more than it takes, on a machine that does much else."""


def until(true: Callable[[], object]) -> None:
    """Wait until *true* says so."""
    deadline_s, pause = time.monotonic() + WITHIN_S, threading.Event()
    while not true():
        assert time.monotonic() < deadline_s, "it did not come true"
        pause.wait(0.02)


def clean_environment(**more: str) -> dict[str, str]:
    """Return an environment in which only the test says where a trading post is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COMPTOIR_")}
    return {**kept, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1", **more}


class Program:
    """A running ``comptoir …``; its output is read as it comes."""

    def __init__(self, *arguments: str, cwd: Path, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "comptoir", *arguments],
            cwd=cwd,
            env=env or clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.text = ""
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grown:
                self.text += line
                self._grown.notify_all()
        with self._grown:
            self._grown.notify_all()

    def until(self, pattern: str, *, after: int = 0) -> re.Match[str]:
        """Wait until the output behind *after* matches."""
        until = time.monotonic() + WITHIN_S
        with self._grown:
            while True:
                found = re.compile(pattern, re.MULTILINE).search(self.text, after)
                if found is not None:
                    return found
                assert self._reader.is_alive(), f"ended without {pattern!r}:\n{self.text}"
                assert time.monotonic() < until, f"no {pattern!r} in:\n{self.text}"
                self._grown.wait(1.0)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait until it ends by itself, and has said all; return the exit code."""
        code = self.process.wait(WITHIN_S)
        self._reader.join(WITHIN_S)
        return code

    def end(self) -> None:
        """Make sure that it is gone."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(WITHIN_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Up(Program):
    """A running ``comptoir up`` with a worker, in *folder*/data."""

    def __init__(self, folder: Path, *more: str, port: int = 0, engine: str = ENGINE) -> None:
        self.data = folder / "data"
        super().__init__(
            "up", "--port", str(port), "--data", str(self.data), "--engine", engine, "--no-discover", *more, cwd=folder
        )

    def ready(self) -> "Up":
        """Wait until a model can be bought."""
        self.until("with the OpenAI SDK")
        return self

    @property
    def quickstart(self) -> Quickstart:
        """What quickstart.env says."""
        found = read_quickstart(self.data)
        assert found is not None
        return found


def as_buyer(up: Up) -> dict[str, str]:
    """Return the environment of a client that buys there."""
    known = up.quickstart
    return clean_environment(COMPTOIR_URL=known.url, COMPTOIR_KEY=known.key)


def worker_pid(up: Up) -> int:
    """Return the process id of the local worker: the only child of the coordinator."""
    (pid,) = Path(f"/proc/{up.process.pid}/task/{up.process.pid}/children").read_text().split()
    return int(pid)


def known_but_not_here(api: Api, model: str) -> None:
    """Register a host of *model* that never links: who asks for it waits in line."""
    machine = {"gpu": "none", "models": [model], "price_per_token": 0.0, "backend": "other"}
    api.call("POST", "/hosts/register", body=machine)


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One trading post for all tests of a module."""
    up = Up(tmp_path_factory.mktemp("post"))
    try:
        yield up.ready()
    finally:
        up.end()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start programs that are gone after the test: ``programs(Up, …)``."""
    started: list[Program] = []

    def start(kind: Callable[..., Program], *arguments: Any, **named: Any) -> Program:
        made = kind(*arguments, **named)
        started.append(made)
        return made

    yield start
    for one in started:
        one.end()


Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Call the command line in this process, in an empty folder; gives click's result."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("COMPTOIR_")]:
        monkeypatch.delenv(name)

    def call(*arguments: str, input: str | None = None, **env: str) -> Result:
        return CliRunner().invoke(program, list(arguments), input=input, env=env)

    return call


@pytest.fixture
def ask(invoke: Invoke, post: Up) -> Invoke:
    """Call a client command as the demo buyer of the module's post."""

    def call(*arguments: str, input: str | None = None) -> Result:
        known = post.quickstart
        return invoke(
            *arguments, input=input, COMPTOIR_URL=known.url, COMPTOIR_KEY=known.key, COMPTOIR_ADMIN_KEY=known.admin_key
        )

    return call
