"""A job that asks for tools, images, a schema or thought goes to a host that has them, as far as hosts say so."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from comptoir.dispatch.errors import CapabilityMissing, ContextTooLong, NoHostPossible
from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import LiveJob
from comptoir.link import ModelOffer
from tests.street import MODEL, OFFER, Street, open_street

TOOLS = b'{"messages":[],"tools":[{"type":"function","function":{"name":"f"}}]}'
PICTURE = b'{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}}]}]}'
BOTH = TOOLS[:-1] + b"," + PICTURE[1:].replace(b'"messages"', b'"messages" ')
TEXT = b'{"messages":[]}'


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    async with open_street(tmp_path) as opened:
        yield opened


def saying(**said: str) -> ModelOffer:
    return msgspec.structs.replace(OFFER, capabilities=said)


def dearer(offer: ModelOffer) -> ModelOffer:
    return msgspec.structs.replace(offer, price_out_uusd_per_mtok=2 * offer.price_out_uusd_per_mtok)


async def buy(street: Street, body: bytes = TOOLS, *, max_tokens: int = 5) -> LiveJob:
    return await submit(street.core, Order(street.buyer_id, "test", "chat", MODEL, body, max_tokens, True))


def host_of(job: LiveJob) -> bytes | None:
    return job.lease.host_id if job.lease is not None else None


class TestChoice:
    async def test_who_has_it_comes_before_who_says_nothing_whatever_it_costs(self, street: Street) -> None:
        silent, _ = await street.host()
        able, _ = await street.host(offer=dearer(saying(tools="claimed")))

        assert host_of(await buy(street)) == able
        assert host_of(await buy(street)) == silent

    async def test_who_lacks_it_gets_other_jobs_only(self, street: Street) -> None:
        lacking, _ = await street.host(offer=saying(tools="lacking", vision="probed"))
        able, _ = await street.host(offer=dearer(saying(tools="probed")), slots=2)

        assert host_of(await buy(street)) == able
        assert host_of(await buy(street, PICTURE)) == lacking

    async def test_a_job_that_asks_for_nothing_goes_where_it_always_went(self, street: Street) -> None:
        await street.host(offer=dearer(saying(tools="probed")))
        cheap, _ = await street.host(offer=saying(tools="lacking"))

        assert host_of(await buy(street, TEXT)) == cheap

    async def test_where_no_host_says_anything_nothing_is_asked(self, street: Street) -> None:
        """As with workers of before."""
        silent, _ = await street.host()

        assert host_of(await buy(street)) == silent
        assert street.core.fleet.limited.capable == 0

    async def test_one_that_waits_is_not_taken_by_a_host_that_lacks_it(self, street: Street) -> None:
        await street.host(offer=saying(tools="probed"))
        await buy(street)
        waiting = await buy(street)

        _, lacking = await street.host(offer=saying(tools="lacking"))
        await street.core.background.drain_tasks()
        assert (waiting.lease, lacking.sent) == (None, [])

        able, _ = await street.host(offer=saying(tools="claimed"))
        await street.core.background.drain_tasks()
        assert host_of(waiting) == able

    async def test_one_that_waits_is_held_at_the_price_of_those_that_can(self, street: Street) -> None:
        """Also when a job that asks for less has just waited at its own price."""
        for offer in (saying(tools="lacking"), saying(tools="lacking"), dearer(saying(tools="probed"))):
            host_id, _ = await street.host(offer=offer)
            street.core.fleet.reserve(host_id, MODEL)

        plain, tools = await buy(street, TEXT), await buy(street)

        assert plain.lease is tools.lease is None
        assert tools.terms.rate_out == 2 * plain.terms.rate_out

    async def test_a_host_that_changes_what_it_says_is_known_by_that(self, street: Street) -> None:
        host_id, _ = await street.host(offer=saying(tools="lacking"))
        street.core.fleet.replace_offer(host_id, (saying(tools="probed"),), 1)

        assert host_of(await buy(street)) == host_id
        assert street.core.fleet.limited.capable == 1
        street.core.fleet.replace_offer(host_id, (OFFER,), 1)
        assert street.core.fleet.limited.capable == 0


class TestRefusal:
    async def test_it_says_what_nobody_offers(self, street: Street) -> None:
        await street.host(offer=saying(tools="probed", vision="lacking"))
        await street.host(offer=saying(vision="lacking"))

        with pytest.raises(CapabilityMissing, match=f"^No host offers vision for the model '{MODEL}'") as refused:
            await buy(street, BOTH)

        assert (refused.value.capabilities, refused.value.field) == (("vision",), "messages")
        assert len(street.core.jobs.live) == 0

    async def test_what_no_host_has_together_is_said_together(self, street: Street) -> None:
        await street.host(offer=saying(tools="probed", vision="lacking"))
        await street.host(offer=saying(vision="probed", tools="lacking"))

        with pytest.raises(CapabilityMissing, match="tools and vision"):
            await buy(street, BOTH)

    async def test_one_host_that_says_nothing_makes_it_possible(self, street: Street) -> None:
        await street.host(offer=saying(vision="lacking"))
        silent, _ = await street.host(offer=saying(tools="probed"))

        assert host_of(await buy(street, PICTURE)) == silent

    async def test_what_else_is_missing_is_said_as_before(self, street: Street) -> None:
        await street.host(offer=saying(vision="lacking"))

        with pytest.raises(ContextTooLong):
            await buy(street, TOOLS, max_tokens=200_000)
        with pytest.raises(NoHostPossible, match=r"capabilities turns away 1 .*can't do vision"):
            await buy(street, PICTURE, max_tokens=200_000)
