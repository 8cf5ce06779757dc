"""Several coordinators write to one PostgreSQL: nobody spends the same credit twice, and their groups never wait in a
circle."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import psycopg

from comptoir.dispatch.onboard import add_user
from comptoir.kit.db import open_database
from comptoir.reports import audit
from tests.house.tree import ROOT
from tests.leftovers import mark
from tests.redis_server import RedisServer
from tests.street import open_street

PROCESSES = 4
BUYERS = 3
ROUNDS = 40
"""Things that each of a process's tasks does."""

CREDIT_UUSD = 4_000
"""A few jobs' holds for each buyer, so that somebody is always just short of credit."""

ENDED_S = 90.0
"""A bound against hanging; it takes a few seconds."""


async def _start(
    folder: Path, database: str, bus: str, *, number: int, buyers: list[bytes]
) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.dispatch.hammer",
        str(folder / str(number)),
        database,
        bus,
        str(number),
        str(ROUNDS),
        *(buyer.hex() for buyer in buyers),
        cwd=ROOT,
        env={**mark(), "PYTHONPATH": f"{ROOT}/src:{ROOT}", "PATH": ""},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def _did(process: asyncio.subprocess.Process) -> Counter[str]:
    """Let it go, and return what it did."""
    said, _ = await process.communicate(b"go\n")
    assert process.returncode == 0
    return Counter(json.loads(said))


def deadlocks(database: str) -> int:
    """How many the server has broken up so far."""
    with psycopg.connect(database, autocommit=True) as connection:
        row = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])


class TestSeveralWriters:
    async def test_money_is_exact_and_nobody_waits_in_a_circle(
        self, tmp_path: Path, postgres_address: str, redis_server: RedisServer
    ) -> None:
        async with open_street(tmp_path, database=postgres_address) as street:
            buyers = [
                (
                    await add_user(street.core, username=f"bob{n}", email=None, password=None, credit_uusd=CREDIT_UUSD)
                ).user.id
                for n in range(BUYERS)
            ]
            for _ in range(2):
                await street.host(slots=64)
        before = deadlocks(postgres_address)

        processes = [
            await _start(tmp_path, postgres_address, redis_server.url, number=n, buyers=buyers)
            for n in range(PROCESSES)
        ]
        async with asyncio.timeout(ENDED_S):
            did = sum(await asyncio.gather(*map(_did, processes)), Counter[str]())

        assert min(did[what] for what in ("finished", "cancelled", "refused", "deposited", "signed up")) > 0, did
        assert deadlocks(postgres_address) == before
        db = open_database(postgres_address)
        try:
            assert await audit(db) == []
            fees = await db.fetch("SELECT count(*) FROM accounts WHERE kind = 'fees' AND balance_uusd > 0")
            assert fees == [(PROCESSES,)]
        finally:
            await db.close()
