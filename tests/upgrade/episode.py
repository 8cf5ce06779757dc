"""One upgrade: a post of old code under load, its programs replaced by new ones, and then everything that must be
true."""

import asyncio
import json
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from comptoir.receipts import PREDICATE_TYPE
from tests.chaos.books import Violation
from tests.chaos.buyers import Buyers
from tests.chaos.episode import until_over
from tests.chaos.logs import check_logs
from tests.chaos.model import Witness, check
from tests.chaos.plan import Order, Plan, draw
from tests.chaos.processes import Code
from tests.chaos.tables import Tables, read
from tests.chaos.wire import Seen
from tests.upgrade.stage import Replaced, Stage, set_up

DEEDS = {
    "sqlite-term": ("term",),
    "sqlite-kill": ("kill",),
    "postgres": ("term",) * 3,
    "postgres-kill": ("term", "kill", "term"),
}
"""How each coordinator of a topology is ended. Operators are told SIGTERM; a machine may die in the middle of an
upgrade, too.

What an old coordinator does when another dies is not for us to mend: `postgres-kill` is not among those that have to go
well.
"""

TOPOLOGIES = tuple(DEEDS)

ORDERS_MAX = 20_000
"""More than can be bought; the buyers stop when everything is replaced."""

EPISODE_S_MAX = 600.0
"""A bound against hanging."""

NOT_UNDERSTOOD = re.compile(
    r"this version does not know|broke the protocol|no message of the link|not a message of the link"
)
"""What either side logs of words that it does not know."""


@dataclass
class Outcome:
    """What one upgrade was and what was found."""

    topology: str
    seed: int
    replaced: list[Replaced] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)
    ways: Counter[str] = field(default_factory=Counter)
    """Orders that were accepted, by way."""
    cut: Counter[str] = field(default_factory=Counter)
    """Of those that had no trouble of their own and whose buyer waited on the line: how they ended, if not well."""
    receipts: Counter[str] = field(default_factory=Counter)
    """By version."""
    seconds: float = 0.0
    violations: list[Violation] = field(default_factory=list)
    folder: Path | None = None

    @property
    def jobs(self) -> int:
        return sum(self.states.values())


async def upgrade(topology: str, *, old: Code, new: Code, seconds: float, seed: int, keep: bool = False) -> Outcome:
    """Run one upgrade in a folder of its own, which is left behind only if something is wrong."""
    folder = _make_folder(topology)
    several = topology.startswith("postgres")
    plan = _plan(seed, several=several)
    outcome = Outcome(topology, seed)
    began = time.monotonic()
    try:
        async with (
            asyncio.timeout(EPISODE_S_MAX),
            set_up(folder, old=old, new=new, several=several, seed=seed) as stage,
        ):
            await _play(stage, plan, outcome, seconds=seconds)
    except BaseException:
        print(f"{topology}: broke off; see {folder}", flush=True)
        raise
    outcome.seconds = time.monotonic() - began
    if outcome.violations or keep:
        outcome.folder = folder
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _plan(seed: int, *, several: bool) -> Plan:
    """Draw the orders; none stalls until its lease runs out, which would take longer than an upgrade does."""
    plan = draw(seed, "cluster" if several else "sqlite", jobs=ORDERS_MAX, blows=0)
    for at, order in enumerate(plan.orders):
        if order.wanted.trouble == "stalls":
            plan.orders[at] = replace(order, wanted=msgspec.structs.replace(order.wanted, trouble=""))
    return plan


def _make_folder(topology: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"comptoir-upgrade-{topology}-"))
    # PostgreSQL runs as another user where we are root, and must reach its own folder in here.
    folder.chmod(0o755)
    return folder


