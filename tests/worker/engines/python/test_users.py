"""The engine of root's worker and of an ordinary user's, in both layers of the sandbox, and without one."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests import leftovers
from tests.worker.sandbox.conftest import ROOT, UID, USERS

QUICK = ("ordinary", "landlock")
"""What `make test` tries; all other tests are of this user and bubblewrap."""
EVERY = [
    pytest.param(user, layer, id=f"{user}-{layer}", marks=[] if (user, layer) == QUICK else pytest.mark.proof)
    for user in USERS
    for layer in ("bubblewrap", "landlock", "none")
    if (user, layer) != ("root", "none")
]


def run(user: str, layer: str) -> list[list[object]]:
    folder = Path(os.environ[leftovers.NAME]) / f"p-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.worker.engines.python.elsewhere", layer, str(folder)]
    if user == "ordinary" and os.geteuid() == 0:
        os.chown(folder, UID, UID)
        reached = [sys.base_prefix, sys.prefix, str(ROOT), str(folder)]
        script = ROOT / "tests" / "worker" / "sandbox" / "ordinary.py"
        command = [sys.executable, str(script), str(UID), *reached, "--", *command]
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "TMPDIR": str(folder)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: list[list[object]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(("user", "layer"), EVERY)
def test_programs_find_the_same_and_end_in_the_same_words(user: str, layer: str) -> None:
    offered, whole, memory, cpu, disk, wall = run(user, layer)

    assert offered == ("lacking" if layer == "none" else "probed")
    assert whole == ["stop", "", "b'word\\n'\n", ["word", 1, "in", "in"], {"o.txt": 4}]
    assert [each[0] for each in (memory, cpu, disk, wall)] == ["memory", "cpu", "disk", "wall"]
    # What it buffers for a file is written when it ends, so the log alone is whole of each.
    assert [each[2] for each in (memory, cpu, disk, wall)] == ["a\n"] * 4 and disk[4] == {"f": 8 << 20}
