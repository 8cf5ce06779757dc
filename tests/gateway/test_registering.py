"""What registering a host or a user asks for, by every way in: nothing, a key, or an invitation."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.kit.signing import SigningKey
from tests.dialects.infrintia.caller import REGISTRATION, Answer, Caller
from tests.dialects.infrintia.conftest import Market, market_of
from tests.post import open_post

OFFER = {"name": "m", "kinds": ["chat"]}
OFFER |= {"context_tokens": 4096, "price_in_uusd_per_mtok": 1, "price_out_uusd_per_mtok": 1, "can_continue": False}

WAYS_IN: dict[str, dict[str, Any]] = {
    "/link/register": {"models": [OFFER]},
    "/house/hosts": {"transport": "poll", "models": [OFFER]},
    "/hosts/register": REGISTRATION,
}
"""Every path that makes a host, and a body for it."""


def generated(number: int) -> str:
    """Return a verify key, another for each number."""
    return SigningKey(number.to_bytes(32, "big")).public_key.hex()


def body_for(path: str, number: int) -> dict[str, Any]:
    return WAYS_IN[path] | ({"public_key": generated(number)} if path == "/link/register" else {})


@pytest.fixture
def settings() -> dict[str, Any]:
    return {}


@pytest.fixture
async def market(tmp_path: Path, settings: dict[str, Any]) -> AsyncIterator[Market]:
    async with open_post(tmp_path, **settings) as post, aiohttp.ClientSession() as session:
        yield market_of(post, session)


async def invite(market: Market, **fields: Any) -> dict[str, Any]:
    made = await market.admin.post("/house/invitations", {"invited_as": "host"} | fields)
    assert made.status == 201, made.text
    found: dict[str, Any] = made.body
    return found


def words(answer: Answer) -> str:
    """Return what a refusal says, in whichever dialect's shape."""
    return str(answer.body["detail"] if "detail" in answer.body else answer.body["error"]["message"])


async def tried(caller: Caller, number: int, **fields: Any) -> dict[str, Answer]:
    """Register a host by every way in."""
    return {
        path: await caller.post(path, body_for(path, number * 10 + at) | fields) for at, path in enumerate(WAYS_IN, 1)
    }


class TestHosts:
    async def test_the_block_of_addresses_is_kept_of_hosts_without_an_owner_only(self, market: Market) -> None:
        core = market.core
        for caller, number, kept in ((market.anyone, 1, "127.0.0.0/24"), (market.buyer, 2, None)):
            before = {host.id for host in core.fleet}
            assert {one.status for one in (await tried(caller, number)).values()} == {201}
            new = [host.id for host in core.fleet if host.id not in before]

            assert [(await core.hosts.read(host_id)).address_block for host_id in new] == [kept] * len(WAYS_IN)

    @pytest.mark.parametrize("settings", [{"host_registration": "key"}])
    async def test_a_key_is_asked_for_by_every_way_in(self, market: Market) -> None:
        for path, answer in (await tried(market.anyone, 1)).items():
            assert answer.status == 403, path
            assert "send a user's key" in words(answer), path
        assert {one.status for one in (await tried(market.buyer, 2)).values()} == {201}

    @pytest.mark.parametrize("settings", [{"host_registration": "invitation"}])
    async def test_an_invitation_is_asked_for_by_every_way_in(self, market: Market) -> None:
        for caller, number in ((market.anyone, 1), (market.buyer, 2)):
            for path, answer in (await tried(caller, number)).items():
                assert answer.status == 403, path
                assert "ask the operator for one" in words(answer), path
        for path, answer in (await tried(market.anyone, 3, invitation="inv_" + "x" * 32)).items():
            assert (answer.status, "not known here" in words(answer)) == (403, True), path
        assert len(market.core.fleet) == 0
        assert {one.status for one in (await tried(market.admin, 4)).values()} == {201}

        made = await invite(market, uses=2)
        answers = list((await tried(market.buyer, 5, invitation=made["invitation"])).values())

        assert [one.status for one in answers] == [201, 201, 403]
        assert "used up" in words(answers[-1])
        (listed,) = (await market.admin.get("/house/invitations")).body["invitations"]
        assert (listed["state"], listed["uses"], listed["id"]) == ("used up", 2, made["id"])

    @pytest.mark.parametrize("settings", [{"host_registration": "invitation"}])
    async def test_a_repeat_gets_the_same_host_and_uses_nothing(self, market: Market) -> None:
        made = await invite(market)
        body = body_for("/house/hosts", 0) | {"invitation": made["invitation"]}

        answers = [await market.buyer.post("/house/hosts", body, idempotency_key="once") for _ in range(2)]

        assert [one.status for one in answers] == [201, 201]
        assert answers[0].body == answers[1].body

    @pytest.mark.parametrize("settings", [{"host_registration": "invitation"}])
    async def test_a_registration_that_is_refused_uses_nothing(self, market: Market) -> None:
        made = await invite(market)
        taken = body_for("/link/register", 7)
        assert (await market.admin.post("/link/register", taken)).status == 201

        assert (await market.buyer.post("/link/register", taken | {"invitation": made["invitation"]})).status == 409
        assert (
            await market.buyer.post(
                "/link/register", body_for("/link/register", 8) | {"invitation": made["invitation"]}
            )
        ).status == 201

    async def test_where_nothing_is_asked_for_one_that_is_given_has_to_be_good(self, market: Market) -> None:
        """A typing error is said, and an operator sees who came with what was given away."""
        assert (await market.anyone.post("/hosts/register", REGISTRATION | {"invitation": "inv_typo"})).status == 403
        made = await invite(market)
        given = REGISTRATION | {"invitation": made["invitation"]}
        assert [(await market.anyone.post("/hosts/register", given)).status for _ in range(2)] == [201, 403]


