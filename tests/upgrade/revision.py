"""The code of an earlier commit, with an environment of its own, ready to be run beside today's."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chaos.processes import Code
from tests.house.tree import ROOT

WHERE = "import pathlib, comptoir; print(pathlib.Path(comptoir.__file__).parents[2])"


def build(rev: str) -> Code:
    """Unpack *rev*, and make the environment that it locks.

    A second call finds both there. `tools/venv.sh` of that commit does the work, a minute or two.

    Raises:
        subprocess.CalledProcessError: there is no such commit, or the packages can't be had.
    """
    root = unpack(rev)
    environment = root / ".venv"
    # Of an environment that is there and complete it changes nothing.
    subprocess.run(["tools/venv.sh", "dev"], cwd=root, check=True, env=_environment(environment), capture_output=True)
    return Code(str(environment / "bin" / "python"), root)


def unpack(rev: str) -> Path:
    """Return a folder below the system's for temporary files that holds *rev*; a second call finds it there.

    Raises:
        subprocess.CalledProcessError: there is no such commit.
    """
    commit = _git("rev-parse", "--verify", f"{rev}^{{commit}}").decode().strip()
    root = Path(tempfile.gettempdir()) / f"comptoir-upgrade-{commit[:12]}"
    if not (root / ".unpacked").exists():
        root.mkdir(exist_ok=True)
        subprocess.run(["tar", "--extract", "--directory", str(root)], input=_git("archive", commit), check=True)
        (root / ".unpacked").touch()
    return root


def found_at(python: str) -> Code:
    """Return the code whose environment *python* is the interpreter of.

    Raises:
        subprocess.CalledProcessError: there is no comptoir in it.
    """
    said = subprocess.run([python, "-c", WHERE], check=True, capture_output=True, text=True, cwd="/").stdout
    return Code(python, Path(said.strip()))


def _git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True).stdout


def _environment(venv: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(Path.home()),
        "VENV": str(venv),
        "PYTHON": sys.executable,
    }
