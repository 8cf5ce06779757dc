"""Sign-up credit is bounded by address and day, and in all by day; whoever comes beyond it starts without."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.dispatch.expire import forget
from comptoir.dispatch.onboard import DAY_MS, add_user
from comptoir.identity import InvitedAs, UsernameTaken
from comptoir.reports import audit
from tests.cluster.posts import open_posts
from tests.post import open_post
from tests.redis_server import RedisServer
from tests.street import SIGNUP_UUSD, Street, open_street

ADA, EVE = "192.0.2.1", "2001:db8:1:2::/64"
"""What counts as the address of two people."""


class Newcomers:
    """Signs people up on a street, each with a name of its own."""

    def __init__(self, street: Street) -> None:
        self.street = street
        self.number = 0

    async def credits(self, *addresses: str | None, **named: Any) -> list[int]:
        """Return what one newcomer after the other is given."""
        given = []
        for address in addresses:
            self.number += 1
            name = f"user{self.number}-{id(self)}"
            made = await add_user(self.street.core, username=name, email=None, password=None, address=address, **named)
            account = await self.street.core.ledger.account(made.user.id)
            assert account.balance_uusd == account.promo_uusd == made.credit_uusd
            assert await self.street.core.ledger.signup_credit_uusd(made.user.id) == made.credit_uusd
            given.append(made.credit_uusd)
        return given


def next_day(street: Street) -> None:
    street.clock.advance(seconds=(DAY_MS - street.clock.now_ms() % DAY_MS) / 1000)


class TestByAddress:
    async def test_so_many_of_one_address_get_it_and_others_are_not_in_its_way(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, signup_credits_per_address=2) as street:
            assert await Newcomers(street).credits(ADA, ADA, ADA, EVE, ADA, EVE, EVE) == [
                *(SIGNUP_UUSD, SIGNUP_UUSD, 0),
                *(SIGNUP_UUSD, 0, SIGNUP_UUSD, 0),
            ]

        async with open_street(tmp_path, buyer=street.buyer_id, signup_credits_per_address=2) as street:
            assert await Newcomers(street).credits(ADA, EVE) == [0, 0], "a restart forgets nothing"
            assert await audit(street.core.db) == []

    async def test_none_is_a_bound_too(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, signup_credits_per_address=0) as street:
            assert await Newcomers(street).credits(ADA, EVE, "") == [0, 0, SIGNUP_UUSD]

    async def test_programs_of_this_machine_and_what_an_operator_makes_are_not_counted_by_address(
        self, tmp_path: Path
    ) -> None:
        async with open_street(tmp_path, signup_credits_per_address=1) as street:
            assert await Newcomers(street).credits("", "", None, None) == [SIGNUP_UUSD] * 4

    async def test_a_refused_one_uses_up_nothing(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, signup_credits_per_address=1) as street:
            for _ in range(3):
                with pytest.raises(UsernameTaken):
                    await add_user(street.core, username="ada", email=None, password=None, address=ADA)

            assert await Newcomers(street).credits(ADA, ADA) == [SIGNUP_UUSD, 0]

    async def test_the_next_day_counts_anew_and_the_addresses_of_the_last_are_gone(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, signup_credits_per_address=1) as street:
            people, count = Newcomers(street), "SELECT count(*) FROM signups"
            assert await people.credits(ADA, ADA, EVE) == [SIGNUP_UUSD, 0, SIGNUP_UUSD]
            await forget(street.core)
            assert await street.core.db.fetch(count) == [(2,)]

            next_day(street)
            await forget(street.core)

            assert await street.core.db.fetch(count) == [(0,)]
            assert await people.credits(ADA, ADA) == [SIGNUP_UUSD, 0]


class TestByDay:
    async def test_so_many_in_all_get_it_however_many_addresses_there_are(self, tmp_path: Path) -> None:
        """Those of the operator count too; the buyer of the street is the first."""
        async with open_street(tmp_path, signup_credits_per_day=4) as street:
            people = Newcomers(street)

            assert await people.credits(ADA, None, "", EVE, "192.0.2.7", "", None) == [
                *(SIGNUP_UUSD, SIGNUP_UUSD, SIGNUP_UUSD),
                *(0, 0, 0, SIGNUP_UUSD),
            ]

            next_day(street)
            assert await people.credits(EVE) == [SIGNUP_UUSD]

    async def test_who_is_invited_gets_it_always(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, signup_credits_per_day=1, signup_credits_per_address=0) as street:
            people = Newcomers(street)
            invite = street.core.identity.invitations.make
            plain = await invite(invited_as=InvitedAs.USER, uses=9, days=1, made_by=street.buyer_id)
            richer = await invite(invited_as=InvitedAs.USER, uses=9, days=1, made_by=street.buyer_id, credit_uusd=7)

            assert await people.credits(ADA, ADA, invitation=plain.text) == [SIGNUP_UUSD] * 2
            assert await people.credits(ADA, invitation=richer.text) == [7]
            assert await people.credits(ADA) == [0]

    async def test_it_holds_over_coordinators_at_once(
        self, tmp_path: Path, postgres_address: str, redis_server: RedisServer
    ) -> None:
        most = {"signup_credits_per_day": 8, "signup_credits_per_address": 3}
        async with open_posts(tmp_path, database=postgres_address, bus=redis_server.url, **most) as posts:
            work = [
                add_user(core, username=f"{at}-{number}", email=None, password=None, address=address)
                for at, core in enumerate(posts.cores)
                for number, address in enumerate([ADA, EVE, "a", "b"] * 3)
            ]
            made = await asyncio.gather(*work)

            got = [address for one, address in zip(made, [ADA, EVE, "a", "b"] * 6, strict=True) if one.credit_uusd]
            # The buyer of the posts was the first of the day.
            assert len(got) == 7
            assert max(got.count(address) for address in got) <= 3


class TestOverHttp:
    async def test_who_comes_too_late_is_told_and_a_repeat_is_told_the_same(self, tmp_path: Path) -> None:
        proxied = {"trusted_proxies": ("127.0.0.1",), "signup_credits_per_address": 1}
        async with open_post(tmp_path, **proxied) as post, aiohttp.ClientSession() as session:

            async def sign_up(name: str, address: str = "") -> dict[str, Any]:
                body = {"username": name, "email": f"{name}@example.org", "password": "correct-horse"}
                headers = {"Idempotency-Key": f"the-sign-up-of-{name}"}
                headers |= {"X-Forwarded-For": address} if address else {}
                async with session.post(post.url + "/users", json=body, headers=headers) as answer:
                    assert answer.status == 201, await answer.text()
                    found: dict[str, Any] = await answer.json()
                    return found

            first, second = await sign_up("first", "2001:db8::1"), await sign_up("second", "2001:db8::ffff")
            here = [await sign_up(f"local{number}") for number in range(3)]

            assert (first["credits"], "notice" in first) == (100, False)
            assert second["credits"] == 0 and "used up" in second["notice"]
            assert [one["credits"] for one in here] == [100] * 3
            assert await sign_up("second", "2001:db8::ffff") == second
            assert await sign_up("first", "2001:db8::1") == first
