"""A host's inside is no buyer's business, whichever worker, of whatever age or make, tells of it."""

import pytest

from comptoir.dispatch.stream import CANNOT_CONTINUE, fail, take_frames
from comptoir.jobs import Fault
from comptoir.link import Frame
from tests.street import GOES_ON, Street

SAID = (
    "the engine's server can't be reached: Cannot connect to host 127.0.0.1:8000 (http://gpu1:8000/v1, /srv/run/x.sock)"
)
TOLD = "the engine's server can't be reached: Cannot connect to host … (…, …)"


class TestFail:
    @pytest.mark.parametrize("fault", [Fault.HOST, Fault.CAPACITY, Fault.BUYER])
    async def test_a_buyer_reads_no_address_in_what_a_host_says(self, street: Street, fault: Fault) -> None:
        await street.host()
        job = await street.submit()

        await fail(street.core, job, code="x", message=SAID, fault=fault, body=b'{"error":"' + SAID.encode() + b'"}')

        assert job.over
        assert job.error_message == TOLD
        assert job.error_body.decode() == f'{{"error":"{TOLD}"}}'

    async def test_nor_in_why_it_can_not_go_on(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        await street.host(offer=GOES_ON)
        job = await street.submit()
        take_frames(street.core, job, 0, [Frame("a")])
        await fail(street.core, job, code="x", message="", fault=Fault.HOST)
        await street.core.background.drain_tasks()

        await fail(street.core, job, code=CANNOT_CONTINUE, message=SAID, fault=Fault.COORDINATOR)

        assert job.over and TOLD in job.error_message
