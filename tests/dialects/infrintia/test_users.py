"""People, their keys and their jobs; and what a repeated request gets."""

import asyncio
import base64
from typing import Any

import pytest

from comptoir.ledger import audit
from tests.dialects.infrintia.caller import LLAMA, REGISTRATION, Caller
from tests.dialects.infrintia.conftest import Market

ALICE = {"username": "alice", "email": "alice@example.com", "password": "secure-password-123"}


def basic(name: str, password: str) -> str:
    """Return a Basic credential."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class TestUsers:
    async def test_the_key_and_the_password_both_work(self, market: Market) -> None:
        made = await market.anyone.post("/users", ALICE)
        by_key = Caller(market.anyone.session, market.post.url, made.body["api_key"])

        for answer in (
            await by_key.get("/users/me"),
            await market.anyone.get("/users/me", authorization=basic("alice", ALICE["password"])),
            await market.anyone.get("/users/me", authorization=basic(ALICE["email"], ALICE["password"])),
            await market.anyone.get("/users/me", x_api_key=made.body["api_key"]),
        ):
            assert answer.status == 200
            assert answer.body["user_id"] == made.body["user_id"]

    async def test_rotating_ends_the_old_key(self, market: Market) -> None:
        rotated = await market.buyer.post("/users/rotate-key")
        new = Caller(market.buyer.session, market.post.url, rotated.body["api_key"])

        assert rotated.status == 200
        assert (await market.buyer.get("/users/me")).status == 401
        assert (await new.get("/users/me")).status == 200

    async def test_operators_may_come_by_header(self, market: Market) -> None:
        assert (await market.anyone.get("/admin/users", x_admin_key=market.post.admin_key)).status == 200
        assert (await market.anyone.get("/admin/users", x_admin_key=market.post.buyer_key)).status == 403

    async def test_reserved_credit_can_not_be_spent(self, market: Market) -> None:
        await market.anyone.register()
        await market.buyer.run(max_tokens=1000)

        assert (await market.buyer.get("/users/me")).body["credits"] == 90.0


class TestIdempotencyKey:
    async def test_a_repeated_user_gets_the_same_key(self, market: Market) -> None:
        first = await market.anyone.post("/users", ALICE, idempotency_key="user-key-1")

        again = await market.anyone.post("/users", ALICE, idempotency_key="user-key-1")

        assert (again.status, again.body) == (201, first.body)
        assert (await market.admin.get("/admin/users")).body["total"] == 3
        assert (
            await Caller(market.anyone.session, market.post.url, again.body["api_key"]).get("/users/me")
        ).status == 200

    async def test_a_repeated_job_is_the_same_job_and_holds_once(self, market: Market) -> None:
        await market.anyone.register()
        first = await market.buyer.run(idempotency_key="k")

        again = await market.buyer.run(idempotency_key="k")

        assert (again.status, again.body) == (202, first.body)
        assert (await market.buyer.get("/users/me")).body["credits"] == 97.44

    async def test_so_it_is_when_all_come_at_once(self, market: Market) -> None:
        await market.anyone.register()

        answers = await asyncio.gather(*(market.buyer.run(idempotency_key="k") for _ in range(20)))

        assert {answer.status for answer in answers} == {202}
        assert len({answer.body["job_id"] for answer in answers}) == 1
        assert (await market.buyer.get("/users/me")).body["credits"] == 97.44
        assert await audit(market.core.db) == []

    async def test_so_it_is_when_the_job_is_over(self, market: Market) -> None:
        host = await market.anyone.register()
        first = await market.buyer.run(idempotency_key="k")
        await host.complete((await host.next_job()).body["job_id"], tokens=["x"])

        again = await market.buyer.run(idempotency_key="k")

        assert again.body == first.body

    async def test_a_refused_first_may_be_repeated(self, market: Market) -> None:
        refused = await market.buyer.run(idempotency_key="k")
        await market.anyone.register()

        again = await market.buyer.run(idempotency_key="k")

        assert (refused.status, again.status) == (404, 202)

    async def test_the_key_is_for_one_request_only(self, market: Market) -> None:
        await market.anyone.register()
        await market.buyer.run(idempotency_key="k")

        answer = await market.buyer.run(idempotency_key="k", text="something else")

        assert answer.status == 422

    async def test_a_repeated_host_gets_the_same_key(self, market: Market) -> None:
        first = await market.buyer.post("/hosts/register", REGISTRATION, idempotency_key="h")

        again = await market.buyer.post("/hosts/register", REGISTRATION, idempotency_key="h")

        assert (again.status, again.body) == (201, first.body)
        assert (await market.admin.get("/admin/hosts")).body["total"] == 1

    async def test_without_a_credential_the_key_must_be_hard_to_guess(self, market: Market) -> None:
        """Whoever knows it, and the body, is shown the host's key."""
        short = await market.anyone.post("/hosts/register", REGISTRATION, idempotency_key="h")
        long = await market.anyone.post("/hosts/register", REGISTRATION, idempotency_key="h" * 16)

        assert (short.status, long.status) == (422, 201)

    async def test_a_repeated_rotation_gets_the_same_key(self, market: Market) -> None:
        password = basic("ada", "correct-horse")
        first = await market.anyone.post("/users/rotate-key", authorization=password, idempotency_key="r")

        again = await market.anyone.post("/users/rotate-key", authorization=password, idempotency_key="r")

        assert again.body == first.body
        assert (
            await Caller(market.anyone.session, market.post.url, again.body["api_key"]).get("/users/me")
        ).status == 200