async def _play(stage: Stage, plan: Plan, outcome: Outcome, *, seconds: float) -> None:
    buyers = Buyers(plan, stage.choose, keys=stage.keys, names=stage.names, admin_key=stage.admin_key)
    stage.began_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(buyers.play())
        new_since_ms = await _replace_all(stage, outcome, seconds=seconds)
        buyers.close()
    outcome.replaced = stage.replaced
    violations = outcome.violations
    for program in (*stage.coordinators, *stage.workers):
        if program.down():
            violations.append(Violation("programs live until they are replaced", "", f"see {program.log}"))
    outcome.states = await until_over(stage.database)
    for poller in stage.pollers:
        await poller.stop()
    for coordinator in stage.coordinators:
        await coordinator.stop()
        if coordinator.status:
            violations.append(
                Violation("a coordinator stops in order", "", f"{coordinator.name}: {coordinator.status}")
            )
    violations += await check(Witness(plan, buyers.seen, buyers.deposited, stage.accounts, {}), stage.database)
    tables = await asyncio.to_thread(read, stage.database)
    violations += lost(plan.orders, buyers.seen, tables)
    violations += old_receipts(tables, new_since_ms, outcome.receipts)
    violations += check_logs(stage.folder)
    violations += misunderstood(stage.folder)
    outcome.cut = Counter(cut_off(plan.orders, buyers.seen, tables))
    outcome.ways = Counter(plan.orders[seen.number].way for seen in buyers.seen if seen.accepted)


async def _replace_all(stage: Stage, outcome: Outcome, *, seconds: float) -> int:
    """Let old code work, replace the coordinators one by one, then the workers, then let the new work.

    Of several coordinators one worker is newer than all: workers are upgraded whenever their owners like.
    Returns the milliseconds since 1970 when the last old coordinator was gone.
    """
    await asyncio.sleep(seconds)
    workers = list(stage.workers)
    if len(stage.coordinators) > 1:
        await stage.replace(workers.pop(0), "term")
        await asyncio.sleep(seconds / 2)
    for coordinator, deed in zip(stage.coordinators, DEEDS[outcome.topology], strict=True):
        await stage.replace(coordinator, deed)
        # Old and new side by side; and new coordinators with old workers.
        await asyncio.sleep(seconds / len(stage.coordinators))
    new_since_ms = time.time_ns() // 1_000_000
    for worker in workers:
        await stage.replace(worker, "term")
        await asyncio.sleep(seconds / len(stage.workers) / 2)
    await asyncio.sleep(seconds / 2)
    return new_since_ms


def lost(orders: list[Order], seen: Iterable[Seen], tables: Tables) -> Iterator[Violation]:
    """Yield the accepted orders that nobody has to stay connected for, that asked for no trouble, and were not
    answered."""
    states = {job["id"]: job["state"] for job in tables.rows["jobs"]}
    for one in seen:
        order = orders[one.number]
        if (
            not one.accepted
            or order.way not in ("detached", "chain")
            or order.habit == "cancels"
            or order.wanted.trouble
        ):
            continue
        job = one.job.removeprefix("job_")
        if states.get(job) != "completed":
            yield Violation("no job is lost", job, f"order {one.number} ({order.way}) is {states.get(job, 'unknown')}")


def cut_off(orders: list[Order], seen: Iterable[Seen], tables: Tables) -> Iterator[str]:
    """Yield way and error of the answers that a buyer waited for on the line, and that were not answered without their
    doing."""
    jobs = {job["id"]: job for job in tables.rows["jobs"]}
    for one in seen:
        order, job = orders[one.number], jobs.get(one.job.removeprefix("job_"))
        if job is None or order.way in ("detached", "chain") or order.habit == "hangs-up" or order.wanted.trouble:
            continue
        if job["state"] != "completed":
            yield f"{order.way} {job['error_code'] or job['state']}"


def old_receipts(tables: Tables, new_since_ms: int, versions: Counter[str]) -> Iterator[Violation]:
    """Count the receipts by version, and yield those that new code alone could have written and that are of another
    than its."""
    for receipt in tables.rows["receipts"]:
        statement = json.loads(bytes(receipt["payload"]))
        version = statement["predicateType"]
        versions[version] += 1
        if statement["predicate"]["times"]["settled_ms"] > new_since_ms and version != PREDICATE_TYPE:
            yield Violation("new code writes receipts of its own version", receipt["job_id"], version)


def misunderstood(folder: Path) -> Iterator[Violation]:
    """Yield the first line of each log in which a program says that it did not understand another."""
    for path in sorted(folder.glob("*.log")):
        with path.open(errors="replace") as lines:
            line = next((line for line in lines if NOT_UNDERSTOOD.search(line)), "")
        if line:
            yield Violation("old and new understand each other", "", f"{path.name}: {line.strip()[:300]}")
