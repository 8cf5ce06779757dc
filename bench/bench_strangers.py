"""A market among strangers: 1,000 hosts, three in ten of them hostile, on the real dispatch, routing and ledger; and
the same run with the rules against them off.

Usage: ``PYTHONPATH=src:. python -m bench.bench_strangers [--hosts 1000] [--jobs 20000] [--seed 7]``

The honest hosts have traded for a while when the hostile ones come. Time is simulated, and so are hosts and buyers;
everything in between is the coordinator's own code over SQLite. A buyer asks once: whatever ends otherwise than with a
text is a failure. Costs are rents, in proportion to what a host needs: a fake without a GPU costs a twentieth.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from comptoir.app import open_core
from comptoir.dispatch import Core
from comptoir.dispatch.expire import sweep
from comptoir.dispatch.onboard import add_host, add_user
from comptoir.dispatch.stream import complete, fail, take_frames
from comptoir.dispatch.submit import Order, submit
from comptoir.hosts import DONE, FAILED, LINK, LOST, PROVEN, NewHost
from comptoir.hosts.reputation import START, Reputation
from comptoir.jobs import Fault, JobState, Lease, LiveJob
from comptoir.kit.clock import FakeClock
from comptoir.kit.errors import Refusal
from comptoir.link import Frame, ModelOffer, Usage
from comptoir.routing import Needs
from comptoir.settings import Settings

MODEL = "m"
TOKENS = 20
TEXT = "a word or two, and then " * 4
MARKET_UUSD_PER_MTOK = 10_000_000
"""An answer costs 200 micro-dollars at the market's price."""
JOBS_A_ROUND = 40
RENT_MILLI_PER_ROUND, FAKE_RENT_MILLI_PER_ROUND = 3_000, 150
"""Rent of a machine that can answer, in thousandths of a micro-dollar, so that honest hosts earn about twice theirs all
together; and of one that only pretends."""
HONEST_FAILS = 0.004
"""Share of honest attempts that fail by themselves."""
FRIENDS, FRIENDS_JOBS = 4, 8
"""Accounts that buy from a host which farms its name, and the jobs of each."""
POISON_SHARE = 0.02
"""Share of jobs from buyers whose jobs make honest hosts fail."""


@dataclass(frozen=True)
class Way:
    """A way to be a host."""

    name: str
    acts: str
    """What it does with a job: a letter each for answer, fail, blame the buyer (x), busy, silence, empty, overclaim,
    drawn at random."""
    price: float
    """Of the market's."""
    farms: bool = False
    one_owner: bool = False
    washes: bool = False
    """Whether it registers anew once it is distrusted."""


HOSTILE = (
    Way("blames the buyer", "x", 0.0),
    Way("fails", "f", 0.3),
    Way("captures, always busy", "b", 0.0),
    Way("stalls in silence", "s", 0.3),
    Way("answers nothing", "e", 0.0),
    Way("overclaims", "o", 0.3),
    Way("farms, then blames", "x", 0.3, farms=True),
    Way("farms, then fails and stalls", "fs", 0.3, farms=True),
    Way("farms, fails one in three", "aaf", 0.3, farms=True),
    Way("one owner's, blame and fail", "xf", 0.0, one_owner=True),
    Way("washes its name", "fxs", 0.3, washes=True),
)
HONEST = Way("honest", "a", 1.0)


@dataclass(eq=False)
class SimHost:
    """One host; also its line."""

    world: "World"
    way: Way
    owner_id: bytes
    id: bytes = b""
    attempts: int = 0
    """Jobs that strangers gave it."""
    until_out: int | None = None
    """How many of them it had been given when it was first distrusted."""
    rent_milli: int = 0
    """Thousandths of a micro-dollar."""
    farm_uusd: int = 0
    """What its friends paid."""

    def send_job(self, job: LiveJob, lease: Lease) -> bool:
        self.world.inbox.append((self, job, lease))
        return True

    def raise_bound(self, job: LiveJob, lease: Lease) -> None:
        """It does not listen."""

    def cancel(self, lease: Lease, reason: str) -> None:
        """It does not listen."""

    def turn_away(self, reason: str, *, for_good: bool) -> None:
        """Nobody does that here."""

    def settled(self, job: LiveJob, lease: Lease, **told: Any) -> None:
        """It reads the ledger."""


