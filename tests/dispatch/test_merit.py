"""Merit: which jobs earn their host a good name, and what a new name of the same owner starts with."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from comptoir.dispatch.onboard import add_user
from comptoir.dispatch.stream import complete, fail, take_frames
from comptoir.dispatch.submit import submit
from comptoir.hosts.reputation import START
from comptoir.jobs import Fault
from comptoir.link import Frame, Usage
from tests.dispatch.acting import retire
from tests.street import OFFER, Street, deliver, finish_well, open_street, order

FREE = msgspec.structs.replace(OFFER, price_in_uusd_per_mtok=0, price_out_uusd_per_mtok=0)


def score(street: Street, host_id: bytes) -> float:
    return street.core.fleet.explain_reputation(host_id).score


async def somebody(street: Street, name: str) -> bytes:
    return (await add_user(street.core, username=name, email=None, password=None)).user.id


async def paid(street: Street) -> bytes:
    host_id, _ = await street.host()
    await finish_well(street.core, await street.submit())
    return host_id


async def from_promotions(street: Street) -> bytes:
    """Credit that nobody paid for would make merit as cheap as accounts are."""
    return await paid(street)


async def half_from_promotions(street: Street) -> bytes:
    """Of the job's 501 micro-dollars 444 are promotional, so of the host's 441 all but 50: half a point of merit."""
    await street.own_money(but_uusd=444)
    return await paid(street)


async def of_its_owner(street: Street) -> bytes:
    host_id, _ = await street.host(owner_id=street.buyer_id)
    await finish_well(street.core, await street.submit())
    return host_id


async def for_nothing(street: Street) -> bytes:
    host_id, _ = await street.host(offer=FREE)
    await finish_well(street.core, await street.submit())
    return host_id


async def empty(street: Street) -> bytes:
    """As much as may be claimed, and nothing in it."""
    host_id, _ = await street.host()
    job = await street.submit()
    take_frames(street.core, job, 0, [Frame("", 10)])
    await complete(street.core, job, finish_reason="stop", usage=Usage(37, 10))
    return host_id


async def without_a_frame(street: Street) -> bytes:
    host_id, _ = await street.host()
    await complete(street.core, await street.submit(), finish_reason="stop", usage=Usage(37, 0))
    return host_id


NOTHING_CAME = 1 / 6
"""An answer with nothing in it weighs as much as a failure: its buyer has no more of it, and was not asked again."""

WAYS: list[tuple[Callable[[Street], Awaitable[bytes]], float]] = [
    (paid, 2 / 5),
    (half_from_promotions, 1 / 3),
    (from_promotions, START),
    (of_its_owner, START),
    (for_nothing, START),
    (empty, NOTHING_CAME),
    (without_a_frame, NOTHING_CAME),
]


class TestMerit:
    @pytest.mark.parametrize(("way", "stands"), WAYS, ids=lambda each: getattr(each, "__name__", ""))
    async def test_is_earned_by_paid_work_for_others_alone(
        self, tmp_path: Path, way: Callable[[Street], Awaitable[bytes]], stands: float
    ) -> None:
        async with open_street(tmp_path) as street:
            if way not in (from_promotions, half_from_promotions):
                await street.own_money()
            host_id = await way(street)

            assert score(street, host_id) == pytest.approx(stands)
            assert street.core.fleet.get(host_id).jobs_done == 1

    async def test_what_one_buyer_can_say_is_remembered_over_a_restart(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            await street.own_money()
            host_id, _ = await street.host()
            for _ in range(9):
                await finish_well(street.core, await street.submit())
            stood = score(street, host_id)
            await street.core.hosts.flush()
        async with open_street(tmp_path, buyer=street.buyer_id) as street:
            _, channel = await street.host()
            street.link(host_id, channel)
            for _ in range(9):
                job = await street.submit()
                await finish_well(street.core, job)

            assert stood == score(street, host_id) == pytest.approx(5 / 8)


class TestNewName:
    async def test_starts_where_the_owners_worst_host_stood(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            await street.own_money()
            eve = await somebody(street, "eve")
            good, _ = await street.host(owner_id=eve)
            await finish_well(street.core, await street.submit())
            bad, _ = await street.host(owner_id=eve)
            street.unlink(good)
            job = await street.submit()
            deliver(street.core, job, 1)
            await fail(street.core, job, code="broke", message="no", fault=Fault.HOST)
            stood = score(street, bad)
            del street.core.channels[bad]
            await retire(street.core, bad)

            new, _ = await street.host(owner_id=eve)
            other, _ = await street.host(owner_id=street.buyer_id)
            nobodys, _ = await street.host()

            assert score(street, new) == pytest.approx(stood) and stood < START
            assert score(street, other) == score(street, nobodys) == START < score(street, good)
        async with open_street(tmp_path, buyer=street.buyer_id) as street:
            assert score(street, new) == pytest.approx(stood)

    async def test_and_nothing_good_is_inherited(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            eve = await somebody(street, "eve")
            await street.host(owner_id=eve)
            job = await submit(street.core, order(street.buyer_id))
            await finish_well(street.core, job)

            new, _ = await street.host(owner_id=eve)

            assert score(street, new) == START
