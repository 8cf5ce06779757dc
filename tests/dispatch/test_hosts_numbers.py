"""Numbers that a host says of itself or of a failure: cut to what can be stored and passed on, whatever they are."""

import math
from pathlib import Path

import aiohttp
import msgspec
import pytest

from comptoir.dialects.openai.errors import render_failure
from comptoir.dispatch.onboard import add_host
from comptoir.dispatch.stream import RETRY_AFTER_MAX_S, clamped, fail
from comptoir.hosts import NewHost
from comptoir.hosts.check import believable
from comptoir.jobs import Fault
from comptoir.link import ModelOffer, Pulse
from tests.post import open_post
from tests.street import open_street, until_over


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (0.0, 0.0),
        (1.5, 1.5),
        (-1.0, 0.0),
        (1e308, RETRY_AFTER_MAX_S),
        (math.inf, RETRY_AFTER_MAX_S),
        (-math.inf, 0.0),
        (math.nan, 0.0),
    ],
)
async def test_a_time_to_wait_is_bounded(tmp_path: Path, said: float, taken: float) -> None:
    """1e308 seconds were an internal error where the buyer's header was made."""
    async with open_street(tmp_path) as street:
        await street.host()
        job = await street.submit(detached=False)
        await fail(
            street.core, job, code="engine_busy", message="busy", fault=Fault.BUYER, status=429, retry_after_s=said
        )
        await until_over(job)

        assert job.retry_after_s == taken
        reply = render_failure(job)
        assert reply.status == 429 and ((b"retry-after", b"%d" % math.ceil(taken)) in reply.headers) is (taken > 0)


@pytest.mark.parametrize("status", [-1, 0, 99, 600, 1 << 63, 1 << 64])
async def test_a_status_is_one_of_http_or_none(tmp_path: Path, status: int) -> None:
    """Beyond 63 bits it could not be stored, and the failure of the job could not be written."""
    async with open_street(tmp_path) as street:
        await street.host()
        job = await street.submit(detached=False)
        await fail(street.core, job, code="engine_failed", message="no", fault=Fault.BUYER, status=status)
        await until_over(job)

        assert job.error_status == 0 and render_failure(job).status == 400


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (Pulse(0.5, 3, "A100", 81_920), Pulse(0.5, 3, "A100", 81_920)),
        (Pulse(math.nan, -1, "x" * 201, 1 << 63), Pulse()),
        (Pulse(1e308, 1 << 63, "a\0b", -1), Pulse()),
        (Pulse(-0.1, 5_000, "\ud800", 1 << 31), Pulse()),
    ],
)
def test_a_pulse_says_what_a_machine_can_have(said: Pulse, taken: Pulse) -> None:
    assert believable(said) == taken


async def test_a_pulse_out_of_bounds_is_a_sign_of_life_and_no_more(tmp_path: Path) -> None:
    async with open_post(tmp_path) as post, aiohttp.ClientSession(post.url) as session:
        made = await add_host(post.core, NewHost(gpu="A100", models=(ModelOffer("m", ["chat"]),), vram_mib=81_920))
        headers = {"authorization": f"Bearer {made.key}"}
        for body, status in (
            ({"vram_mib": 1 << 63}, 200),
            ({"gpu_utilization": 1e308}, 200),
            ({"gpu": "x" * 201}, 200),
            ({"gpu": "x" * 100_000}, 422),
            ({"running": 1 << 63}, 200),
        ):
            async with session.post("/link/pulse", data=msgspec.json.encode(body), headers=headers) as answer:
                assert answer.status == status
        await post.core.hosts.flush()

        row = post.core.fleet.get(made.host_id).row
        assert (row.gpu, row.vram_mib) == ("A100", 81_920)
        async with session.get("/house/hosts") as answer:
            assert (await answer.json())["hosts"][0]["gpu_utilization"] == 0.0


def test_what_is_no_number_is_none() -> None:
    assert clamped(math.nan, 5.0) == 0.0
