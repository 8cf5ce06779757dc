"""Run the benchmarks one after the other, each in a process of its own, and keep what they print in bench/out.

``make bench`` runs them all, ``make bench ARGS="rank receipt"`` the ones named. The exit status is 1 when one failed.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE / "out"


def names() -> list[str]:
    """Return what can be measured: the part after ``bench_`` of each module here."""
    return sorted(file.stem.removeprefix("bench_") for file in HERE.glob("bench_*.py"))


def run(name: str) -> bool:
    """Run one benchmark, showing and keeping its lines as they come; return whether it succeeded."""
    print(f"\n== {name}", flush=True)
    path = os.pathsep.join([str(HERE.parent / "src"), str(HERE.parent)])
    command = [sys.executable, "-u", "-m", f"bench.bench_{name}"]
    with (
        (OUT / f"{name}.txt").open("w") as kept,
        subprocess.Popen(
            command, cwd=HERE.parent, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            kept.write(line)
    if process.returncode:
        print(f"{name} failed with status {process.returncode}", file=sys.stderr)
    return process.returncode == 0


def main(wanted: list[str]) -> int:
    """Run the *wanted* benchmarks, or all."""
    unknown = set(wanted) - set(names())
    if unknown:
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    OUT.mkdir(exist_ok=True)
    failed = [name for name in wanted or names() if not run(name)]
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
