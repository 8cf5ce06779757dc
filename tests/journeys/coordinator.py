"""A coordinator as a process of its own, for tests that kill it: ``python -m tests.journeys.coordinator DATA DATABASE PORT``.

Beside the published dialects it serves a tiny one: buy a detached job, and ask how many are not over.
"""

import asyncio
import sys

import msgspec
import uvloop

from comptoir import app
from comptoir.desk import claim, render_plain_error, status_of
from comptoir.dialects import DIALECTS
from comptoir.dispatch import House, Order
from comptoir.dispatch.submit import submit
from comptoir.kit.http import Access, Dialect, Endpoint, Request
from comptoir.settings import Settings


class Wanted(msgspec.Struct):
    """Body of ``POST /drive/jobs``."""

    max_tokens: int


class Bought(msgspec.Struct):
    """Answer of ``POST /drive/jobs``: the job is durable."""

    job: str


class Open(msgspec.Struct):
    """Answer of ``GET /drive/open``."""

    jobs: int


async def buy(house: House, request: Request) -> Bought:
    """Submit a detached job."""
    claimed = await claim(house, request)
    body = b'{"model":"trivial","messages":[],"max_tokens":%d}' % request.body.max_tokens
    order = Order(
        request.principal.id, "drive", "chat", "trivial", body, request.body.max_tokens, True,
        job_id=claimed.resource_id if claimed else None,
    )  # fmt: skip
    return Bought((await submit(house, order)).id.hex())


async def unfinished(house: House, request: Request) -> Open:
    """Say how many jobs are not over."""
    return Open(len(house.jobs.live))


DRIVE = Dialect(
    name="drive", title="Drive", prefix="/drive-alone", render_error=render_plain_error, error_statuses=status_of,
    owns=("/drive",),
    endpoints=(
        Endpoint("POST", "/drive/jobs", buy, Access.BUYER, "Buy.", request=Wanted, response=Bought, status=201),
        Endpoint("GET", "/drive/open", unfinished, Access.PUBLIC, "Count.", response=Open),
    ),
)  # fmt: skip


def main(data: str, database: str, port: str) -> None:
    """Serve until a signal."""
    app.DIALECTS = (*DIALECTS, DRIVE)
    settings = Settings(data=data, database=database, port=int(port), drain_s=5.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(app.serve(settings))


if __name__ == "__main__":
    main(*sys.argv[1:])
