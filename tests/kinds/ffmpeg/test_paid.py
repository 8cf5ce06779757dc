"""Who is paid for a film that comes to no end at its host: what can't be one is worth nothing then either."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.stream import complete
from comptoir.jobs import Fault, JobState
from comptoir.kinds.capabilities import PROBED
from comptoir.kinds.ffmpeg import Ffmpeg
from comptoir.kinds.files import Artifact, file_frame
from comptoir.link import Frame, Usage
from tests.dispatch.continuing import earned, lease_of
from tests.dispatch.test_artifacts import take, upload
from tests.kinds.ends import adds_up, pay_of
from tests.kinds.ffmpeg.test_film import MADE, UNITS
from tests.kinds.toys import buy, offer, selling
from tests.street import Street

OFFER = offer(Ffmpeg, uusd=1, can_continue=True, capabilities=dict.fromkeys(Ffmpeg.capabilities, PROBED))
ORDER = msgspec.json.encode({"inputs": [{"url": "https://example.org/a.mp4"}], "seconds_max": 10})
DATA = b"junk" * 250


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    async with selling(tmp_path) as opened:
        await opened.host(offer=OFFER)
        yield opened


@pytest.mark.parametrize(
    ("lie", "claim", "cost"),
    [
        ({}, UNITS, UNITS),
        ({}, 5_000, 0),
        ({"duration_ms": 3_600_000}, 5_000, 0),
        (None, 5_000, 0),
    ],
    ids=["a film as ordered", "more than it is worth", "no such film", "no description"],
)
async def test_only_a_film_as_ordered_is_paid_when_its_buyer_cancels(
    street: Street, lie: dict[str, Any] | None, claim: int, cost: int
) -> None:
    """Else a host uploads junk, claims all that the hold covers, and waits for the buyer to lose patience."""
    most = Ffmpeg().output_max(ORDER)
    job = await buy(street, Ffmpeg, most=most, body=ORDER)
    artifact = await upload(street, job, DATA)
    if lie is None:
        await take(street, job, file_frame("", claim, artifact=artifact))
    else:
        await take(street, job, whole(artifact, MADE | {"size": len(DATA)} | lie, claim))

    await cancel(street.core, job)

    await adds_up(street, job, JobState.CANCELLED, cost_uusd=cost, fault=job.fault)


async def test_a_lost_host_is_paid_for_no_junk_and_the_next_one_for_the_film(street: Street) -> None:
    """The next one begins again: what the first said took from what it may count, and was paid beside it."""
    await street.host(offer=OFFER)
    job = await buy(street, Ffmpeg, most=Ffmpeg().output_max(ORDER), body=ORDER)
    first = lease_of(job).host_id
    await take(street, job, file_frame("", job.terms.output_max, artifact=await upload(street, job, DATA)))
    await revoke_lease(street.core, job, lease_of(job), "it left", fault=Fault.HOST)
    second = lease_of(job).host_id
    film = whole(await upload(street, job, DATA[1:]), MADE | {"size": len(DATA) - 1}, UNITS)
    await take(street, job, file_frame(begun_again=True), film)

    await complete(street.core, job, finish_reason="stop", usage=Usage(0, UNITS))

    assert (await earned(street, first), await earned(street, second)) == (0, pay_of(UNITS))
    await adds_up(street, job, JobState.COMPLETED, cost_uusd=UNITS)


def whole(artifact: Artifact, made: dict[str, Any], claim: int) -> Frame:
    result = msgspec.Raw(msgspec.json.encode(made))
    return file_frame("", claim, artifact=artifact, result=result, finish_reason="stop")