BOND_UUSD = 300_000


class TestBonds:
    @pytest.mark.parametrize("settings", [{"host_registration": "bond", "host_bond_uusd": BOND_UUSD}])
    async def test_a_bond_is_asked_for_by_every_way_in_and_shown(self, market: Market) -> None:
        await market.core.ledger.deposit(owner_id=market.post.buyer_id, amount_uusd=3 * BOND_UUSD)
        for path, answer in (await tried(market.anyone, 1)).items():
            assert (answer.status, "send a user's key" in words(answer)) == (403, True), path
        before = (await market.buyer.get("/house/me")).body["account"]["free_uusd"]

        made = await tried(market.buyer, 2)

        assert {one.status for one in made.values()} == {201}
        assert [made[path].body["bond_uusd"] for path in ("/link/register", "/house/hosts")] == [BOND_UUSD] * 2
        assert before - (await market.buyer.get("/house/me")).body["account"]["free_uusd"] == 3 * BOND_UUSD
        mine = (await market.buyer.get("/house/hosts?mine=true")).body["hosts"]
        assert [host["bond_uusd"] for host in mine] == [BOND_UUSD] * 3
        assert [host["bond_uusd"] for host in (await market.admin.get("/house/hosts")).body["hosts"]] == [None] * 3
        own = await Caller(market.buyer.session, market.post.url, made["/link/register"].body["api_key"]).get(
            "/house/host"
        )
        assert (own.body["bond_uusd"], own.body["earned_uusd"]) == (BOND_UUSD, 0)
        rows = (await market.buyer.get("/house/statement")).body["transfers"]
        assert [(row["kind"], row["amount_uusd"], row["with"]) for row in rows[:3]] == [
            ("bond", -BOND_UUSD, "bonds")
        ] * 3

    @pytest.mark.parametrize("settings", [{"host_registration": "bond", "host_bond_uusd": BOND_UUSD}])
    async def test_an_owner_who_does_not_cover_it_is_told_by_every_way_in(self, market: Market) -> None:
        """His credit of signing up would, which is a promotion."""
        assert (await market.core.ledger.account(market.post.buyer_id)).free_uusd > BOND_UUSD
        for path, answer in (await tried(market.buyer, 1)).items():
            assert (answer.status, "add credit, and register again" in words(answer)) == (402, True), path
        assert len(market.core.fleet) == 0
        assert {one.status for one in (await tried(market.admin, 2)).values()} == {201}

    @pytest.mark.parametrize("settings", [{"host_registration": "bond", "host_bond_uusd": BOND_UUSD}])
    async def test_a_repeat_or_a_refusal_puts_up_nothing_more(self, market: Market) -> None:
        await market.core.ledger.deposit(owner_id=market.post.buyer_id, amount_uusd=BOND_UUSD)
        body = body_for("/house/hosts", 0)
        made = [await market.buyer.post("/house/hosts", body, idempotency_key="once") for _ in range(2)]
        assert made[0].body == made[1].body and made[0].body["bond_uusd"] == BOND_UUSD

        await market.core.ledger.deposit(owner_id=market.post.buyer_id, amount_uusd=BOND_UUSD)
        taken = body_for("/link/register", 9)
        assert (await market.admin.post("/link/register", taken)).status == 201
        assert (await market.buyer.post("/link/register", taken)).status == 409

        rows = (await market.buyer.get("/house/statement")).body["transfers"]
        assert [row["kind"] for row in rows].count("bond") == 1


