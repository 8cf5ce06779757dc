"""Hosts that sign what they delivered are paid; hosts that sign something else are not."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comptoir.dispatch.errors import BadSegment
from comptoir.dispatch.onboard import add_host
from comptoir.dispatch.settle import segment_of
from comptoir.dispatch.stream import complete, take_frames
from comptoir.dispatch.submit import Order, submit
from comptoir.hosts import LINK, NewHost
from comptoir.jobs import JobState, LiveJob
from comptoir.kit.signing import SigningKey
from comptoir.ledger import audit
from comptoir.link import Frame, ModelOffer, Usage, segment_bytes
from comptoir.receipts import read_registry, verify
from tests.post import Post, open_post
from tests.street import FakeChannel


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    async with open_post(tmp_path) as opened:
        yield opened


async def delivered_job(post: Post, key: SigningKey) -> LiveJob:
    core = post.core
    offer = ModelOffer("m", ["chat"], 1000, 0, 100_000_000)
    host = await add_host(core, NewHost(gpu="x", models=(offer,), transport=LINK, public_key=key.public_key))
    core.channels[host.host_id] = FakeChannel()
    core.fleet.mark_linked(host.host_id)
    job = await submit(core, Order(post.buyer_id, "test", "chat", "m", b"{}", 10, True))
    take_frames(core, job, 0, [Frame("a"), Frame("b")])
    return job


class TestSignatures:
    async def test_a_good_one_is_paid_and_in_the_receipt(self, post: Post) -> None:
        key = SigningKey.generate()
        job = await delivered_job(post, key)
        assert job.lease is not None
        signature = key.sign(segment_bytes(segment_of(job, job.lease, "stop", Usage(3, 2))))

        await complete(
            post.core, job, finish_reason="stop", usage=Usage(3, 2), signature=signature, running_hash=job.running_hash
        )

        assert (job.state, job.cost_uusd) == (JobState.COMPLETED, 200)
        registry = read_registry(await post.core.receipts.registry())
        verdict = verify(await post.core.receipts.envelope_of(job.id), registry)
        assert verdict.ok
        assert verdict.unsigned_segments == 0

    @pytest.mark.parametrize("broken", ["other_key", "other_count", "other_chain", "no_signature"])
    async def test_a_bad_one_ends_the_job_unpaid_as_the_hosts_fault(self, post: Post, broken: str) -> None:
        key = SigningKey.generate()
        job = await delivered_job(post, key)
        assert job.lease is not None
        host_id = job.lease.host_id
        usage = Usage(3, 1_000_000) if broken == "other_count" else Usage(3, 2)
        signer = SigningKey.generate() if broken == "other_key" else key
        segment = segment_of(job, job.lease, "stop", Usage(4, 2) if broken == "other_count" else usage)
        signature = b"" if broken == "no_signature" else signer.sign(segment_bytes(segment))
        chain = bytes(32) if broken == "other_chain" else job.running_hash

        with pytest.raises(BadSegment):
            await complete(post.core, job, finish_reason="stop", usage=usage, signature=signature, running_hash=chain)

        assert (job.state, job.fault, job.cost_uusd) == (JobState.FAILED, "host", 0)
        account = await post.core.ledger.account(post.buyer_id)
        assert (account.balance_uusd, account.held_uusd) == (1_000_000, 0)
        assert post.core.fleet.explain_reputation(host_id).jobs_failed == 1
        assert await audit(post.core.db) == []
