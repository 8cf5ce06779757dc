"""Errors and headers: what is refused, in OpenAI's shape, and what every answer carries."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.dialects.openai.errors import error_object, render_error, retry_headers, status_of
from comptoir.dialects.openai.headers import duration
from comptoir.dispatch.errors import NoHostPossible, PromptTooLong, QueueFull, TooManyJobs, UnknownModel
from comptoir.kit.errors import (
    InvalidField,
    NotAllowed,
    NotAuthenticated,
    Refusal,
    TooManyRequests,
    Unavailable,
)
from comptoir.kit.http import MethodNotAllowed, PayloadTooLarge, UnsupportedBody
from comptoir.ledger import InsufficientCredit
from tests.dialects.openai.shop import MODEL, ROLE, STOP, Shop, open_shop
from tests.worker.openai_stand_in import delta, usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

USER = [{"role": "user", "content": "hi"}]
INVALID, SERVER = "invalid_request_error", "server_error"


class TestTable:
    @pytest.mark.parametrize(
        ("error", "status", "kind", "param", "code"),
        [
            (UnsupportedBody("x"), 400, INVALID, None, None),
            (InvalidField("n", "must be >= 1"), 400, INVALID, "n", None),
            (NoHostPossible("x"), 400, INVALID, "model", "no_host_possible"),
            (NotAuthenticated("x"), 401, "authentication_error", None, "invalid_api_key"),
            (InsufficientCredit(needed_uusd=2, free_uusd=1), 402, "insufficient_quota", None, "insufficient_quota"),
            (NotAllowed("x"), 403, "permission_error", None, None),
            (UnknownModel("gpt-9", ()), 404, INVALID, "model", "model_not_found"),
            (MethodNotAllowed(("POST",)), 405, INVALID, None, "method_not_allowed"),
            (PayloadTooLarge(1), 413, INVALID, None, None),
            (PromptTooLong(1), 413, INVALID, "messages", "context_length_exceeded"),
            (TooManyRequests("x", retry_after_s=0.25), 429, "rate_limit_error", None, "rate_limit_exceeded"),
            (TooManyJobs(1), 429, "rate_limit_error", None, "too_many_jobs"),
            (QueueFull(1), 503, SERVER, None, None),
            (Unavailable("x"), 503, SERVER, None, None),
            (ValueError("secret"), 500, SERVER, None, None),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
    )
    async def test_each_error_has_its_status_type_param_and_code(
        self, error: Exception, status: int, kind: str, param: str | None, code: str | None
    ) -> None:
        reply = render_error(error, None)

        found = msgspec.json.decode(reply.body)["error"]
        assert (reply.status, found["type"], found["param"], found["code"]) == (status, kind, param, code)
        assert status_of(type(error)) == status
        assert list(found) == ["message", "type", "param", "code"]
        assert "secret" not in found["message"]

    async def test_every_refusal_of_the_house_has_a_status_below_500_or_says_503(self) -> None:
        classes = [Refusal]
        for one in classes:
            classes += one.__subclasses__()

        assert len(classes) > 20
        # 507: no room for a file, which only the native dialect takes.
        assert {status_of(one) for one in classes if status_of(one) >= 500} <= {503, 507}

    @pytest.mark.parametrize(
        ("status", "after_s", "headers"),
        [
            (402, 0.0, {b"x-should-retry": b"false"}),
            (402, 5.0, {b"x-should-retry": b"false"}),
            (429, 0.25, {b"retry-after": b"1", b"retry-after-ms": b"250"}),
            (503, 5.0, {b"retry-after": b"5", b"retry-after-ms": b"5000"}),
            (400, 0.0, {}),
        ],
    )
    async def test_retries_are_told(self, status: int, after_s: float, headers: dict[bytes, bytes]) -> None:
        assert dict(retry_headers(status, after_s)) == headers

    async def test_a_status_nobody_planned_is_an_invalid_request(self) -> None:
        assert error_object("x", status=418)["type"] == INVALID


class TestValidation:
    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"model": None}, "model"),
            ({"model": ""}, "model"),
            ({"messages": None}, "messages"),
            ({"messages": []}, "messages"),
            ({"messages": "hi"}, "messages"),
            ({"messages": [{"content": "x"}]}, "messages[0].role"),
            ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
            ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
            ({"temperature": 3}, "temperature"),
            ({"temperature": "hot"}, "temperature"),
            ({"top_p": 1.5}, "top_p"),
            ({"n": 0}, "n"),
            ({"n": 1000}, "n"),
            ({"max_tokens": -1}, "max_tokens"),
            ({"max_tokens": 500_000}, "max_tokens"),
            ({"max_completion_tokens": 0}, "max_completion_tokens"),
            ({"max_completion_tokens": 500_000}, "max_completion_tokens"),
            ({"stream": "yes"}, "stream"),
            ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
            ({"stop": [1]}, "stop[0]"),
            ({"presence_penalty": -3}, "presence_penalty"),
            ({"top_logprobs": 21}, "top_logprobs"),
            ({"logprobs": 3}, "logprobs"),
        ],
    )
    async def test_a_bad_chat_field_is_named(self, shop: Shop, fields: dict[str, Any], param: str) -> None:
        response = await shop.ask({"model": MODEL, "messages": USER, **fields})

        error = response.json["error"]
        assert (response.status, error["type"], error["param"]) == (400, INVALID, param)
        assert param in error["message"]

    @pytest.mark.parametrize(
        "fields", [{"input": []}, {"input": ""}, {"input": 5}, {"input": "x", "encoding_format": "hex"}]
    )
    async def test_a_bad_embedding_field_is_named(self, shop: Shop, fields: dict[str, Any]) -> None:
        response = await shop.call("POST", "/v1/embeddings", {"model": "embed-small", **fields})

        assert (response.status, response.json["error"]["param"]) == (400, list(fields)[-1])

    async def test_a_bad_completion_field_is_named(self, shop: Shop) -> None:
        response = await shop.call("POST", "/v1/completions", {"model": MODEL, "prompt": {}})

        assert (response.status, response.json["error"]["param"]) == (400, "prompt")

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null"])
    async def test_what_is_no_object_is_refused(self, shop: Shop, body: bytes) -> None:
        response = await shop.ask(body)

        assert (response.status, response.json["error"]["type"]) == (400, INVALID)

    async def test_null_means_not_given(self, shop: Shop) -> None:
        shop.says(ROLE, delta({"content": "ok"}), STOP, usage(1, 1))
        optional = (
            "max_tokens",
            "max_completion_tokens",
            "temperature",
            "top_p",
            "n",
            "stop",
            "seed",
            "logprobs",
            "tools",
            "stream",
        )

        response = await shop.ask({"model": MODEL, "messages": USER, **dict.fromkeys(optional)})

        assert response.status == 200

    async def test_every_role_and_parts_are_taken(self, shop: Shop) -> None:
        shop.says(ROLE, delta({"content": "ok"}), STOP, usage(1, 1))
        messages = [
            {"role": "developer", "content": "d"},
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "t"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
            {"role": "tool", "tool_call_id": "1", "content": "r"},
        ]

        assert (await shop.ask({"model": MODEL, "messages": messages})).status == 200


class TestRefusals:
    async def test_no_key(self, shop: Shop) -> None:
        response = await shop.ask(key="")

        assert (response.status, response.json["error"]["type"]) == (401, "authentication_error")

    async def test_a_wrong_key(self, shop: Shop) -> None:
        assert (await shop.ask(key="ck_" + "x" * 43)).status == 401

    async def test_an_unknown_model_is_named_with_those_on_offer(self, shop: Shop) -> None:
        response = await shop.ask(shop.chat(model="gpt-9", stream=True))

        assert (response.status, response.json["error"]["code"]) == (404, "model_not_found")
        assert MODEL in response.json["error"]["message"]

    async def test_a_model_of_another_kind_is_refused(self, shop: Shop) -> None:
        response = await shop.ask(shop.chat(model="embed-small"))

        assert (response.status, response.json["error"]["code"]) == (400, "no_host_possible")

    async def test_paths_and_methods_answer_in_this_shape(self, shop: Shop) -> None:
        nowhere = await shop.call("GET", "/v1/nowhere")
        method = await shop.call("GET", "/v1/chat/completions")

        assert (nowhere.status, nowhere.json["error"]["type"]) == (404, INVALID)
        assert (method.status, method.headers["allow"]) == (405, "POST")
        assert nowhere.headers["x-request-id"].startswith("req_")

    async def test_a_prefix_serves_the_same(self, shop: Shop) -> None:
        assert (await shop.call("GET", "/openai/v1/models")).json == (await shop.call("GET", "/v1/models")).json

    async def test_no_money_is_402_and_not_retried(self, tmp_path: Path) -> None:
        async with open_shop(tmp_path) as poor:
            core = poor.post.core
            seen = poor.says(ROLE, STOP)
            response = await poor.call(
                "POST", "/v1/chat/completions", poor.chat(n=9, max_tokens=131_072), key=poor.post.admin_key
            )
            assert len(core.jobs.live) == 0

        assert (response.status, response.json["error"]["code"]) == (402, "insufficient_quota")
        assert response.headers["x-should-retry"] == "false"
        assert seen == []

    async def test_too_many_requests_say_when_to_come_back(self, tmp_path: Path) -> None:
        async with open_shop(tmp_path, requests_per_minute_per_key=3) as busy:
            answers = [await busy.call("GET", "/v1/models") for _ in range(4)]

        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        refused = answers[-1]
        assert refused.json["error"]["code"] == "rate_limit_exceeded"
        assert 0 < int(refused.headers["retry-after-ms"]) <= 20_000
        assert int(refused.headers["retry-after"]) == 20
        assert answers[0].headers["x-ratelimit-limit-requests"] == "3"
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers[:3]] == ["2", "1", "0"]
        assert answers[0].headers["x-ratelimit-reset-requests"] == "20s"


class TestHeaders:
    async def test_every_answer_carries_them(self, shop: Shop) -> None:
        shop.says(ROLE, delta({"content": "ok"}), STOP, usage(1, 1))
        answers = [
            await shop.ask(),
            await shop.ask(shop.chat(stream=True)),
            await shop.call("GET", "/v1/models"),
            await shop.ask({}),
            await shop.ask(shop.chat(model="gpt-9")),
        ]

        for answer in answers:
            assert re.fullmatch(r"req_[0-9a-f]+", answer.headers["x-request-id"])
            assert answer.headers["openai-processing-ms"].isdigit()
            assert answer.headers["openai-version"] == "2020-10-01"
            assert int(answer.headers["x-ratelimit-remaining-requests"]) <= int(
                answer.headers["x-ratelimit-limit-requests"]
            )
        assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0.0, b"0ms"), (0.0124, b"12ms"), (1.5, b"1.5s"), (59.99, b"59.99s"), (90.7, b"1m30s")]
    )
    async def test_durations_are_spelled_as_theirs(self, seconds: float, text: bytes) -> None:
        assert duration(seconds) == text

    async def test_a_browser_may_ask_first(self, shop: Shop) -> None:
        headers = {
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
        }

        response = await shop.call("OPTIONS", "/v1/chat/completions", key="", headers=headers)

        assert response.status == 204
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert "POST" in response.headers["access-control-allow-methods"]
        assert response.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"

    async def test_a_browser_may_read_answers_and_errors(self, shop: Shop) -> None:
        shop.says(ROLE, delta({"content": "ok"}), STOP, usage(1, 1))

        for body in (shop.chat(), shop.chat(stream=True), {}):
            response = await shop.ask(body, headers={"Origin": "https://app.example"})
            assert response.headers["access-control-allow-origin"] == "https://app.example"
            assert "x-should-retry" in response.headers["access-control-expose-headers"]

    async def test_a_foreign_page_may_not(self, shop: Shop) -> None:
        response = await shop.call("GET", "/v1/models", headers={"Origin": "https://evil.example"})

        assert "access-control-allow-origin" not in response.headers