def person(name: str, **fields: Any) -> dict[str, Any]:
    return {"username": name, "email": f"{name}@example.org", "password": "correct-horse", **fields}


class TestUsers:
    @pytest.mark.parametrize("settings", [{"user_registration": "invitation"}])
    async def test_an_invitation_lets_in_as_many_as_it_says_with_its_credit(self, market: Market) -> None:
        refused = await market.anyone.post("/users", person("eve"))
        assert refused.status == 403 and "takes an invitation" in refused.body["detail"]
        made = await invite(market, invited_as="user", uses=2, credits="2.5")
        for_hosts = await invite(market)
        wrong = await market.anyone.post("/users", person("eve", invitation=for_hosts["invitation"]))
        assert wrong.status == 403 and "for a host, not for a user" in wrong.body["detail"]

        keyed = {"idempotency_key": "sixteen characters"}
        ann = [
            await market.anyone.post("/users", person("ann", invitation=made["invitation"]), **keyed) for _ in range(2)
        ]
        taken = await market.anyone.post("/users", person("ann", invitation=made["invitation"]))
        bob = await market.anyone.post("/users", person("bob", invitation=made["invitation"]))
        late = await market.anyone.post("/users", person("joe", invitation=made["invitation"]))

        assert [one.status for one in (*ann, taken, bob, late)] == [201, 201, 409, 201, 403]
        assert ann[0].body == ann[1].body and bob.body["credits"] == 2.5
        assert "used up" in late.body["detail"]

    @pytest.mark.parametrize("settings", [{"user_registration": "closed"}])
    async def test_closed_is_closed_to_the_invited_too(self, market: Market) -> None:
        made = await invite(market, invited_as="user")

        for body in (person("eve"), person("eve", invitation=made["invitation"])):
            answer = await market.anyone.post("/users", body)
            assert answer.status == 403 and "ask its operator" in answer.body["detail"]


class TestInvitations:
    async def test_they_are_the_operators(self, market: Market) -> None:
        made = await invite(market, note="for Ada")
        paths = (("POST", "/house/invitations"), ("GET", "/house/invitations"))
        for method, path in (*paths, ("POST", f"/house/invitations/{made['id']}/revoke")):
            for caller, status in ((market.buyer, 403), (market.anyone, 401)):
                body = {"invited_as": "host"} if method == "POST" else None
                assert (await caller.ask(method, path, body=body)).status == status, (method, path)

    async def test_made_once_listed_and_revoked(self, market: Market) -> None:
        body = {"invited_as": "user", "uses": 3, "days": 2, "note": "for Ada"}
        made = [await market.admin.post("/house/invitations", body, idempotency_key="one") for _ in range(2)]
        assert made[0].body == made[1].body
        await invite(market)

        page = (await market.admin.get("/house/invitations?limit=1")).body
        older = (await market.admin.get(f"/house/invitations?limit=1&before={page['next']}")).body
        (listed,) = older["invitations"]

        assert older["next"] is None
        assert listed == {name: value for name, value in made[0].body.items() if name != "invitation"}
        assert listed["expires_ms"] - listed["created_ms"] == 2 * 24 * 3600 * 1000

        gone = [await market.admin.post(f"/house/invitations/{listed['id']}/revoke") for _ in range(2)]
        assert gone[0].body == gone[1].body and gone[0].body["state"] == "revoked"
        for unknown in ("invitation_" + "0" * 32, "nonsense"):
            assert (await market.admin.post(f"/house/invitations/{unknown}/revoke")).status == 404
