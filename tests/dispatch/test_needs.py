"""Needs: what an order asks of a host goes with its job, wherever and however often it is given away."""

from pathlib import Path

import msgspec
import pytest

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.errors import NoHostPossible
from comptoir.dispatch.onboard import add_host
from comptoir.dispatch.submit import submit
from comptoir.hosts import LINK, NewHost
from comptoir.jobs import Fault, JobState, LiveJob
from comptoir.reports import audit
from comptoir.routing import Capacity, Needs
from tests.street import GOES_ON, FakeChannel, Street, deliver, finish_well, open_street, order

BIG = Capacity(gpus=2, cpu_millis=32_000, memory_mib=131_072, disk_mib=500_000)
SMALL = Capacity(gpus=1, cpu_millis=4_000)

NEEDS = Needs(
    gpu="h100",
    gpus=2,
    vram_mib=80_000,
    cpu_millis=8_000,
    memory_mib=64_000,
    disk_mib=1_000,
    region="eu",
    tier="secure",
    rate_caps=(("token_out", 100_000_000),),
    deny=frozenset([b"?" * 16]),
    min_reputation=0.1,
)


async def add(street: Street, *, fits: bool, link: bool = True) -> tuple[bytes, FakeChannel]:
    """Register a host that has all that is needed, or nothing of it."""
    new = NewHost(
        gpu="2x NVIDIA H100" if fits else "RTX 4090",
        models=(GOES_ON,),
        transport=LINK,
        vram_mib=160_000 if fits else 24_000,
        region="eu" if fits else "us",
        tier="secure" if fits else "",
        capacity=BIG if fits else SMALL,
    )
    made, channel = await add_host(street.core, new), FakeChannel()
    if link:
        street.link(made.host_id, channel)
    return made.host_id, channel


async def buy(street: Street, needs: Needs = NEEDS) -> LiveJob:
    return await submit(street.core, msgspec.structs.replace(order(street.buyer_id), needs=needs))


class TestNeeds:
    async def test_an_order_that_nobody_could_serve_is_refused_with_every_reason(self, street: Street) -> None:
        await add(street, fits=False)
        needs = msgspec.structs.replace(NEEDS, rate_caps=(("token_out", 99),))

        with pytest.raises(NoHostPossible) as refused:
            await buy(street, needs)

        for words in (
            "tier turns away 1",
            "tier unknown",
            "24000 MiB of 80000",
            "RTX 4090 is no h100",
            "1 of 2",
            "4000 of 8000 thousandths",
            "memory turns away 1",
            "unknown, 64000 MiB needed",
            "unknown, 1000 MiB needed",
            "region us",
            "100000000 micro-dollars per million token_out against a cap of 99",
        ):
            assert words in refused.value.message
        assert await street.free_uusd() == 1_000_000

    async def test_it_waits_for_the_host_that_fits(self, street: Street) -> None:
        host_id, channel = await add(street, fits=True, link=False)
        _, other = await add(street, fits=False)

        job = await buy(street)
        assert (job.state, other.sent) == (JobState.QUEUED, [])

        street.link(host_id, channel)
        await street.core.background.drain_tasks()
        assert [sent for sent, _ in channel.sent] == [job]
        await finish_well(street.core, job)
        assert (job.state, job.host_id) == (JobState.COMPLETED, host_id)
        assert await audit(street.core.db) == []

    async def test_a_lost_host_is_followed_by_one_that_fits(self, street: Street) -> None:
        await add(street, fits=False)
        _, first = await add(street, fits=True)
        job = await buy(street)
        deliver(street.core, job, 2)
        host_id, second = await add(street, fits=True)
        assert job.lease is not None

        await revoke_lease(street.core, job, job.lease, "it fell silent", fault=Fault.HOST)
        await street.core.background.drain_tasks()

        assert ([sent for sent, _ in first.sent], [sent for sent, _ in second.sent]) == ([job], [job])
        await finish_well(street.core, job)
        assert (job.state, job.host_id) == (JobState.COMPLETED, host_id)

    async def test_it_keeps_them_over_a_restart(self, tmp_path: Path, database_address: str) -> None:
        async with open_street(tmp_path, database=database_address) as street:
            host_id, _ = await add(street, fits=True, link=False)
            other_id, _ = await add(street, fits=False, link=False)
            buyer, job = street.buyer_id, await buy(street)

        async with open_street(tmp_path, database=database_address, buyer=buyer) as street:
            channel, other = FakeChannel(), FakeChannel()
            street.link(other_id, other)
            street.link(host_id, channel)
            await street.core.background.drain_tasks()
            revived = street.core.jobs.live.get(job.id)

            assert revived is not None and revived.needs == job.needs is not None
            assert ([sent for sent, _ in channel.sent], other.sent) == ([revived], [])
            assert street.core.fleet.get(host_id).row.capacity == BIG

    async def test_the_price_to_wait_at_is_that_of_hosts_that_fit(self, street: Street) -> None:
        await add(street, fits=True, link=False)
        dear = msgspec.structs.replace(GOES_ON, price_out_uusd_per_mtok=2 * GOES_ON.price_out_uusd_per_mtok)
        for _ in range(2):
            await add_host(street.core, NewHost(gpu="x", models=(dear,), transport=LINK))

        assert [(await buy(street, needs)).terms.rate_out for needs in (NEEDS, Needs(), NEEDS)] == [
            GOES_ON.price_out_uusd_per_mtok,
            dear.price_out_uusd_per_mtok,
            GOES_ON.price_out_uusd_per_mtok,
        ]
