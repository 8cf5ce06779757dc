"""The same request under one Idempotency-Key, at two coordinators of one database at the same moment."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.app import open_core, running
from comptoir.dispatch.onboard import add_user
from comptoir.identity import Role
from comptoir.reports import audit
from comptoir.settings import Settings
from tests.dialects.infrintia.caller import LLAMA, Answer, Caller
from tests.post import QUICK
from tests.redis_server import RedisServer

ROUNDS = 12
"""Who is first is chance; over so many rounds both orders, and both at once, come up."""


class Pair:
    """Two coordinators of one trading post, and people who know both."""

    def __init__(self, session: aiohttp.ClientSession, urls: list[str], *, buyer_key: str, admin_key: str) -> None:
        self.anyone = [Caller(session, url) for url in urls]
        self.buyer = [Caller(session, url, buyer_key) for url in urls]
        self.admin = [Caller(session, url, admin_key) for url in urls]

    async def at_once(self, callers: list[Caller], path: str, body: Any, key: str) -> list[Answer]:
        """Send the same request to both, twice to each."""
        asked = [caller.post(path, body, idempotency_key=key) for caller in callers * 2]
        return list(await asyncio.gather(*asked))


@pytest.fixture
async def pair(tmp_path: Path, postgres_address: str, redis_server: RedisServer) -> AsyncIterator[Pair]:
    settings = Settings(data=str(tmp_path / "data"), database=postgres_address, bus=redis_server.url, port=0, **QUICK)
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(open_core(settings))
        two = await stack.enter_async_context(open_core(settings))
        buyer = await add_user(one, username="ada", email="ada@example.org", password="correct-horse")
        admin = await add_user(
            one, username="root", email="root@example.org", password="correct-horse", role=Role.ADMIN
        )
        urls = [await stack.enter_async_context(running(core)) for core in (one, two)]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Pair(session, urls, buyer_key=buyer.key, admin_key=admin.key)
        assert await audit(one.db) == []


def same(answers: list[Answer], status: int) -> Any:
    """Check that everybody got the same answer, and return it."""
    assert [(answer.status, answer.body) for answer in answers] == [(status, answers[0].body)] * len(answers)
    return answers[0].body


class TestTwoCoordinators:
    async def test_make_one_user(self, pair: Pair) -> None:
        for number in range(ROUNDS):
            body = {"username": f"user{number}", "email": f"user{number}@example.org", "password": "correct-horse"}

            made = same(await pair.at_once(pair.anyone, "/users", body, f"user-key-{number}"), 201)

            assert (await pair.anyone[1].get("/users/me", authorization=f"Bearer {made['api_key']}")).status == 200
        assert (await pair.admin[0].get("/admin/users")).body["total"] == ROUNDS + 2

    async def test_make_one_host(self, pair: Pair) -> None:
        for number in range(ROUNDS):
            body = {"gpu": "A100", "models": [LLAMA], "price_per_token": 0.0001}

            same(await pair.at_once(pair.anyone, "/hosts/register", body, f"a-long-host-key-{number}"), 201)

    async def test_change_keys_once(self, pair: Pair) -> None:
        for number in range(ROUNDS):
            body = {"username": f"user{number}", "email": f"user{number}@example.org", "password": "correct-horse"}
            key = (await pair.anyone[0].post("/users", body)).body["api_key"]
            owner = [Caller(caller.session, caller.url, key) for caller in pair.anyone]
            # Both know the key before it is revoked, so that both get as far as changing it.
            for caller in owner:
                await caller.get("/users/me")

            answers = await pair.at_once(owner, "/users/rotate-key", None, "k")

            changed = [answer for answer in answers if answer.status == 200]
            assert changed
            new = same(changed, 200)["api_key"]
            # Whoever comes after the old key ended is nobody; that is no failure of the changing.
            assert {answer.status for answer in answers} <= {200, 401}
            assert (await pair.anyone[1].get("/users/me", authorization=f"Bearer {new}")).status == 200

    async def test_buy_once(self, pair: Pair) -> None:
        await self._offer_at_both(pair)
        for number in range(ROUNDS):
            body = {"model": LLAMA, "input_text": "hello", "max_tokens": 10}

            made = same(await pair.at_once(pair.buyer, "/run/model", body, f"k{number}"), 202)

        left = (await pair.buyer[0].get("/users/me")).body["credits"]
        assert left == pytest.approx(100 - ROUNDS * made["credits_reserved"])

    async def test_buy_once_with_credit_for_one(self, pair: Pair) -> None:
        """Who is second finds the credit spent, by the first."""
        await self._offer_at_both(pair, price_per_token=0.0003)
        for number in range(ROUNDS):
            body = {"username": f"user{number}", "email": f"user{number}@example.org", "password": "correct-horse"}
            key = (await pair.anyone[0].post("/users", body)).body["api_key"]
            buyer = [Caller(caller.session, caller.url, key) for caller in pair.anyone]
            work = {"model": LLAMA, "input_text": "hello", "max_tokens": 2_000}

            same(await pair.at_once(buyer, "/run/model", work, "k"), 202)

    async def test_credit_money_once(self, pair: Pair) -> None:
        for number in range(ROUNDS):
            answers = await pair.at_once(pair.admin, "/house/deposit", {"credits": 5, "owner": "ada"}, f"k{number}")

            assert {answer.status for answer in answers} == {201}
            assert len({answer.body["transfer"] for answer in answers}) == 1
        assert (await pair.buyer[0].get("/users/me")).body["credits"] == 100 + 5 * ROUNDS

    async def _offer_at_both(self, pair: Pair, *, price_per_token: float = 0.0001) -> None:
        """Have a model at each coordinator; nobody takes the jobs."""
        for caller in pair.anyone:
            await caller.register(price_per_token=price_per_token)
