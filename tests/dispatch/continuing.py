"""What tests of continuation have in common: hosts are lost, others finish, and the books are read."""

import msgspec

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.stream import complete
from comptoir.jobs import Fault, Lease, LiveJob
from comptoir.link import ModelOffer, Usage
from comptoir.receipts import Predicate, read_registry, verify
from tests.street import GOES_ON, Street, deliver

PROMPT = 7


def lease_of(job: LiveJob) -> Lease:
    assert job.lease is not None
    return job.lease


async def lost(street: Street, job: LiveJob, *, fault: Fault = Fault.HOST) -> bytes:
    """Lose the job's host; return its id."""
    host_id = lease_of(job).host_id
    await revoke_lease(street.core, job, lease_of(job), "it broke", fault=fault)
    return host_id


async def done(street: Street, job: LiveJob, tokens: int) -> None:
    deliver(street.core, job, tokens)
    await complete(street.core, job, finish_reason="stop", usage=Usage(PROMPT, tokens))


async def earned(street: Street, host_id: bytes) -> int:
    return (await street.core.ledger.account(host_id)).balance_uusd


async def receipt(street: Street, job: LiveJob) -> Predicate:
    """Return the job's receipt, verified offline."""
    core = street.core
    verdict = verify(await core.receipts.envelope_of(job.id), read_registry(await core.receipts.registry()))
    assert verdict.ok, verdict
    assert verdict.statement is not None
    return verdict.statement.predicate


async def journal(street: Street) -> int:
    ((count,),) = await street.core.db.fetch("SELECT count(*) FROM journal")
    return int(count)


def dearer(percent: int) -> ModelOffer:
    price = GOES_ON.price_out_uusd_per_mtok
    return msgspec.structs.replace(GOES_ON, price_out_uusd_per_mtok=price + price * percent // 100)
