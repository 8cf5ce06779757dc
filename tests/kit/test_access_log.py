"""One debug line a request, for whoever wants it: method, path, status, time; never a key."""

import logging
from pathlib import Path

import aiohttp
import pytest

from tests.post import open_post


class TestAccessLog:
    async def test_a_request_is_a_line_without_its_key(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, logger="comptoir.access")
        async with open_post(tmp_path) as post, aiohttp.ClientSession(post.url) as session:
            await session.get("/users/me", params={"api_key": post.buyer_key})

        (record,) = [one for one in caplog.records if one.name == "comptoir.access"]
        assert record.getMessage() == "GET /users/me"
        assert (record.status, record.peer) == (200, "127.0.0.1")  # type: ignore[attr-defined]
        assert post.buyer_key not in str(vars(record))

    async def test_there_is_none_at_the_usual_level(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        async with open_post(tmp_path) as post, aiohttp.ClientSession(post.url) as session:
            await session.get("/health")

        assert not [one for one in caplog.records if one.name == "comptoir.access"]
