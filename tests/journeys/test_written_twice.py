"""A command that runs again (a neighbour failed, a deadlock) writes what it would have written the first time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from comptoir.dispatch.settle import settle_verb
from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import JobState, Reader
from comptoir.kit.db import Tx
from comptoir.ledger import audit
from comptoir.receipts import read_registry, verify
from tests.post import open_post

BODY = b'{"model":"trivial","messages":[{"role":"user","content":"hi"}],"max_tokens":20}'

Batch = Callable[..., Awaitable[Any]]


def failing_first(batch: Batch, runs: list[int], run: Callable[..., Awaitable[Any]]) -> Batch:
    """Let the settlement run once, fail as if by a neighbour's fault, and run again alone."""

    def batched(verb: Callable[..., Any], item: Any, *, turn: int) -> Awaitable[Any]:
        def again(tx: Tx, items: list[Any]) -> Any:
            outcome = verb(tx, items)
            runs.append(len(items))
            if len(runs) == 1:
                raise LookupError("a neighbour in the batch failed")
            return outcome

        if verb is not settle_verb:
            return batch(verb, item, turn=turn)
        # The writer is kept busy for a moment, so that the settlement has company in its group, as under load.
        busy = run(lambda tx: time.sleep(0.05))
        settled = batch(again, item, turn=turn)
        company = run(lambda tx: None)
        return _first_of(settled, busy, company)

    return batched


async def _first_of(first: Awaitable[Any], *others: Awaitable[Any]) -> Any:
    """Wait for all; return what the first gives."""
    found, *_ = await asyncio.gather(first, *others)
    return found


class TestSettle:
    async def test_a_settlement_that_runs_again_pays_once_and_signs_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with open_post(tmp_path) as post, post.worker():
            core, runs = post.core, list[int]()
            monkeypatch.setattr(core.db, "batch", failing_first(core.db.batch, runs, core.db.run))

            job = await submit(core, Order(post.buyer_id, "test", "chat", "trivial", BODY, 20, False))
            reader = Reader(job)
            async with asyncio.timeout(10):
                while await reader.next() is not None:
                    pass

            assert runs == [1, 1]
            assert job.state == JobState.COMPLETED
            verdict = verify(await core.receipts.envelope_of(job.id), read_registry(await core.receipts.registry()))
            assert verdict.ok, verdict
            assert verdict.statement is not None
            assert len(verdict.statement.predicate.amounts.transfers) == 2
            assert await audit(core.db) == []
