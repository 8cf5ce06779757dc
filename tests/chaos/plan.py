"""What one episode does, drawn from its seed alone: who buys what and how, and which blow falls when.

A blow falls when a number of orders has begun, not at a time of day, so the same seed gives the same schedule on a slow
machine.
"""

import random
from dataclasses import dataclass, field

from tests.chaos.engine import Wanted, tokens_in

TOPOLOGIES = ("sqlite", "postgres", "cluster")

BUYERS = 6
CREDIT_UUSD = 2_000_000_000
"""Credit of a buyer: more than an episode's orders can hold at once."""

POOR_CREDIT_UUSD = 30_000
"""Credit of the last buyer, who lives on deposits and is often refused."""

WORKERS = 3
SLOTS = 8

WAYS = (
    ("detached", 34),  # Infrintia: POST /run/model, then the stream
    ("streamed", 16),  # OpenAI, stream, nobody can ask again: hanging up cancels
    ("whole", 10),  # OpenAI, not streamed
    ("streamed-again", 16),  # OpenAI with an Idempotency-Key, asked again until it ends
    ("whole-again", 10),
    ("chain", 8),  # Infernet: POST /api/jobs, up to three containers in a row
)
HABITS = {
    # How the client of each way behaves, and how often.
    "detached": (("follows", 40), ("reconnects", 30), ("cancels", 12), ("leaves", 8), ("comes-late", 10)),
    "streamed": (("follows", 70), ("hangs-up", 30)),
    "whole": (("follows", 85), ("hangs-up", 15)),
    "streamed-again": (("follows", 60), ("reconnects", 40)),
    "whole-again": (("follows", 100),),
    "chain": (("follows", 80), ("leaves", 20)),
}
TROUBLES = (("", 88), ("fails", 4), ("busy", 3), ("refuses", 2), ("stalls", 3))

BLOWS = {
    "sqlite": (
        ("coordinator-kill", 26), ("coordinator-pause", 8), ("coordinator-term", 8), ("worker-kill", 20), ("worker-pause", 6),
        ("worker-term", 4), ("poller-kill", 4), ("link-cut", 5), ("link-drop", 4), ("link-delay", 4), ("link-double", 4),
        ("link-swap", 4), ("disk-full", 6), ("clock-jump", 5),
    ),
    "postgres": (
        ("coordinator-kill", 20), ("coordinator-pause", 6), ("coordinator-term", 6), ("worker-kill", 16), ("worker-pause", 5),
        ("worker-term", 3), ("poller-kill", 3), ("link-cut", 4), ("link-drop", 4), ("link-delay", 3), ("link-double", 3),
        ("link-swap", 3), ("postgres-kill", 8), ("postgres-pause", 6), ("backend-kill", 8), ("disk-full", 3), ("clock-jump", 4),
    ),
    "cluster": (
        ("coordinator-kill", 22), ("coordinator-pause", 8), ("coordinator-term", 6), ("worker-kill", 16), ("worker-pause", 5),
        ("worker-term", 3), ("poller-kill", 3), ("link-cut", 4), ("link-drop", 3), ("link-delay", 3), ("link-double", 3),
        ("link-swap", 3), ("postgres-kill", 5), ("postgres-pause", 4), ("backend-kill", 5), ("redis-kill", 6),
        ("redis-pause", 5), ("disk-full", 2), ("clock-jump", 4),
    ),
}  # fmt: skip
"""Kinds of blow in each topology with their weights."""

KILLS = ("coordinator-kill", "worker-kill", "poller-kill", "postgres-kill", "backend-kill", "redis-kill")
"""What ends a process with SIGKILL (a polling host is a task of ours: it just stops)."""

HOUR_S = 3_600


@dataclass(frozen=True)
class Order:
    """One thing that one buyer does."""

    number: int
    buyer: int
    way: str
    habit: str
    wanted: Wanted
    after: int
    """Frames after which the habit (hanging up, cancelling, reconnecting) takes hold."""
    keyed: bool
    """Whether it carries an Idempotency-Key."""
    dice: int
    """Seed of what its client chooses on the way."""

    @property
    def max_tokens(self) -> int:
        return tokens_in(0, self.wanted.frames)