def by_age(given: tuple[SimHost, LiveJob, Lease]) -> bytes:
    """Return what orders jobs by when they were bought."""
    return given[1].id


@dataclass
class Result:
    """What one run showed."""

    asked: int = 0
    served: int = 0
    rounds: list[int] = field(default_factory=list)
    """How long the served ones took."""
    ends: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    until_out: dict[str, list[int]] = field(default_factory=dict)
    jobs_each: list[int] = field(default_factory=list)
    """Jobs that each hostile host was given, under all its names."""
    earned_uusd: Counter[str] = field(default_factory=Counter)
    cost_uusd: Counter[str] = field(default_factory=Counter)
    still_in: Counter[str] = field(default_factory=Counter)
    honest_proven: int = 0
    honest_blamed: int = 0
    """Honest hosts that stand below where everybody starts."""
    seconds: float = 0.0

    @property
    def success(self) -> float:
        return self.served / max(1, self.asked)

    def per_cost(self, hostile: bool) -> float:
        names = [name for name in self.cost_uusd if (name != HONEST.name) is hostile]
        return sum(self.earned_uusd[n] for n in names) / max(1e-9, sum(self.cost_uusd[n] for n in names))

    def until_out_of(self, hostile: list[str]) -> list[int]:
        return sorted(n for name in hostile for n in self.until_out.get(name, []))


