"""One job through the whole house: bought, streamed, settled, receipted."""

from pathlib import Path

import pytest

from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import JobState, Reader
from comptoir.receipts import read_registry, verify
from comptoir.reports import audit
from tests.post import open_post


def order(owner: bytes, *, max_tokens: int = 20) -> Order:
    body = b'{"model":"trivial","messages":[{"role":"user","content":"hi"}],"max_tokens":%d}' % max_tokens
    return Order(owner, "test", "chat", "trivial", body, max_tokens, False)


class TestFirstJob:
    async def test_it_is_streamed_paid_and_receipted(self, tmp_path: Path, database_address: str) -> None:
        async with open_post(tmp_path, database=database_address) as post, post.worker():
            core = post.core
            job = await submit(core, order(post.buyer_id))
            reader, text = Reader(job), ""
            while (frames := await reader.next()) is not None:
                text += "".join(frame.text for frame in frames)

            assert text == " tok" * 20
            assert job.state == JobState.COMPLETED
            # 20 tokens at $100 per million, and one prompt token at $1.
            assert job.cost_uusd == 20 * 100 + 1
            account = await core.ledger.account(post.buyer_id)
            assert (account.balance_uusd, account.held_uusd) == (1_000_000 - 2001, 0)
            verdict = verify(await core.receipts.envelope_of(job.id), read_registry(await core.receipts.registry()))
            assert verdict.ok, verdict
            assert verdict.unsigned_segments == 0
            assert await audit(core.db) == []

    async def test_a_model_nobody_offers_is_refused_with_those_offered(
        self, tmp_path: Path, database_address: str
    ) -> None:
        async with open_post(tmp_path, database=database_address) as post, post.worker():
            with pytest.raises(Exception, match="trivial"):
                await submit(post.core, Order(post.buyer_id, "test", "chat", "nope", b"{}", 1, False))
