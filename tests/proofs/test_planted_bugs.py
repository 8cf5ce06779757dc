"""Bugs, five of single jobs (one of them in two places) and four of chains of containers, planted one by one in a copy
of the
code: each must make those tests fail that are there to find it.

See `tests.proofs.planting`.
"""

from pathlib import Path

import pytest

from tests.proofs.planting import CHAINS, CLAIMS, MACHINE, Bug, caught_by, copy_of_the_code, run_tests

BUGS = {
    "double settle": Bug(
        "dispatch/settle.py",
        "if stored is None or stored.state not in (JobState.QUEUED, JobState.RUNNING):",
        "if stored is None:",
        MACHINE,
    ),
    "missing lease compare": Bug(
        "dispatch/assign.py",
        " or stored.attempt_id != item.attempt_id:",
        ":",
        (*MACHINE, "tests/dispatch/test_assign.py"),
    ),
    "lost release": Bug(
        "dispatch/settle.py",
        "        core.fleet.release(lease.host_id)\n    _drop_half_a_stage(",
        "        pass\n    _drop_half_a_stage(",
        MACHINE,
    ),
    "off-by-one frame": Bug(
        "dispatch/stream.py",
        "items[held - seq :] if",
        "items[held - seq + 1 :] if",
        (*MACHINE, "tests/dialects/infrintia/test_chunks.py"),
    ),
    "unlocked claim": Bug("jobs/store.py", 'f"{_lock(tx)} SKIP LOCKED" if tx.dialect', '"" if tx.dialect', CLAIMS),
    "unlocked state": Bug("jobs/store.py", "job_ids, lock=True)", "job_ids)", CLAIMS),
    "step not advanced": Bug("dispatch/stream.py", "if not job.on_last_stage:", "if False:", CHAINS),
    "step paid twice": Bug(
        "dispatch/settle.py",
        "segment.passed_ms,\n        )\n        for segment in job.segments",
        "segment.passed_ms,\n        )\n        for segment in (*job.segments[:1], *job.segments)",
        CHAINS,
    ),
    "half a run paid": Bug("kinds/containers.py", "pays_half = False", "pays_half = True", CHAINS),
    "first container run again": Bug("kinds/containers.py", "stage = job.stages[at]", "stage = job.stages[0]", CHAINS),
}


@pytest.mark.proof
class TestPlantedBugs:
    @pytest.mark.parametrize("name", BUGS)
    async def test_it_is_caught(self, name: str, tmp_path: Path) -> None:
        caught = await caught_by(BUGS[name], tmp_path)

        assert caught
        print(f"{name}: caught by {', '.join(caught)}")

    async def test_without_a_bug_nothing_is_caught(self, tmp_path: Path) -> None:
        """The same tests pass on an untouched copy."""
        source = copy_of_the_code(tmp_path)

        status, output = await run_tests(source, [*MACHINE, *CHAINS, *CLAIMS])

        assert status == 0, output