class World:
    """Hosts and buyers around one coordinator."""

    def __init__(self, core: Core, clock: FakeClock, *, seed: int, result: Result) -> None:
        self.core, self.clock, self.result = core, clock, result
        self.rng = random.Random(seed)
        self.hosts: list[SimHost] = []
        self.inbox: list[tuple[SimHost, LiveJob, Lease]] = []
        self.writing: list[tuple[SimHost, LiveJob, Lease]] = []
        """Jobs whose answer has begun and is ended in the next round."""
        self.open: list[tuple[LiveJob, int]] = []
        self.buyers: list[bytes] = []
        self.poisoners: list[bytes] = []
        self.gone: list[SimHost] = []
        """Hosts that came again under another name."""
        self.round = 0
        self.counting = False

    async def join(self, ways: list[Way]) -> None:
        """Let a host of each of *ways* register and link."""
        gang = {way.name: self.new_id() for way in ways if way.one_owner}
        fresh = [SimHost(self, way, gang.get(way.name) or self.new_id()) for way in ways]
        for first in range(0, len(fresh), 100):
            await asyncio.gather(*map(self.register, fresh[first : first + 100]))
        self.hosts += fresh

    async def register(self, host: SimHost) -> None:
        price = round(MARKET_UUSD_PER_MTOK * host.way.price * self.rng.uniform(0.7, 1.4))
        offer = ModelOffer(MODEL, ["chat"], 100_000, 0, price, can_continue=True)
        new = NewHost(gpu="x", models=(offer,), slots=2, transport=LINK, owner_id=host.owner_id)
        host.id = (await add_host(self.core, new, host_id=self.new_id())).host_id
        self.core.channels[host.id] = host
        self.core.fleet.mark_linked(host.id)

    async def people(self, count: int, name: str, *, each_uusd: int = 10**9) -> list[bytes]:
        """Make buyers with money of their own."""
        made = []
        for n in range(count):
            made.append(self.new_id())
            await add_user(
                self.core, username=f"{name}-{n}", email=None, password=None, credit_uusd=0, user_id=made[-1]
            )
            await self.core.ledger.deposit(owner_id=made[-1], amount_uusd=each_uusd)
        return made

    def new_id(self) -> bytes:
        """Return an id that is the same in every run: into which group a buyer falls depends on it."""
        return self.rng.randbytes(16)

    # -- buying --------------------------------------------------------------------------------------------------

    async def buy(self, buyer: bytes, needs: Needs | None = None) -> LiveJob | None:
        try:
            return await submit(self.core, Order(buyer, "sim", "chat", MODEL, b"{}", TOKENS, True, needs=needs))
        except Refusal as refusal:
            if self.counting and buyer not in self.poisoners:
                self.result.asked += 1
                self.result.ends[type(refusal).__name__] += 1
            return None

    async def have(self, accounts: list[bytes]) -> int:
        """Return what *accounts* have together, in micro-dollars."""
        return sum([account.balance_uusd for account in (await self.core.ledger.accounts(accounts)).values()])

    async def farm(self, host: SimHost, friends: list[bytes]) -> None:
        """Buy a good name for *host* from its friends, at the market's price."""
        only = Needs(allow=frozenset({host.id}))
        before = await self.have(friends)
        for _ in range(FRIENDS_JOBS):
            for friend in friends:
                job = await self.buy(friend, only)
                taken = [entry for entry in self.inbox if entry[1] is job]
                self.inbox = [entry for entry in self.inbox if entry[1] is not job]
                for _, job, _ in taken:
                    take_frames(self.core, job, 0, [Frame(TEXT, TOKENS)])
                    await complete(self.core, job, finish_reason="stop", usage=Usage(0, TOKENS))
        after = await self.have(friends)
        host.farm_uusd += before - after

    async def turn(self, *, buys: int) -> None:
        """One second: answers end, orders come, hosts act, silence is noticed."""
        core = self.core
        self.round += 1
        for host in self.hosts:
            host.rent_milli += RENT_MILLI_PER_ROUND if "a" in host.way.acts else FAKE_RENT_MILLI_PER_ROUND
            core.fleet.seen(host.id)
        ending, self.writing = sorted(self.writing, key=by_age), []
        await asyncio.gather(*[self.finish(*entry) for entry in ending])
        who = [
            self.rng.choice(self.poisoners if self.rng.random() < POISON_SHARE else self.buyers) for _ in range(buys)
        ]
        for job in await asyncio.gather(*map(self.buy, who)):
            if job is not None:
                self.open.append((job, self.round))
        for _ in range(12):
            given, self.inbox = self.inbox, []
            if not given:
                break
            await asyncio.gather(*[self.act(*entry) for entry in sorted(given, key=by_age)])
            await core.background.drain_tasks()
        self.clock.advance(seconds=1)
        await sweep(core)
        self.count()

    def count(self) -> None:
        """Count the jobs that are over."""
        still = []
        for job, since in self.open:
            if not job.over:
                still.append((job, since))
            elif self.counting and job.owner_id not in self.poisoners:
                good = job.state is JobState.COMPLETED and any(frame.text for frame in job.frames)
                self.result.asked += 1
                self.result.served += good
                self.result.ends["answered" if good else job.error_code or f"{job.state} empty"] += 1
                if good:
                    self.result.rounds.append(self.round - since)
        self.open = still

    # -- hosts ---------------------------------------------------------------------------------------------------

    async def act(self, host: SimHost, job: LiveJob, lease: Lease) -> None:
        """Let *host* do with a job what hosts of its way do."""
        if job.lease is not lease or job.closing:
            return
        core, act = self.core, self.rng.choice(host.way.acts)
        if self.counting:
            host.attempts += 1
            self.result.attempts[host.way.name] += 1
            hostile = host.way is not HONEST and host.until_out is None
            if hostile and core.fleet.explain_reputation(host.id).score < PROVEN:
                host.until_out = host.attempts - 1
        poisoned = host.way is HONEST and job.owner_id in self.poisoners
        if act == "a" and (poisoned or self.rng.random() < HONEST_FAILS):
            act = "f"
        match act:
            case "a":
                # It goes on after what another may have sent.
                take_frames(core, job, len(job.frames), [Frame(TEXT, TOKENS // 2)])
                self.writing.append((host, job, lease))
            case "f":
                await fail(core, job, code="engine_failed", message="no", fault=Fault.HOST)
            case "x":
                await fail(core, job, code="bad_request", message="no", fault=Fault.BUYER, status=400)
            case "b":
                await fail(core, job, code="engine_busy", message="no", fault=Fault.CAPACITY, status=429)
            case "e":
                await complete(core, job, finish_reason="stop", usage=Usage())
            case "o":
                take_frames(core, job, len(job.frames), [Frame("", TOKENS)])
                await complete(core, job, finish_reason="stop", usage=Usage(2**31 - 1, TOKENS))

    async def finish(self, host: SimHost, job: LiveJob, lease: Lease) -> None:
        """Let *host* end an answer that it began."""
        if job.lease is lease and not job.closing:
            take_frames(self.core, job, len(job.frames), [Frame(TEXT, TOKENS // 2)])
            await complete(self.core, job, finish_reason="stop", usage=Usage(0, job.segment_count))

    async def wash(self) -> None:
        """Let hosts that wash their names, and are distrusted, come again with new ones."""
        fleet = self.core.fleet
        for host in [host for host in self.hosts if host.way.washes]:
            if fleet.explain_reputation(host.id).score < START and not fleet.get(host.id).slots.running:
                del self.core.channels[host.id]
                fleet.unlinked(host.id)
                self.gone.append(host)
                self.hosts.remove(host)
                again = SimHost(self, host.way, host.owner_id, attempts=host.attempts, until_out=host.until_out)
                await self.register(again)
                self.hosts.append(again)


# -- without the rules -------------------------------------------------------------------------------------------------


def _old_note(self: Reputation, outcome: str, now_ms: int, **_: Any) -> None:
    """Every answer counts one, whoever bought it, for whatever."""
    self.decay(now_ms)
    good, bad = self.groups.get(0, (0.0, 0.0))
    self.groups[0] = good + (outcome == DONE), bad + {FAILED: 2.0, LOST: 4.0}.get(outcome, 0.0)
    self._sum()


@contextmanager
def without_rules() -> Iterator[None]:
    """Reputation counts answers, one host's "bad request" ends a job, newcomers and busy hosts get what they are cheap
    enough for, the first host's price is the cap, and a new name is a new host."""
    with ExitStack() as stack:
        for where, name, to in (
            ("comptoir.hosts.reputation.Reputation", "note", _old_note),
            ("comptoir.hosts.reputation.Reputation", "take_over", lambda self, other: None),
            ("comptoir.dispatch.stream", "is_believed", lambda core, job, host_id: True),
            ("comptoir.dispatch.stream", "pass_over_busy", lambda core, host_id: None),
            ("comptoir.dispatch.assign", "kept_from_newcomers", lambda core, job, spec: spec),
            ("comptoir.dispatch.assign", "price_cap_uusd", lambda job, part: part.hold_uusd),
            ("comptoir.routing.freelist", "PROVEN_REPUTATION", -1.0),
        ):
            stack.enter_context(patch(f"{where}.{name}", to))
        yield


# -- running -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(folder: Path, *, seed: int, result: Result) -> AsyncIterator[World]:
    """Open a coordinator in *folder*, with a market around it."""
    clock = FakeClock(now_ms=time.time_ns() // 1_000_000)
    # What waits for a moment waits for the simulated one.
    setattr(asyncio.get_running_loop(), "time", clock.monotonic_s)  # noqa: B010 (a method)
    settings = Settings(data=str(folder / "data"), jobs_per_buyer_max=10_000)
    async with open_core(settings, clock=clock) as core:
        world = World(core, clock, seed=seed, result=result)
        yield world


def hostile_ways(count: int) -> list[Way]:
    """Return *count* hostile ways, each as often as any other."""
    return [HOSTILE[n % len(HOSTILE)] for n in range(count)]


async def play(folder: Path, *, hosts: int, jobs: int, seed: int) -> Result:
    """Run the market: honest trade first, then the hostile hosts come, and what happens from then on is counted."""
    result, began = Result(), time.perf_counter()
    hostile = hosts * 3 // 10
    async with opened(folder, seed=seed, result=result) as world:
        world.buyers = await world.people(max(20, hosts // 5), "buyer")
        world.poisoners = await world.people(max(2, hosts // 50), "poison")
        await world.join([HONEST] * (hosts - hostile))
        for _ in range(max(10, jobs // JOBS_A_ROUND // 4)):
            await world.turn(buys=JOBS_A_ROUND)
        await world.join(hostile_ways(hostile))
        farmers = [host for host in world.hosts if host.way.farms]
        friends = await world.people(FRIENDS * 4, "friend")
        for number, host in enumerate(farmers):
            await world.farm(host, friends[number % 4 :: 4])
        before = {host.id: (await world.core.ledger.account(host.id)).balance_uusd for host in world.hosts}
        for host in world.hosts:
            host.rent_milli = 0
        world.counting = True
        for number in range(jobs // JOBS_A_ROUND):
            await world.turn(buys=JOBS_A_ROUND)
            if number % 10 == 9:
                await world.wash()
        for _ in range(70):
            await world.turn(buys=0)
        await tell(world, before)
    result.seconds = time.perf_counter() - began
    return result


async def tell(world: World, before: dict[bytes, int]) -> None:
    """Add up what hosts earned from strangers, what they cost, and how they stand."""
    result = world.result
    for host in world.hosts + world.gone:
        name = host.way.name
        balance = (await world.core.ledger.account(host.id)).balance_uusd
        # What friends paid came back, but for the fee, and is no income.
        result.earned_uusd[name] += balance - before.get(host.id, 0)
        farmed = before.get(host.id, 0) if host.way.farms else 0
        result.cost_uusd[name] += host.rent_milli // 1000 + host.farm_uusd - farmed
        score = world.core.fleet.explain_reputation(host.id).score
        if host.way is HONEST:
            result.honest_proven += score >= PROVEN
            result.honest_blamed += score < START
        elif host in world.hosts:
            result.jobs_each.append(host.attempts)
            result.still_in[name] += score >= PROVEN
            if host.until_out is not None:
                result.until_out.setdefault(name, []).append(host.until_out)


def run(*, hosts: int, jobs: int, seed: int, rules: bool = True) -> Result:
    """Play one market in a folder of its own."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="strangers-", dir=memory) as folder, ExitStack() as stack:
        if not rules:
            stack.enter_context(without_rules())
        return asyncio.run(play(Path(folder), hosts=hosts, jobs=jobs, seed=seed))


def table(on: Result, off: Result) -> list[str]:
    """Return the two runs beside each other."""
    names = [way.name for way in HOSTILE]
    farmed = [way.name for way in HOSTILE if way.farms]

    def row(what: str, of: Callable[[Result], str]) -> str:
        return f"{what:52} {of(on):>14} {of(off):>14}"

    def attempts(result: Result, name: str) -> str:
        return f"{100 * result.attempts[name] / max(1, sum(result.attempts.values())):.2f} %"

    def out(result: Result) -> str:
        return _of(result.until_out_of(farmed))

    lines = [
        f"{'':52} {'rules on':>14} {'rules off':>14}",
        row("honest buyers' jobs", lambda r: f"{r.asked:,}"),
        row("  answered with something", lambda r: f"{100 * r.success:.2f} %"),
        row("  seconds until answered, p50 and p99", lambda r: _times(r.rounds)),
        row("honest hosts: proven, below the start", lambda r: f"{r.honest_proven}, {r.honest_blamed}"),
        row("earned per cost, honest", lambda r: f"{r.per_cost(False):.2f}"),
        row("earned per cost, hostile", lambda r: f"{r.per_cost(True):.2f}"),
        row("hostile, with a farmed name: jobs until it is lost", out),
        row("hostile: jobs of each, p50 and most", lambda r: _of(r.jobs_each)),
        row("hostile: still trusted at the end", lambda r: str(sum(r.still_in.values()))),
        "share of attempts:",
        *[row(f"  {name}", lambda r, name=name: attempts(r, name)) for name in [HONEST.name, *names]],
        f"ends with rules: {dict(on.ends.most_common(8))}",
        f"ends without:    {dict(off.ends.most_common(8))}",
    ]
    return lines


def _of(counts: list[int]) -> str:
    return f"{statistics.median(counts):.0f}, {max(counts)}" if counts else "–"


def _times(rounds: list[int]) -> str:
    ordered = sorted(rounds)
    return f"{ordered[len(ordered) // 2]}, {ordered[len(ordered) * 99 // 100]}" if ordered else "–"


def main() -> int:
    """Play both markets and print them; 1: the rules do not hold what they promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    on = run(hosts=args.hosts, jobs=args.jobs, seed=args.seed)
    off = run(hosts=args.hosts, jobs=args.jobs, seed=args.seed, rules=False)
    print(f"{args.hosts} hosts, {args.jobs} jobs, seed {args.seed}: {on.seconds:.0f} s and {off.seconds:.0f} s")
    print("\n".join(table(on, off)))
    return int(on.success < 0.995 or on.per_cost(True) >= on.per_cost(False))


if __name__ == "__main__":
    sys.exit(main())
