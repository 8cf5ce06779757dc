"""What tests of kinds do with a job, and what is asked of every end of one."""

from comptoir.dispatch.settle import segment_of
from comptoir.dispatch.stream import complete, take_frames
from comptoir.jobs import Fault, JobState, LiveJob
from comptoir.kit.signing import SigningKey
from comptoir.link import Frame, Usage, segment_bytes
from comptoir.reports import audit
from tests.dispatch.continuing import lease_of, receipt
from tests.street import SIGNUP_UUSD, FakeChannel, Street


def pay_of(cost_uusd: int) -> int:
    """What a host gets of a cost."""
    return cost_uusd - cost_uusd * 12 // 100


def pieces(street: Street, job: LiveJob, *texts: str, count: int = 0) -> None:
    take_frames(street.core, job, len(job.frames), [Frame(text, count) for text in texts])


async def whole(street: Street, job: LiveJob) -> None:
    pieces(street, job, "whole", count=1)
    await complete(street.core, job, finish_reason="stop", usage=Usage())


async def adds_up(
    street: Street, job: LiveJob, state: JobState, *, cost_uusd: int = 0, fault: Fault = Fault.NONE
) -> None:
    """Check the end of *job*: its state, cost and blame; that nothing is held any more, and that everything adds up."""
    await street.core.background.drain_tasks()
    assert (job.state, job.cost_uusd, job.fault) == (state, cost_uusd, fault)
    account = await street.core.ledger.account(street.buyer_id)
    assert (account.free_uusd, account.held_uusd) == (SIGNUP_UUSD - cost_uusd, 0)
    assert (await receipt(street, job)).kind == job.kind.name
    assert await audit(street.core.db) == []
    assert [host.slots.running for host in street.core.fleet] == [0] * len(list(street.core.fleet))


def given(*channels: FakeChannel) -> int:
    """How often a host was given a job."""
    return sum([len(channel.sent) for channel in channels])


def sign(job: LiveJob, key: SigningKey, usage: Usage) -> bytes:
    """Return what the host of *job* signs of what it delivered."""
    return key.sign(segment_bytes(segment_of(job, lease_of(job), "stop", usage)))
