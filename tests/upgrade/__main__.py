"""Upgrades from an earlier commit under load: ``make upgrade-proof FROM=REV``; see docs/operating.md."""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Mapping

from tests.chaos.processes import TODAY
from tests.upgrade.episode import TOPOLOGIES, Outcome, upgrade
from tests.upgrade.revision import build, found_at


def main() -> int:
    """Upgrade each topology; print a table of each; 1 if anything was wrong."""
    asked = _arguments()
    old = found_at(asked.python) if asked.python else build(asked.rev)
    print(f"from {asked.rev or asked.python} ({old.root}) to {TODAY.root}", flush=True)
    wrong, began = 0, time.monotonic()
    for number, topology in enumerate(asked.topology):
        run = upgrade(topology, old=old, new=TODAY, seconds=asked.seconds, seed=asked.seed + number, keep=asked.keep)
        outcome = asyncio.run(run)
        print("\n".join(table(outcome)), flush=True)
        wrong += len(outcome.violations)
    print(f"{len(asked.topology)} upgrades, {time.monotonic() - began:.0f} s, {wrong} violations", flush=True)
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.upgrade", description=__doc__)
    parser.add_argument("--from", dest="rev", default="", help="the commit to upgrade from; built once")
    parser.add_argument("--python", default="", help="the interpreter of a ready environment of it instead")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each stretch of an upgrade lasts")
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the first upgrade's orders; the next ones count up"
    )
    parser.add_argument(
        "--topology", default="sqlite,postgres", help="one or several of: sqlite, " + ", ".join(TOPOLOGIES)
    )
    parser.add_argument("--keep", action="store_true", help="leave logs and database behind when nothing is wrong, too")
    asked = parser.parse_args()
    if not (asked.rev or asked.python):
        parser.error("say what to upgrade from: --from REV, or --python PATH")
    asked.topology = named(asked.topology)
    if unknown := set(asked.topology) - set(TOPOLOGIES):
        parser.error(f"no such topology: {', '.join(sorted(unknown))}")
    return asked


def named(topologies: str) -> list[str]:
    """Return the topologies that are asked for, in order; ``sqlite`` is both ways of ending its coordinator."""
    both = {"sqlite": ("sqlite-term", "sqlite-kill")}
    return [each for name in topologies.split(",") for each in both.get(name, (name,))]


def table(outcome: Outcome) -> list[str]:
    """Return what an upgrade was, line by line."""
    lines = [f"\n{outcome.topology}, seed {outcome.seed}: {outcome.jobs} jobs in {outcome.seconds:.0f} s"]
    lines.append(f"  {'replaced':14}{'by':>6}{'at s':>8}{'down s':>8}{'waiting':>9}{'running':>9}")
    lines += [
        f"  {one.name:14}{one.deed:>6}{one.at_s:8.1f}{one.down_s:8.2f}{one.queued:9}{one.running:9}"
        for one in outcome.replaced
    ]
    lines.append(f"  bought    {_said(outcome.ways)}")
    lines.append(f"  ended     {_said(outcome.states)}")
    lines.append(f"  cut off   {_said(outcome.cut) or 'none'}: their buyers were on the line, and told")
    lines.append(f"  receipts  {_said(outcome.receipts)}, all verified offline")
    lines += [f"  VIOLATION {violation}" for violation in outcome.violations]
    if not outcome.violations:
        lines.append("  books exact, no job lost")
    if outcome.folder is not None:
        lines.append(f"  left in {outcome.folder}")
    return lines


def _said(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(Counter(counts).items()))


if __name__ == "__main__":
    sys.exit(main())
