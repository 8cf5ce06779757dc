"""A chat whose client names no bound: as long as context and credit allow, and what ended it is said."""

from typing import Any

import msgspec
import pytest

from comptoir.dispatch.onboard import add_user
from tests.dialects.openai.shop import ROLE, STOP, Response, Shop
from tests.worker.openai_stand_in import delta, usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = 3_000
CREDIT_UUSD = 1_000_000
"""What a newcomer has: enough for 9,999 tokens and a short prompt."""


def open_ended(shop: Shop, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    body = shop.chat(stream=stream, **fields)
    del body["max_tokens"]
    return {**body, "stream_options": {"include_usage": True}} if stream else body


def talkative(shop: Shop, words: int = WORDS) -> list[Any]:
    """Have the engine say so many words."""
    return shop.says(ROLE, *[delta({"content": "word "})] * words, STOP, usage(5, words))


def said(response: Response, *, stream: bool) -> tuple[str, str, dict[str, Any]]:
    """Return text, finish reason and usage."""
    if not stream:
        (choice,) = response.json["choices"]
        return choice["message"]["content"], choice["finish_reason"], response.json["usage"]
    *events, last, _ = response.events
    choices = [event["choices"][0] for event in events]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return text, choices[-1]["finish_reason"], last["usage"]


class TestWhole:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("bound", [{}, {"max_tokens": None}, {"max_completion_tokens": None}])
    async def test_it_comes_whole_and_is_paid_exactly(self, shop: Shop, stream: bool, bound: dict[str, Any]) -> None:
        """It was cut at 2,048 tokens, though the client had asked for no bound."""
        seen = talkative(shop)
        before, _ = await shop.balance()

        response = await shop.ask({**open_ended(shop, stream=stream), **bound})
        await shop.idle()

        text, reason, used = said(response, stream=stream)
        assert (text, reason) == ("word " * WORDS, "stop")
        cost_uusd = 5 + WORDS * 100
        assert used == {
            "prompt_tokens": 5, "completion_tokens": WORDS, "total_tokens": WORDS + 5, "cost": cost_uusd / 1_000_000,
        }  # fmt: skip
        assert await shop.balance() == (before - cost_uusd, 0)
        assert seen[0].json["max_tokens"] == shop.post.core.settings.max_tokens_max

    async def test_several_choices_grow_together(self, shop: Shop) -> None:
        pieces = [delta({"content": "a "}, index=index) for index in range(2) for _ in range(WORDS)]
        ends = [delta({}, index=index, finish_reason="stop") for index in range(2)]
        shop.says(*pieces, *ends, usage(5, 2 * WORDS))

        response = await shop.ask(open_ended(shop, n=2))

        assert [choice["message"]["content"] for choice in response.json["choices"]] == ["a " * WORDS] * 2
        assert response.json["usage"]["completion_tokens"] == 2 * WORDS

    async def test_a_whole_answer_in_one_piece_is_paid_whole(self, shop: Shop) -> None:
        shop.says(delta({"content": "word " * WORDS}), STOP, usage(5, WORDS))

        response = await shop.ask(open_ended(shop))

        assert response.json["usage"]["completion_tokens"] == WORDS

    async def test_a_bound_that_is_named_is_kept(self, shop: Shop) -> None:
        talkative(shop)

        response = await shop.ask(shop.chat(max_tokens=2_100))

        text, reason, used = said(response, stream=False)
        assert (text, reason, used["completion_tokens"]) == ("word " * 2_100, "length", 2_100)
        assert "limited_by" not in used


class TestCredit:
    @pytest.mark.parametrize("stream", [False, True])
    async def test_it_ends_where_credit_does_and_says_so(self, shop: Shop, stream: bool) -> None:
        talkative(shop, 12_000)
        poor = await add_user(shop.post.core, username=f"poor-{stream}", email=None, password=None)

        response = await shop.ask(open_ended(shop, stream=stream), key=poor.key)
        await shop.idle()

        text, reason, used = said(response, stream=stream)
        tokens = used["completion_tokens"]
        # What is left is the prompt's part of the hold, and what is less than a token.
        assert 9_990 < tokens < 10_000
        assert (text, reason, used["limited_by"]) == ("word " * tokens, "length", "credit")
        account = await shop.post.core.ledger.account(poor.user.id)
        assert account.balance_uusd == CREDIT_UUSD - tokens * 100
        assert account.held_uusd == 0
        listed = await shop.call("GET", "/house/jobs", key=poor.key)
        (job,) = msgspec.json.decode(listed.body)["jobs"]
        assert job["max_tokens"] == tokens

    async def test_who_can_not_pay_the_first_step_is_refused_at_once(self, shop: Shop) -> None:
        talkative(shop)
        broke = await add_user(shop.post.core, username="broke", email=None, password=None)
        talkative(shop, 9_000)
        await shop.ask(open_ended(shop), key=broke.key)

        response = await shop.ask(open_ended(shop), key=broke.key)

        assert (response.status, response.json["error"]["type"]) == (402, "insufficient_quota")
