"""The long form: ``python -m tests.chaos``, episode after episode, each from its seed; see docs/chaos.md."""

import argparse
import asyncio
import sys

from tests.chaos.episode import Outcome, run_episode
from tests.chaos.plan import TOPOLOGIES, draw

EPISODE_JOBS = 600
EPISODE_BLOWS = 26


def main() -> int:
    """Run as many episodes as it takes; print a line for each and a table at the end; 1 if anything was wrong."""
    asked = _arguments()
    outcomes: list[Outcome] = []
    seed = asked.seed
    topologies = asked.topology.split(",")
    while (
        not outcomes
        or sum(one.jobs for one in outcomes) < asked.jobs
        or sum(one.kills for one in outcomes) < asked.kills
    ):
        topology = topologies[len(outcomes) % len(topologies)]
        plan = draw(
            seed,
            topology,
            jobs=asked.episode_jobs,
            blows=asked.episode_blows,
            marked=not asked.unmarked,
            hostile=not asked.honest,
        )
        outcome = asyncio.run(run_episode(plan))
        outcomes.append(outcome)
        _tell(outcome)
        seed += 1
    _table(outcomes)
    return 1 if any(one.violations for one in outcomes) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs to see at least, over all episodes")
    parser.add_argument("--kills", type=int, default=200, help="kills to deal at least, over all episodes")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first episode; the next ones count up")
    parser.add_argument("--topology", default=",".join(TOPOLOGIES), help="one or several of: " + ", ".join(TOPOLOGIES))
    parser.add_argument("--episode-jobs", type=int, default=EPISODE_JOBS, help="orders of one episode")
    parser.add_argument("--episode-blows", type=int, default=EPISODE_BLOWS, help="blows of one episode")
    parser.add_argument("--unmarked", action="store_true", help="let every run of an order say the same")
    parser.add_argument("--honest", action="store_true", help="no hostile hosts among the others")
    return parser.parse_args()


def _tell(outcome: Outcome) -> None:
    plan = outcome.plan
    struck = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.struck.items()))
    print(f"{plan.summary()}: {outcome.jobs} jobs {outcome.states}, {outcome.seconds:.1f} s; {struck}", flush=True)
    if outcome.given:
        print("  given to hostile hosts: " + ", ".join(f"{deed} {count}" for deed, count in outcome.given.items()))
    for violation in outcome.violations:
        print(f"  VIOLATION (seed {plan.seed}) {violation}", flush=True)
    if outcome.violations:
        size = f"--jobs 1 --kills 0 --episode-jobs {len(plan.orders)} --episode-blows {len(plan.blows)}"
        again = f"--seed {plan.seed} --topology {plan.topology} {size}{'' if plan.hostile else ' --honest'}"
        print(f"  left in {outcome.folder}; again: python -m tests.chaos {again}", flush=True)


def _table(outcomes: list[Outcome]) -> None:
    kinds = sorted({kind for one in outcomes for kind in one.struck})
    for kind in kinds:
        print(f"{kind:20} {sum(one.struck.get(kind, 0) for one in outcomes):6}")
    total = (
        sum(one.jobs for one in outcomes),
        sum(one.kills for one in outcomes),
        sum(one.seconds for one in outcomes),
    )
    wrong = sum(len(one.violations) for one in outcomes)
    print("{} episodes, {} jobs, {} kills, {:.0f} s, {} violations".format(len(outcomes), *total, wrong))


if __name__ == "__main__":
    sys.exit(main())
