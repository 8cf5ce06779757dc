"""Planting bugs in a copy of the code, and running the tests that are there to find them.

A patch names the code that it changes word for word, and fails loudly when that code has moved: then look whether the
patch still breaks what it is meant to break.
"""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.house.tree import ROOT
from tests.leftovers import NAME

MACHINE = ("tests/proofs/test_job_machine.py::TestJobMachine::test_it_agrees_with_the_model_on_sqlite",)
CHAINS = ("tests/proofs/test_chain_machine.py::TestChainMachine::test_it_agrees_with_the_model_on_sqlite",)
CLAIMS = ("tests/proofs/test_claims.py",)

ENDED_S = 240.0
"""A bound against hanging; a run takes some seconds."""


@dataclass(frozen=True)
class Bug:
    """One mutation."""

    path: str
    """Below ``src/comptoir``."""
    old: str
    new: str
    tests: tuple[str, ...]
    """Those that find it, the cheapest first."""


def copy_of_the_code(folder: Path) -> Path:
    """Copy the package with its compiled files, which stay valid; not the model, which nothing here needs."""
    shutil.copytree(ROOT / "src" / "comptoir", folder / "comptoir", ignore=shutil.ignore_patterns("*.gguf"))
    return folder


def plant(folder: Path, bug: Bug) -> None:
    """Change the one place that *bug* names."""
    path = folder / "comptoir" / bug.path
    text = path.read_text(encoding="utf-8")
    assert text.count(bug.old) == 1, (
        f"{bug.path} has {text.count(bug.old)} times what this bug is planted in: {bug.old!r}"
    )
    path.write_text(text.replace(bug.old, bug.new), encoding="utf-8")


async def run_tests(source: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Run *tests* of this tree against the package in *source*; return the exit status and the output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-o", f"pythonpath={source} .",
        "--hypothesis-profile=unshrunk", "--show-capture=no", *tests, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", NAME) if name in os.environ},
    )  # fmt: skip
    try:
        async with asyncio.timeout(ENDED_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


async def caught_by(bug: Bug, folder: Path) -> list[str]:
    """Return the tests that fail on a copy of the code with *bug* in it, made in *folder*; they stop at the first.

    Raises:
        AssertionError: what the bug is planted in has moved, or the tests did not run.
    """
    source = copy_of_the_code(folder)
    plant(source, bug)
    status, output = await run_tests(source, bug.tests)
    # 0: they pass. 1 means that tests ran and failed; an error of collection would prove nothing.
    assert status in (0, 1), output
    caught = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    assert bool(caught) == (status == 1), output
    return caught