@dataclass(frozen=True)
class Deposit:
    """Money that an operator credits; its amount is its name."""

    number: int
    buyer: int
    amount_uusd: int


@dataclass(frozen=True)
class Blow:
    """One thing that goes wrong."""

    at_order: int
    """It falls when this many orders have begun."""
    kind: str
    target: int
    """Which of several; taken modulo how many there are."""
    for_s: float
    """How long the victim stays down, stopped or disturbed."""
    amount: int = 0
    """Messages spared before a disturbed one; seconds that a clock jumps."""

    def __str__(self) -> str:
        return f"{self.kind}[{self.target}] at order {self.at_order} for {self.for_s:.2f} s ({self.amount})"


@dataclass(frozen=True)
class Plan:
    """One episode."""

    seed: int
    topology: str
    orders: list[Order]
    deposits: list[Deposit]
    blows: list[Blow]
    coordinators: int = 1
    hostile: bool = True
    """Whether hostile hosts take the place of one honest worker."""
    prefix: str = field(default="")

    def summary(self) -> str:
        """Say it in one line."""
        hosts = "" if self.hostile else ", honest hosts"
        return f"seed {self.seed} {self.topology}: {len(self.orders)} orders, {len(self.blows)} blows{hosts}"


def draw(seed: int, topology: str, *, jobs: int, blows: int, marked: bool = True, hostile: bool = True) -> Plan:
    """Draw the plan of *seed*: *jobs* orders, a deposit for every twentieth, *blows* blows spread over them."""
    dice = random.Random(f"{topology}-{seed}-{jobs}-{blows}")
    prefix = f"s{seed}"
    orders = [_order(dice, prefix, number, marked=marked) for number in range(jobs)]
    deposits = [
        Deposit(number, dice.choice((BUYERS - 1, dice.randrange(BUYERS))), 10_000 * dice.randint(1, 9) + 100 * number)
        for number in range(1, jobs // 20 + 1)
    ]
    first, last = max(1, jobs // 20), max(2, jobs - jobs // 10)
    times = sorted(dice.randint(first, last) for _ in range(blows))
    struck = [_blow(dice, topology, at) for at in times]
    return Plan(seed, topology, orders, deposits, struck, 3 if topology == "cluster" else 1, hostile, prefix)


def _pick(dice: random.Random, weighted: tuple[tuple[str, int], ...]) -> str:
    return dice.choices([name for name, _ in weighted], [weight for _, weight in weighted])[0]


def _order(dice: random.Random, prefix: str, number: int, *, marked: bool) -> Order:
    way = _pick(dice, WAYS)
    habit = _pick(dice, HABITS[way])
    frames = dice.choice((1, 3, 8, 15, 30, 60, dice.randint(1, 120)))
    trouble = _pick(dice, TROUBLES)
    at = 0 if trouble in ("busy", "") else dice.choice((0, dice.randrange(frames)))
    wanted = Wanted(
        tag=f"{prefix}-{number}",
        frames=frames,
        per_s=dice.choice((0.0, 60.0, 150.0, 400.0)),
        trouble=trouble,
        at=at,
        marked=marked,
        runs=0 if trouble == "refuses" else dice.choice((1, 1, 2)),
    )
    keyed = way.endswith("-again") or (way in ("detached", "chain") and dice.random() < 0.6)
    return Order(
        number, dice.randrange(BUYERS), way, habit, wanted, dice.randint(0, frames), keyed, dice.getrandbits(32)
    )


def _blow(dice: random.Random, topology: str, at: int) -> Blow:
    kind = _pick(dice, BLOWS[topology])
    target = dice.randrange(60)
    for_s = round(dice.choice((0.0, 0.2, dice.uniform(0.1, 1.5), dice.uniform(0.5, 4.0))), 2)
    amount = 0
    if kind.startswith("link-"):
        amount = dice.choice((0, 1, 2, dice.randint(0, 30)))
    elif kind == "clock-jump":
        amount = dice.choice((-6 * HOUR_S, -HOUR_S, -30, 30, HOUR_S, 6 * HOUR_S, 30 * HOUR_S))
    return Blow(at, kind, target, for_s, amount)
