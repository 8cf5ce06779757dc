"""Who is paid for a Python program that comes to no end at its host."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.stream import complete
from comptoir.jobs import Fault, LiveJob
from comptoir.kinds.capabilities import PROBED
from comptoir.kinds.files import WorkProgress, file_frame
from comptoir.kinds.python import Python
from comptoir.link import Frame, Usage
from tests.dispatch.continuing import earned, lease_of, receipt
from tests.kinds.ends import pay_of
from tests.kinds.test_timed import say
from tests.kinds.toys import buy, offer, selling
from tests.street import Street

OFFER = offer(Python, uusd=1, more=2, can_continue=True, capabilities=dict.fromkeys(Python.capabilities, PROBED))
ORDER = msgspec.json.encode({"code": "print('hi')", "limits": {"wall_s": 60}})
RESULT = file_frame("", 40_000, result=msgspec.Raw(b"1"), finish_reason="stop")


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    async with selling(tmp_path) as opened:
        for _ in range(2):
            await opened.host(offer=OFFER)
        yield opened


async def running(street: Street, *frames: Frame) -> LiveJob:
    """Return a job whose host has sent *frames* after half a minute."""
    job = await buy(street, Python, most=60_000, body=ORDER)
    street.clock.advance(seconds=30)
    say(street, job, *frames)
    return job


@pytest.mark.parametrize(
    "claim", [file_frame("hi\n", 20_000, stream="stdout"), file_frame(progress=WorkProgress(count=20_000))]
)
async def test_a_lost_host_is_paid_nothing_whatever_it_says_and_the_next_one_for_the_whole(
    street: Street, claim: Frame
) -> None:
    job = await running(street, claim)
    first = lease_of(job).host_id
    await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)
    second = lease_of(job).host_id
    street.clock.advance(seconds=40)
    say(street, job, file_frame(begun_again=True), RESULT)

    await complete(street.core, job, finish_reason="stop", usage=Usage(10_000, 40_000))

    assert (await earned(street, first), await earned(street, second)) == (0, pay_of(40_000 + 2 * 10_000))
    assert job.cost_uusd == 60_000
    await receipt(street, job)


async def test_a_buyer_who_cancels_pays_the_time_until_then(street: Street) -> None:
    job = await running(street, file_frame("hi\n", stream="stdout"), file_frame(progress=WorkProgress(count=29_000)))

    await cancel(street.core, job)

    assert (job.cost_uusd, job.usage.completion_tokens) == (29_000, 29_000)
    await receipt(street, job)
