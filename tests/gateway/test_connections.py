"""What a coordinator lets its connections hold, by its settings, and that it says so."""

from pathlib import Path

import aiohttp

from comptoir.gateway import Connections
from tests.post import open_post


class TestConnections:
    async def test_a_body_without_a_key_is_small(self, tmp_path: Path) -> None:
        """Also where a key is optional; the Infernet API takes large ones where it lets callers buy without a key."""
        settings = {"body_bytes_without_key_max": 2_000, "infernet_anonymous": "loopback"}
        async with open_post(tmp_path, **settings) as post, aiohttp.ClientSession(post.url) as session:
            body = {"username": "bob", "email": "b@example.org", "password": "x" * 3_000}
            statuses = []
            for path, key in (
                ("/users", ""),
                ("/link/register", ""),
                ("/run/model", post.buyer_key),
                ("/api/jobs", ""),
            ):
                headers = {"authorization": f"Bearer {key}"} if key else {}
                async with session.post(path, json=body, headers=headers) as answer:
                    statuses.append(answer.status == 413)

        assert statuses == [True, True, False, False]

    async def test_what_they_hold_is_in_the_metrics(self, tmp_path: Path) -> None:
        async with open_post(tmp_path, connections_per_address_max=1) as post:
            async with aiohttp.ClientSession(post.url) as session:
                text = await (await session.get("/metrics", headers={"accept": "text/plain"})).text()
            assert "comptoir_connections 1.0" in text
            assert 'comptoir_held_bytes{what="bodies"} 0.0' in text

    async def test_a_budget_holds_the_largest_thing_that_is_allowed(self, tmp_path: Path) -> None:
        settings = {"bodies_bytes_max": 1 << 20, "bodies_bytes_per_address_max": 1 << 20, "links_bytes_max": 1 << 20}
        async with open_post(tmp_path, **settings) as post:
            traffic = post.core.state(Connections).traffic

        assert traffic.bodies.bytes_per_key_max > post.core.settings.body_bytes_max
        assert traffic.bodies.bytes_max > post.core.settings.body_bytes_max
        assert traffic.messages.bytes_max > post.core.settings.link_message_bytes_max
