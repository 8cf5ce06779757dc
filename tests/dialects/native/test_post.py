"""Hosts, models, routing, audit and status."""

from comptoir.dispatch.onboard import add_host
from comptoir.hosts import NewHost
from comptoir.ledger import FEES
from comptoir.link import ModelOffer
from tests.dialects.native.conftest import Caller


class TestHosts:
    async def test_anybody_sees_offers_pace_and_reputation(self, core: Caller) -> None:
        await core.buy()

        status, page = await core.get("/hosts", key=None)

        assert (status, page["total"]) == (200, 1)
        (host,) = page["hosts"]
        assert (host["status"], host["slots"], host["earned_uusd"]) == ("active", 8, None)
        assert host["models"][0]["name"] == "trivial"
        assert host["models"][0]["price_out_uusd_per_mtok"] == 100_000_000
        assert host["models"][0]["pace"]["measured"] is True
        assert host["reputation"]["jobs_done"] == 1
        assert "1 answered" in host["reputation"]["sentence"]

    async def test_a_model_nobody_has_lists_nobody(self, core: Caller) -> None:
        assert (await core.get("/hosts?model=gpt"))[1] == {"hosts": [], "total": 0}

    async def test_an_owner_sees_its_own_with_earnings(self, core: Caller) -> None:
        mine = NewHost(gpu="RTX", models=(ModelOffer("m", ["chat"]),), owner_id=core.post.buyer_id)
        await add_host(core.post.core, mine)

        _, page = await core.get("/hosts?mine=true")

        assert [(host["gpu"], host["earned_uusd"], host["promo_uusd"]) for host in page["hosts"]] == [("RTX", 0, 0)]

    async def test_mine_needs_a_user(self, core: Caller) -> None:
        for key in (None, "host"):
            assert (await core.get("/hosts?mine=true", key=key))[0] == 401, key


class TestOwnHost:
    async def test_it_sees_earnings_and_why_it_is_trusted(self, core: Caller) -> None:
        await core.buy()

        status, host = await core.get("/host", key="host")

        assert (status, host["linked"], host["open_jobs"]) == (200, True, [])
        assert host["earned_uusd"] == host["account"]["balance_uusd"] == host["promo_uusd"] == 441
        assert [one["amount_uusd"] for one in host["transfers"]] == [441]
        assert host["reputation"]["score"] == 0.25, "promotional credit makes no name"
        assert "1 answered" in host["reputation"]["sentence"]

    async def test_a_user_is_no_host(self, core: Caller) -> None:
        assert (await core.get("/host"))[0] == 403


class TestModels:
    async def test_they_show_the_cheapest_price(self, core: Caller) -> None:
        status, page = await core.get("/models", key=None)

        assert status == 200
        assert page["models"] == [
            {
                "name": "trivial", "kinds": ["chat", "completion"], "hosts": 1, "price_in_uusd_per_mtok": 1_000_000,
                "price_out_uusd_per_mtok": 100_000_000, "context_tokens": 1_000_000, "waiting": 0,
                "prices": [
                    {"unit": "token_in", "uusd_per_million": 1_000_000, "per": 1_000_000, "words": "per million prompt tokens"},
                    {"unit": "token_out", "uusd_per_million": 100_000_000, "per": 1_000_000, "words": "per million tokens"},
                ],
                "capabilities": {},
            }
        ]  # fmt: skip


class TestRouting:
    async def test_it_says_who_and_why_and_takes_nothing(self, core: Caller) -> None:
        status, page = await core.get("/routing?model=trivial&max_tokens=10&preference=cheapest")

        assert (status, page["possible"], page["why_not"]) == (200, True, "")
        (best,) = page["ranked"]
        assert "cheapest" in best["sentence"]
        # 10 tokens at $100 and 100 prompt tokens at $1 a million.
        assert best["cost_max_uusd"] == 1100
        assert (await core.get("/hosts"))[1]["hosts"][0]["running"] == 0

    async def test_an_impossible_wish_says_which_filter(self, core: Caller) -> None:
        _, page = await core.get("/routing?model=trivial&kind=embedding")

        assert (page["possible"], page["ranked"]) == (False, [])
        assert "kind turns away 1" in page["why_not"]

    async def test_needs_can_be_tried_and_each_reason_is_told(self, core: Caller) -> None:
        nobody = "host_" + 32 * "0"
        wishes = (
            "gpu=h100&gpus=8&vram_mib=1&cpu_millis=2000000000&memory_mib=2000000000&disk_mib=2000000000&region=mars&tier=secure&min_reputation=1"
            f"&rate_cap=token_out:99&rate_cap=token_in:1000000&allow={nobody}"
        )

        _, page = await core.get(f"/routing?model=trivial&{wishes}")

        assert (page["possible"], page["ranked"]) == (False, [])
        for name in (
            "tier", "VRAM", "GPU", "GPU count", "CPU", "memory", "disk", "region", "rate cap", "allow list", "reputation floor"
        ):  # fmt: skip
            assert f"{name} turns away 1 (for example host_" in page["why_not"]
        assert "token_in" not in page["why_not"]
        _, page = await core.get(f"/routing?model=trivial&deny={nobody}&rate_cap=token_out:100000000")
        assert page["possible"] and page["ranked"]

    async def test_a_wish_that_is_none_is_refused(self, core: Caller) -> None:
        for wish in ("rate_cap=token_out", "allow=me", "min_reputation=2", "gpus=-1"):
            status, _ = await core.get(f"/routing?model=trivial&{wish}")

            assert status == 422, wish

    async def test_an_unknown_model_has_no_host(self, core: Caller) -> None:
        _, page = await core.get("/routing?model=gpt")

        assert (page["possible"], page["why_not"]) == (False, "No registered host offers the model gpt.")

    async def test_an_unknown_strategy_lists_those_there_are(self, core: Caller) -> None:
        status, body = await core.get("/routing?model=trivial&preference=luckiest")

        assert status == 422
        assert "balanced" in body["error"]["message"]


class TestAudit:
    async def test_books_in_order_have_no_difference(self, core: Caller) -> None:
        await core.buy()

        status, found = await core.get("/audit", key="admin")

        assert (status, found["ok"], found["differences"]) == (200, True, [])

    async def test_a_forged_balance_is_named(self, core: Caller) -> None:
        core.post.forged = True
        await core.post.core.db.run(
            lambda tx: tx.execute("UPDATE accounts SET balance_uusd = balance_uusd + 7 WHERE id = ?", [FEES])
        )

        _, found = await core.get("/audit", key="admin")

        assert found["ok"] is False
        assert {(one["what"], int(one["recorded"]) - int(one["recomputed"])) for one in found["differences"]} == {
            ("balance", 7),
            ("sum", 7),
        }

    async def test_it_is_the_operators(self, core: Caller) -> None:
        assert (await core.get("/audit"))[0] == 403


class TestStatus:
    async def test_it_counts(self, core: Caller) -> None:
        await core.buy()

        status, now = await core.get("/status", key=None)

        assert status == 200
        assert (now["status"], now["hosts_active"], now["models"], now["jobs_ended"]) == (
            "open",
            1,
            1,
            {"completed": 1},
        )
        assert now["coordinator_key"] == core.post.core.receipts.keyid
