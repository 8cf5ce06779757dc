"""What it costs to know who is asking: a cached key, an uncached one, a password; beside one SHA-256.

Run: ``PYTHONPATH=src python bench/bench_identity.py``. Prints medians, CPU microseconds a call.
"""

import asyncio
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from comptoir.identity import TABLES, Identity, OwnerKind
from comptoir.identity.testing import basic, bearer
from comptoir.kit.clock import Clock
from comptoir.kit.db import ddl, open_database
from comptoir.kit.ratelimit import RateLimiter

ROUNDS = 15


def median_us(call: Callable[[], object], calls: int) -> float:
    """Return the median over rounds of the mean CPU time of one call, microseconds."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(calls):
            call()
        rounds.append((time.process_time() - start) / calls * 1e6)
    return statistics.median(rounds)


async def measure(folder: str) -> None:
    """Measure over SQLite in *folder* and print."""
    db = open_database(str(Path(folder) / "bench.db"))
    for table in TABLES:
        for statement in ddl(table, db.dialect):
            await db.run(lambda tx, statement=statement: tx.execute(statement))
    clock = Clock()
    identity = Identity(db, clock, logins_per_minute=100_000)
    keys = [await identity.create_key(OwnerKind.HOST, number.to_bytes(16, "big")) for number in range(500)]
    await identity.create_user(username="ann", email=None, password="correct horse battery")
    header = b"Bearer " + keys[0].secret.encode()

    start = time.process_time()
    for key in keys:
        await identity.resolve(bearer(key.secret))
    uncached = (time.process_time() - start) / len(keys) * 1e6
    hashes = []
    for _ in range(7):
        identity._by_login.clear()
        start = time.process_time()
        await identity.resolve(basic("ann", "correct horse battery"))
        hashes.append((time.process_time() - start) * 1e6)
    login = basic("ann", "correct horse battery")
    start = time.process_time()
    for _ in range(5_000):
        await identity.resolve(login)
    cached_login = (time.process_time() - start) / 5_000 * 1e6
    limiter = RateLimiter(per_minute=100_000_000, clock=clock)

    bare = median_us(lambda: hashlib.sha256(header[7:]).digest(), 20_000)
    rows = [
        ("bare SHA-256 of a key", bare),
        ("resolve_cached, Bearer key", median_us(lambda: identity.resolve_cached(header), 20_000)),
        ("resolve, key from SQLite", uncached),
        ("resolve, Basic, checked before", cached_login),
        ("resolve, Basic, first time (argon2id)", statistics.median(hashes)),
        ("rate limiter, take", median_us(lambda: limiter.take(header), 20_000)),
    ]
    for name, us in rows:
        print(f"{name:<40} {us:10.2f} us  {us / bare:9.1f} x the bare hash")
    identity.close()
    await db.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(measure(scratch))
