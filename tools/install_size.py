"""Measure the base install: the wheel and its locked dependencies, as a person's pip would unpack them.

Bytes are the sum of file sizes without bytecode, in MB of 10^6 bytes; more than the limit is exit status 1.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT_MB = 60
"""Promised in README and pyproject.toml; docs/decisions/0005 says what it keeps out."""

ROOT = Path(__file__).resolve().parent.parent
LARGEST_SHOWN = 8


def pip(*arguments: str) -> None:
    """Run this environment's pip, quietly; its failure is ours."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, stderr=sys.stderr, stdout=subprocess.DEVNULL)


def install(target: Path, wheels: Path) -> None:
    """Unpack the locked base and the wheel of this working tree into *target*."""
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT))
    (wheel,) = wheels.glob("comptoir-*.whl")
    into = ("install", "--quiet", "--no-deps", "--no-compile", "--target", str(target))
    pip(*into, "--require-hashes", "--requirement", str(ROOT / "requirements" / "base.txt"))
    pip(*into, str(wheel))


def sizes(target: Path) -> dict[str, int]:
    """Return bytes by top-level entry of *target*, largest first."""
    found = {
        entry.name: sum(file.stat().st_size for file in [entry, *entry.rglob("*")] if file.is_file())
        for entry in target.iterdir()
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def main() -> int:
    """Print the largest parts and the sum; return 1 when the sum is above the limit."""
    with tempfile.TemporaryDirectory(prefix="comptoir-size-") as scratch:
        target = Path(scratch) / "site"
        wheels = Path(scratch) / "wheels"
        install(target, wheels)
        found = sizes(target)
    for name, size in list(found.items())[:LARGEST_SHOWN]:
        print(f"{size / 1e6:8.2f} MB  {name}")
    total_mb = sum(found.values()) / 1e6
    print(f"{total_mb:8.2f} MB  in all, of {LIMIT_MB} MB allowed")
    return int(total_mb > LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
