"""How often hosts may ask: they have a limit as users have, whatever they ask for."""

from pathlib import Path

import aiohttp
import pytest

from comptoir.dispatch.onboard import add_host
from comptoir.hosts import NewHost
from comptoir.link import ModelOffer
from tests.post import open_post

MANY = 3


async def test_a_hosts_requests_are_counted_on_every_path(tmp_path: Path) -> None:
    """docs/configuration.md said so of every key, and hosts had no limit at all."""
    async with (
        open_post(tmp_path, requests_per_minute_per_host=MANY) as post,
        aiohttp.ClientSession(post.url) as session,
    ):
        made = await add_host(post.core, NewHost(gpu="A100", models=(ModelOffer("m", ["chat"]),)))
        other = await add_host(post.core, NewHost(gpu="A100", models=(ModelOffer("m", ["chat"]),)))

        async def status(method: str, path: str, key: str = made.key) -> int:
            headers = {"authorization": f"Bearer {key}"}
            async with session.request(method, path, json={} if method == "POST" else None, headers=headers) as answer:
                if answer.status == 429:
                    assert int(answer.headers["retry-after"]) >= 1
                return answer.status

        paths = (("GET", "/house/me"), ("POST", "/link/pulse"), ("GET", "/house/host"))
        assert 429 not in [await status(*path) for path in paths]
        for method, path in (
            *paths,
            ("POST", "/hosts/next-job"),
            ("POST", "/hosts/heartbeat"),
            ("POST", "/house/host/jobs/next"),
        ):
            assert await status(method, path) == 429, path
        with pytest.raises(aiohttp.WSServerHandshakeError, match="429"):
            await session.ws_connect("/link", headers={"authorization": f"Bearer {made.key}"})
        assert await status("GET", "/house/me", other.key) == 200
