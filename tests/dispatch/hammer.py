"""One of several processes that hammer the same accounts:
``python -m tests.dispatch.hammer FOLDER DATABASE SEED ROUNDS BUYERS``.

It opens a house of its own over the shared database, says ``ready``, waits for a line, then has many tasks buy, finish,
cancel, lose, deposit and sign up, all on the buyers and hosts of the test. Prints what it did as JSON.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.onboard import add_user
from comptoir.dispatch.submit import submit
from comptoir.jobs import Fault, LiveJob
from comptoir.ledger import InsufficientCredit
from tests.street import FakeChannel, Street, finish_well, open_street, order

TASKS = 12
"""Buyers at once in each process: enough for groups of several commands."""


async def hammer(street: Street, dice: random.Random, buyers: list[bytes], rounds: int, *, did: Counter[str]) -> None:
    """Do *rounds* things, each to one of *buyers*."""
    core = street.core
    for number in range(rounds):
        buyer = dice.choice(buyers)
        chance = dice.random()
        if chance < 0.1:
            await core.ledger.deposit(owner_id=buyer, amount_uusd=700)
            did["deposited"] += 1
            continue
        if chance < 0.13:
            await add_user(core, username=f"u{dice.getrandbits(60):x}-{number}", email=None, password=None)
            did["signed up"] += 1
            continue
        try:
            job = await submit(core, order(buyer, max_tokens=dice.randint(1, 10)))
        except InsufficientCredit:
            did["refused"] += 1
            continue
        did[await _end(street, dice, job)] += 1


async def _end(street: Street, dice: random.Random, job: LiveJob) -> str:
    chance = dice.random()
    if chance < 0.2:
        await cancel(street.core, job)
        return "cancelled"
    if chance < 0.4 and job.lease is not None:
        await revoke_lease(street.core, job, job.lease, "a fake fault", fault=Fault.HOST)
    while job.lease is None and not job.over:
        await asyncio.sleep(0)
    if job.over:
        return "failed"
    await finish_well(street.core, job, tokens=1)
    return "finished"


async def main(folder: str, database: str, bus: str, *numbers_and_buyers: str) -> None:
    """Open, wait for the word, hammer."""
    seed, rounds, *buyers = numbers_and_buyers
    dice, did = random.Random(int(seed)), Counter[str]()
    ids = [bytes.fromhex(one) for one in buyers]
    async with open_street(Path(folder), database=database, bus=bus, buyer=ids[0]) as street:
        core = street.core
        for host in list(core.fleet):
            street.link(host.id, FakeChannel())
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(*(hammer(street, dice, ids, int(rounds), did=did) for _ in range(TASKS)))
        await core.background.drain_tasks()
    print(json.dumps(did), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
