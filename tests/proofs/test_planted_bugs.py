"""Bugs, five of single jobs (one of them in two places) and four of chains of containers, planted one by one in a copy of the
code: each must make those tests fail that are there to find it.

A patch names the code that it changes word for word, and fails loudly when that code has moved: then look whether the patch
still breaks what it is meant to break.
"""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.house.tree import ROOT

MACHINE = "tests/proofs/test_job_machine.py::TestJobMachine::test_it_agrees_with_the_model_on_sqlite"
CHAINS = "tests/proofs/test_chain_machine.py::TestChainMachine::test_it_agrees_with_the_model_on_sqlite"
CLAIMS = "tests/proofs/test_claims.py"

ENDED_S = 240.0
"""A bound against hanging; a run takes some seconds."""


@dataclass(frozen=True)
class Bug:
    """One mutation."""

    path: str
    """Below ``src/comptoir``."""
    old: str
    new: str
    tests: str


BUGS = {
    "double settle": Bug(
        "dispatch/settle.py",
        "if stored is None or stored.state not in (JobState.QUEUED, JobState.RUNNING):",
        "if stored is None:",
        MACHINE,
    ),
    "missing lease compare": Bug("dispatch/assign.py", " or stored.attempt_id != item.attempt_id:", ":", MACHINE),
    "lost release": Bug(
        "dispatch/settle.py",
        "        core.fleet.release(lease.host_id)\n    _drop_half_a_stage(",
        "        pass\n    _drop_half_a_stage(",
        MACHINE,
    ),
    "off-by-one frame": Bug("dispatch/stream.py", "items[held - seq :] if", "items[held - seq + 1 :] if", MACHINE),
    "unlocked claim": Bug("jobs/store.py", 'f"{_lock(tx)} SKIP LOCKED" if tx.dialect', '"" if tx.dialect', CLAIMS),
    "unlocked state": Bug("jobs/store.py", "job_ids, lock=True)", "job_ids)", CLAIMS),
    "step not advanced": Bug("dispatch/stream.py", "if not job.on_last_stage:", "if False:", CHAINS),
    "step paid twice": Bug(
        "dispatch/settle.py",
        "segment.unpaid or broken,\n        )\n        for segment in job.segments",
        "segment.unpaid or broken,\n        )\n        for segment in (*job.segments[:1], *job.segments)",
        CHAINS,
    ),
    "half a run paid": Bug("kinds/containers.py", "pays_half = False", "pays_half = True", CHAINS),
    "first container run again": Bug("kinds/containers.py", "stage = job.stages[at]", "stage = job.stages[0]", CHAINS),
}


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
        env={name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
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


@pytest.mark.proof
class TestPlantedBugs:
    @pytest.mark.parametrize("name", BUGS)
    async def test_it_is_caught(self, name: str, tmp_path: Path) -> None:
        bug = BUGS[name]
        source = copy_of_the_code(tmp_path)
        plant(source, bug)

        status, output = await run_tests(source, [bug.tests])

        # 1 means that tests ran and failed; an error of collection would prove nothing.
        assert status == 1, output
        caught = re.findall(r"^FAILED (\S+)", output, re.MULTILINE)
        assert caught, output
        print(f"{name}: caught by {', '.join(caught)}")

    async def test_without_a_bug_nothing_is_caught(self, tmp_path: Path) -> None:
        """The same tests pass on an untouched copy."""
        source = copy_of_the_code(tmp_path)

        status, output = await run_tests(source, [MACHINE, CHAINS, CLAIMS])

        assert status == 0, output
