"""Workers with a sandbox: as root and as an ordinary user, with each layer."""

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import comptoir
from comptoir.worker.sandbox.types import Bound
from tests import leftovers
from tests.worker.sandbox.driver import Order, Outcome

UID = 54_321
"""An ordinary user, of whom nothing else runs."""
ROOT = Path(__file__).parents[3]
SOURCE = Path(comptoir.__file__).parents[1]
"""The code that these tests import: a copy with a bug in it, where one is planted (tests/proofs/planting.py)."""
PYTHON = Bound(sys.base_prefix, "/python")
TIMEOUT_S = 60


class Driver:
    """A worker in a process of its own."""

    def __init__(self, *, user: str, layer: str, groups: bool) -> None:
        self.user, self.layer, self.groups = user, layer, groups
        self.folder = Path(os.environ[leftovers.NAME]) / f"s-{uuid.uuid4().hex[:8]}"
        self.folder.mkdir()
        self.secret = f"secret-{uuid.uuid4().hex}"
        self.start()

    @property
    def root(self) -> bool:
        return self.user == "root"

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.worker.sandbox.driver", str(self.folder), self.layer]
        command.append("yes" if self.groups else "no")
        if not self.root and os.geteuid() == 0:
            os.chown(self.folder, UID, UID)
            reached = [sys.base_prefix, sys.prefix, str(ROOT), str(SOURCE), str(self.folder)]
            command = [sys.executable, str(Path(__file__).with_name("ordinary.py")), str(UID), *reached, "--", *command]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{SOURCE}:{ROOT}", "WORKER_SECRET": self.secret},
        )
        line = self._answer()
        self.checks = json.loads(line)
        assert self.checks == [] if self.layer == "none" else self.checks[0]["ready"], line

    def _answer(self) -> bytes:
        assert self.process.stdout is not None
        # A driver that hangs is killed, so that its test fails rather than waits.
        killer = threading.Timer(TIMEOUT_S, self.process.kill)
        killer.start()
        try:
            return self.process.stdout.readline()
        finally:
            killer.cancel()

    def run(self, order: Order) -> Outcome:
        """Carry out one order."""
        self.send(order)
        line = self._answer()
        assert line, "the worker ended"
        return msgspec.json.decode(line, type=Outcome)

    def send(self, order: Order) -> None:
        """Give an order without waiting for what becomes of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(order) + b"\n")
        self.process.stdin.flush()

    def python(self, script: str, *arguments: str, **options: object) -> Outcome:
        """Run Python code in the sandbox; *options* are an `Order`'s."""
        options.setdefault("inputs", [])
        options["inputs"] = [PYTHON, *options["inputs"]]  # type: ignore[misc]
        options["env"] = {"LD_LIBRARY_PATH": "/python/lib"} | dict(options.get("env", {}))  # type: ignore[call-overload]
        words = ["/python/bin/python3", "-I", "-S", "-c", script, *arguments]
        return self.run(msgspec.convert({"argv": words} | options, Order))

    def run_bound(self, source: Path, target: str, argv: list[str]) -> Outcome:
        """Run a program of the host that is shown at *target*."""
        return self.run(Order(argv=argv, inputs=[Bound(str(source), target)]))

    def shell(self, script: str, **options: object) -> Outcome:
        """Run a shell script in the sandbox."""
        return self.run(msgspec.convert({"argv": ["/bin/sh", "-c", script]} | options, Order))

    def kill(self) -> None:
        """End it by kill -9."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def close(self) -> None:
        """End it in an orderly way."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(TIMEOUT_S)
        self.process.stdout.close()


def living(marker: str) -> list[str]:
    """Return the processes of this machine that have *marker* on their command line, by number."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                words = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in words and b"pytest" not in words:
                found.append(folder.name)
    return found


USERS = ["root", "ordinary"] if os.geteuid() == 0 else ["ordinary"]
"""As whom workers run here: an ordinary user can't become root to try it."""


QUICK = {("root", "bubblewrap"), ("ordinary", "landlock")}
"""What `make test` tries; `make proofs` has the other two as well."""


def _combinations() -> list[object]:
    """Return each user with each layer."""
    every = [(user, layer) for user in USERS for layer in ("bubblewrap", "landlock")]
    return [pytest.param(each, id="-".join(each), marks=[] if each in QUICK else pytest.mark.proof) for each in every]


@pytest.fixture(scope="session", params=_combinations())
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Give a worker: root's counts by control groups, an ordinary user's by looking."""
    user, layer = request.param
    made = Driver(user=user, layer=layer, groups=user == "root")
    yield made
    made.close()


@pytest.fixture(scope="session", params=USERS)
def by_user(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Give a worker with bubblewrap, for rules that don't depend on the layer."""
    made = Driver(user=request.param, layer="bubblewrap", groups=request.param == "root")
    yield made
    made.close()