class TestLists:
    async def test_jobs_are_filtered_and_paged(self, market: Market) -> None:
        host = await market.anyone.register()
        ids = [(await market.buyer.run(max_tokens=1)).body["job_id"] for _ in range(4)]
        await host.complete((await host.next_job()).body["job_id"], tokens=["x"])
        await host.fail((await host.next_job()).body["job_id"])
        await market.buyer.post(f"/jobs/{ids[3]}/cancel")

        async def listed(query: str) -> tuple[list[str], int]:
            body = (await market.buyer.get("/jobs" + query)).body
            return [line["job_id"] for line in body["jobs"]], body["total"]

        assert await listed("") == (ids[::-1], 4)
        assert await listed("?limit=2&offset=1") == ([ids[2], ids[1]], 4)
        assert await listed("?status=completed") == ([ids[0]], 1)
        assert await listed("?status=failed") == ([ids[1]], 1)
        assert await listed("?status=queued") == ([ids[2]], 1)
        assert await listed("?status=cancelled") == ([ids[3]], 1)

    async def test_hosts_are_filtered(self, market: Market) -> None:
        one, other = await market.anyone.register(), await market.anyone.register(models=["other"])

        async def listed(query: str) -> list[str]:
            return [host["host_id"] for host in (await market.anyone.get("/hosts" + query)).body["hosts"]]

        assert await listed("") == [one.host_id, other.host_id]
        assert await listed("?model=other") == [other.host_id]
        assert await listed("?status=offline") == []
        assert await listed("?limit=1&offset=1") == [other.host_id]

    async def test_operators_lists_are_paged_with_real_totals(self, market: Market) -> None:
        for _ in range(3):
            await market.anyone.register()

        body = (await market.admin.get("/admin/hosts?limit=2&offset=2")).body
        users = (await market.admin.get("/admin/users?limit=1&offset=1")).body

        assert (len(body["hosts"]), body["total"]) == (1, 3)
        assert ([user["username"] for user in users["users"]], users["total"]) == (["root"], 2)


class TestHeartbeat:
    async def beat(self, host: Caller, *models: str) -> Any:
        return await host.post(
            "/hosts/heartbeat", {"host_id": host.host_id, "gpu_utilization": 0.1, "available_models": models}
        )

    async def test_it_replaces_the_models_and_keeps_the_price(self, market: Market) -> None:
        host = await market.anyone.register(price_per_token=0.0000001)

        await self.beat(host, "new/model", LLAMA)

        models = (await market.anyone.get("/models")).body["models"]
        assert [model["name"] for model in models] == [LLAMA, "new/model"]
        assert {model["min_price_per_token"] for model in models} == {1e-7}
        assert (await market.anyone.get("/models/new/model")).body["available_hosts"] == 1

    async def test_without_any_model_the_host_takes_no_jobs(self, market: Market) -> None:
        host = await market.anyone.register()

        await self.beat(host)
        assert (await market.anyone.get("/models")).body["models"] == []
        await self.beat(host, LLAMA)

        assert (await market.anyone.get("/models")).body["models"][0]["name"] == LLAMA

    @pytest.mark.parametrize("names", [[LLAMA, LLAMA]])
    async def test_a_model_named_twice_counts_once(self, market: Market, names: list[str]) -> None:
        host = await market.anyone.register()

        assert (await self.beat(host, *names)).status == 200
        assert (await market.anyone.get("/hosts")).body["hosts"][0]["models"] == [LLAMA]


class TestHostsAndOwners:
    async def test_a_host_registered_with_a_users_key_is_that_users(self, market: Market) -> None:
        host = await market.buyer.register()

        assert market.core.fleet.get(bytes.fromhex(host.host_id[5:])).row.owner_id == market.post.buyer_id

    @pytest.mark.parametrize("settings", [{"hosts_max": 1}])
    async def test_there_is_room_for_only_so_many(self, market: Market) -> None:
        assert (await market.anyone.post("/hosts/register", REGISTRATION)).status == 201
        assert (await market.anyone.post("/hosts/register", REGISTRATION)).status == 403
