"""Who am I, what do I have, and how money comes in."""

from tests.dialects.native.conftest import Caller


class TestMe:
    async def test_a_buyer_sees_name_and_free_credit(self, core: Caller) -> None:
        status, me = await core.get("/me")

        assert status == 200
        assert (me["kind"], me["name"], me["role"]) == ("user", "ada", "buyer")
        assert me["account"] == {
            "balance_uusd": 1_000_000, "held_uusd": 0, "free_uusd": 1_000_000, "promo_uusd": 1_000_000, "payable_uusd": 0,
        }  # fmt: skip

    async def test_a_host_sees_itself(self, core: Caller) -> None:
        status, me = await core.get("/me", key="host")

        assert status == 200
        assert (me["kind"], me["role"], me["account"]["balance_uusd"]) == ("host", "host", 0)
        assert me["id"].startswith("host_")

    async def test_nobody_is_refused_in_the_house_shape(self, core: Caller) -> None:
        for key in (None, "ck_" + "x" * 43, "nonsense"):
            status, body = await core.get("/me", key=key)

            assert (status, body["error"]["code"]) == (401, "NotAuthenticated"), key


class TestStatement:
    async def test_it_shows_what_left_as_negative(self, core: Caller) -> None:
        job = await core.buy()

        _, page = await core.get("/statement")

        # 5 tokens at $100 a million and one prompt token at $1: 501; 12 % of it, rounded down, is the fee.
        assert [(one["kind"], one["amount_uusd"], one["promo_uusd"]) for one in page["transfers"]] == [
            ("fee", -60, -60),
            ("pay", -441, -441),
            ("signup", 1_000_000, 1_000_000),
        ]
        assert page["transfers"][1]["with"].startswith("host_")
        assert page["transfers"][1]["job"] == "job_" + job.id.hex()
        assert page["account"]["balance_uusd"] == sum(one["amount_uusd"] for one in page["transfers"])

    async def test_the_host_sees_the_other_side(self, core: Caller) -> None:
        await core.buy()

        _, page = await core.get("/statement", key="host")

        assert [(one["kind"], one["amount_uusd"], one["promo_uusd"]) for one in page["transfers"]] == [
            ("pay", 441, 441)
        ]
        assert (page["account"]["promo_uusd"], page["account"]["payable_uusd"]) == (441, 0)
        assert page["transfers"][0]["with"].startswith("usr_")

    async def test_pages_follow_each_other_without_gap(self, core: Caller) -> None:
        for _ in range(2):
            await core.buy()
        _, whole = await core.get("/statement")

        seen, path = [], "/statement?limit=2"
        while path:
            _, page = await core.get(path)
            seen += page["transfers"]
            path = f"/statement?limit=2&before={page['next']}" if page["next"] else ""

        assert seen == whole["transfers"]
        assert len(seen) == 5

    async def test_a_bad_page_names_its_field(self, core: Caller) -> None:
        for query, field in (("limit=0", "limit"), ("limit=x", "limit"), ("before=zz", "before")):
            status, body = await core.get(f"/statement?{query}")

            assert (status, body["error"]["field"]) == (422, field), query


BAD_DEPOSITS: list[tuple[dict[str, object], str]] = [
    ({"owner": "ada", "credits": 0}, "credits"),
    ({"owner": "ada", "credits": -1}, "credits"),
    ({"owner": "ada", "credits": 0.00001}, "credits"),
    ({"owner": "ada", "credits": 1e30}, "credits"),
    ({"owner": "ada", "credits": "1e999999999"}, "credits"),
    ({"owner": "nobody-here", "credits": 1}, "owner"),
    ({"owner": "ada\u0000", "credits": 1}, "owner"),
    ({"owner": "ada"}, "credits"),
    ({"owner": "ada", "credits": 1, "cents": 2}, "cents"),
]


class TestDeposit:
    async def test_an_operator_credits_a_buyer_by_name(self, core: Caller) -> None:
        status, made = await core.call("POST", "/deposit", key="admin", body={"owner": "ADA", "credits": 12.5})

        assert status == 201
        assert (made["amount_uusd"], made["account"]["balance_uusd"]) == (125_000, 1_125_000)

    async def test_a_repeat_with_the_same_key_credits_once(self, core: Caller) -> None:
        asked = {"body": {"owner": "ada", "credits": 1}, "headers": {"Idempotency-Key": "invoice-7"}}
        first = await core.call("POST", "/deposit", key="admin", **asked)
        second = await core.call("POST", "/deposit", key="admin", **asked)

        assert first == second
        assert first[1]["account"]["balance_uusd"] == 1_010_000

    async def test_the_same_key_for_another_amount_is_refused(self, core: Caller) -> None:
        headers = {"Idempotency-Key": "invoice-7"}
        await core.call("POST", "/deposit", key="admin", body={"owner": "ada", "credits": 1}, headers=headers)

        status, body = await core.call(
            "POST", "/deposit", key="admin", body={"owner": "ada", "credits": 2}, headers=headers
        )

        assert (status, body["error"]["code"]) == (422, "IdempotencyMismatch")

    async def test_a_buyer_can_not_give_itself_money(self, core: Caller) -> None:
        status, _ = await core.call("POST", "/deposit", body={"credits": 1})

        assert status == 403
        assert (await core.get("/me"))[1]["account"]["balance_uusd"] == 1_000_000

    async def test_a_bad_deposit_names_its_field(self, core: Caller) -> None:
        for body, field in BAD_DEPOSITS:
            status, answer = await core.call("POST", "/deposit", key="admin", body=body)

            assert (status, answer["error"].get("field")) == (422, field), (body, answer)
