"""One episode: set the stage, let buyers buy and the killer kill, wait until everything is over, and check what must be
true."""

import asyncio
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.books import Violation
from tests.chaos.buyers import Buyers
from tests.chaos.killer import Killer
from tests.chaos.logs import check_logs
from tests.chaos.model import Witness, check
from tests.chaos.plan import KILLS, Plan
from tests.chaos.stage import Stage, set_up
from tests.chaos.tables import count_states

OVER_S_MAX = 180.0
"""How long jobs may take to end when nobody buys and nothing is struck any more; leases and deadlines are far
shorter."""

EPISODE_S_MAX = 900.0
"""A bound against hanging."""


@dataclass
class Outcome:
    """What an episode was and what it found."""

    plan: Plan
    jobs: int = 0
    states: dict[str, int] = field(default_factory=dict)
    struck: dict[str, int] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    """Jobs that each hostile host was given."""
    seconds: float = 0.0
    violations: list[Violation] = field(default_factory=list)
    folder: Path | None = None
    """Where everything lies, when there are violations."""

    @property
    def kills(self) -> int:
        return sum(count for kind, count in self.struck.items() if kind in KILLS)


async def run_episode(plan: Plan) -> Outcome:
    """Run *plan* in a folder of its own, which is left behind only if something is wrong."""
    folder = _make_folder(plan)
    outcome = Outcome(plan)
    began = time.monotonic()
    try:
        async with asyncio.timeout(EPISODE_S_MAX), set_up(plan, folder) as stage:
            await _play(stage, outcome)
    except BaseException:
        print(f"{plan.summary()}: broke off; see {folder}", flush=True)
        raise
    outcome.seconds = time.monotonic() - began
    if outcome.violations:
        outcome.folder = folder
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _make_folder(plan: Plan) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"comptoir-chaos-{plan.topology}-{plan.seed}-"))
    # PostgreSQL runs as another user where we are root, and must reach its own folder in here.
    folder.chmod(0o755)
    return folder


async def _play(stage: Stage, outcome: Outcome) -> None:
    plan = stage.plan
    buyers = Buyers(plan, stage.choose, keys=stage.keys, names=stage.names, admin_key=stage.admin_key)
    killer = Killer(stage, buyers)
    async with asyncio.TaskGroup() as group:
        group.create_task(killer.run())
        group.create_task(buyers.play())
    outcome.struck = killer.struck
    violations = outcome.violations
    for part in stage.parts:
        if part.down():
            violations.append(
                Violation("processes live until they are struck", "", f"{part.name} ended by itself; see {part.log}")
            )
    database = stage.database or str(stage.folder / "data" / "comptoir.db")
    outcome.states = await until_over(database)
    outcome.jobs = sum(outcome.states.values())
    for host in (*stage.pollers, *stage.hostile):
        await host.stop()
    # In order, so that what is written behind is written; the books are read when nobody writes any more.
    for coordinator in stage.coordinators:
        await coordinator.process.stop()
        if coordinator.process.status:
            facts = f"{coordinator.process.name} ended with {coordinator.process.status}"
            violations.append(Violation("a coordinator stops in order", "", facts))
    hostile = {one.host_id.removeprefix("host_"): one.deed for one in stage.hostile}
    outcome.given = {one.deed: one.given for one in stage.hostile}
    witness = Witness(plan, buyers.seen, buyers.deposited, stage.accounts, hostile)
    violations += await check(witness, database)
    violations += check_logs(stage.folder)
    _write_report(stage, buyers, outcome)


async def until_over(database: str) -> dict[str, int]:
    """Wait until no job is open, or `OVER_S_MAX`; return how many jobs are in which state, with why."""
    deadline = time.monotonic() + OVER_S_MAX
    while True:
        states = await asyncio.to_thread(count_states, database)
        if not states.keys() & {"queued", "running"} or time.monotonic() > deadline:
            return states
        await asyncio.sleep(0.25)


def _write_report(stage: Stage, buyers: Buyers, outcome: Outcome) -> None:
    """Leave beside the logs what clients saw and what is wrong."""
    lines = [stage.plan.summary(), *(f"blow: {blow}" for blow in stage.plan.blows)]
    lines += [f"violation: {violation}" for violation in outcome.violations]
    lines += [f"{stage.plan.orders[seen.number]}\n  {seen}" for seen in buyers.seen]
    (stage.folder / "report.txt").write_text("\n".join(lines))
