"""A job that waits is held at the median host's price; a dearer host that is free gets it at its own."""

from pathlib import Path

from comptoir.dispatch.onboard import add_host
from comptoir.hosts import LINK, NewHost
from comptoir.link import ModelOffer
from tests.street import MODEL, FakeChannel, Street, finish_well, open_street


async def host_at(street: Street, price_out: int) -> FakeChannel:
    """Register a host of one slot at a price and link it."""
    offer = ModelOffer(MODEL, ["chat"], 100_000, 0, price_out)
    made = await add_host(street.core, NewHost(gpu="x", models=(offer,), transport=LINK))
    channel = FakeChannel()
    street.link(made.host_id, channel)
    return channel


class TestPriceCap:
    async def test_the_median_is_held_until_a_dearer_host_takes_it(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            channels = {price: await host_at(street, price) for price in (10_000_000, 20_000_000, 900_000_000)}
            busy = [await street.submit() for _ in channels]
            waiting = await street.submit()
            # Ten tokens at the median price.
            assert waiting.terms.hold_uusd == 200
            dear = channels[900_000_000].sent[0][0]
            median = channels[20_000_000].sent[0][0]

            another = await street.submit()
            await finish_well(street.core, median)
            await street.core.background.drain_tasks()
            await finish_well(street.core, dear)
            await street.core.background.drain_tasks()

            assert len(busy) == 3
            assert [job for job, _ in channels[20_000_000].sent] == [median, waiting]
            assert [job for job, _ in channels[900_000_000].sent] == [dear, another]
            assert (waiting.terms.hold_uusd, another.terms.hold_uusd) == (200, 9_000)
