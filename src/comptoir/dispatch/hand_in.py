"""Hand in: take the receipts that workers keep, after this coordinator's database lost them (`dispatch.bring_back`).

What a worker lists or hands in is a stranger's word. A receipt is taken if one of our own keys signed it, it is about
the job it was asked for, and the database has none of that job. What was taken waits in memory for the operator; a
worker hands it in again after a restart.
"""

import asyncio
import logging
from collections.abc import Sequence

from comptoir.dispatch.core import Core, State
from comptoir.kit.ids import parse, public
from comptoir.link import KeptReceipt, SignedReceipt
from comptoir.receipts import KeyRegistry, Receipt, verify_own

log = logging.getLogger(__name__)

HANDED_IN_MAX = 20_000
"""Receipts that wait to be posted; more are asked for when these were."""

HANDED_IN_BYTES_MAX = 64 << 20
"""Their bytes."""

LISTED_PER_WORKER_MAX = 64 * 1024
"""Receipts that one worker may list on one connection; ours keeps half as many."""

LOOKED_UP = 1_000
"""Jobs whose receipts are looked up at once."""

ASKED_AT_ONCE_MAX = 8
"""Workers asked at a time: each may answer with 8 MiB."""


class HandedIn(State):
    """Receipts that were handed in, by job."""

    def __init__(self, core: Core) -> None:
        self._receipts: dict[bytes, tuple[int, Receipt]] = {}
        """With the time each says its job was settled."""
        self._bytes = 0
        self.rejected = 0
        """Receipts that were not taken, because we did not sign them or not for that job."""
        self.short = False
        """Whether some were not taken for want of room."""
        self.asking = asyncio.Semaphore(ASKED_AT_ONCE_MAX)
        self.asked = 0
        """How many workers are being asked."""
        self._quiet = asyncio.Event()
        self._quiet.set()

    def __len__(self) -> int:
        return len(self._receipts)

    def __contains__(self, job_id: bytes) -> bool:
        return job_id in self._receipts

    @property
    def full(self) -> bool:
        """Whether there is no room for more."""
        return len(self._receipts) >= HANDED_IN_MAX or self._bytes >= HANDED_IN_BYTES_MAX

    def asking_until(self, done: asyncio.Task[None]) -> None:
        """Count a worker that is being asked, until the task *done* is."""
        self.asked += 1
        self._quiet.clear()
        done.add_done_callback(self._asked_one)

    def _asked_one(self, done: asyncio.Task[None]) -> None:
        self.asked -= 1
        if not self.asked:
            self._quiet.set()

    async def quiet(self) -> None:
        """Wait until no worker is being asked; each has some time to answer, so this ends."""
        await self._quiet.wait()

    def add(self, receipt: Receipt, settled_ms: int) -> None:
        """Keep a receipt that was verified; one of the same job stays."""
        if receipt.job_id in self._receipts:
            return
        if self.full:
            self.run_short()
            return
        self._receipts[receipt.job_id] = (settled_ms, receipt)
        self._bytes += len(receipt.payload)

    def run_short(self) -> None:
        """Note that there was no room for some."""
        self.short = True

    def begin_round(self) -> None:
        """Note that workers are asked for all that is missing from now on."""
        self.short = False

    def oldest_first(self) -> list[Receipt]:
        """Return all in the order in which their jobs were settled: what one leaves, a later one may spend."""
        order = sorted(self._receipts.items(), key=lambda one: (one[1][0], one[0]))
        return [receipt for _, (_, receipt) in order]

    def clear(self) -> None:
        """Forget all: the loss has ended."""
        self._receipts.clear()
        self._bytes = 0

    def drop(self, job_ids: Sequence[bytes]) -> None:
        """Forget those of *job_ids*."""
        for job_id in job_ids:
            _, receipt = self._receipts.pop(job_id, (0, None))
            if receipt is not None:
                self._bytes -= len(receipt.payload)


async def wanted(core: Core, listed: Sequence[KeptReceipt]) -> list[bytes]:
    """Return the jobs of those receipts *listed* by a worker that are neither stored as they are nor handed in yet.

    Raises:
        Unavailable: the database is.
    """
    handed, found = core.state(HandedIn), list[bytes]()
    for first in range(0, len(listed), LOOKED_UP):
        part = {one.job_id: one.sha256 for one in listed[first : first + LOOKED_UP]}
        stored = await core.receipts.stored(list(part))
        found += [one for one, sha256 in part.items() if stored.get(one) != sha256 and one not in handed]
    return found


async def take(core: Core, host_id: bytes, asked: Sequence[bytes], receipts: Sequence[SignedReceipt]) -> bool:
    """Verify what a worker handed in for *asked* and keep what is ours; False: some of it is not, ask it no more.

    Raises:
        Unavailable: the database is.
    """
    handed = core.state(HandedIn)
    registry = await core.receipts.own_keys()
    good, why = await asyncio.to_thread(_verified, registry, frozenset(asked), receipts)
    for receipt, settled_ms in good:
        handed.add(receipt, settled_ms)
    if why:
        handed.rejected += 1
        log.warning("host %s handed in a receipt that is not taken: %s", public("host", host_id), why)
    return not why


def _verified(
    registry: KeyRegistry, asked: frozenset[bytes], receipts: Sequence[SignedReceipt]
) -> tuple[list[tuple[Receipt, int]], str]:
    """Return the receipts before the first that is not taken, with their times, and why that one is not; 100 us
    each."""
    good: list[tuple[Receipt, int]] = []
    for one in receipts:
        verdict = verify_own(one.payload, registry, keyid=one.keyid, signature=one.signature)
        if verdict.statement is None:
            return good, verdict.detail
        predicate = verdict.statement.predicate
        job_id = parse("job", predicate.job)
        if job_id is None or job_id not in asked:
            return good, f"nobody asked for that of {predicate.job}"
        good.append((Receipt(job_id, one.keyid, one.payload, one.signature), predicate.times.settled_ms))
    return good, ""
