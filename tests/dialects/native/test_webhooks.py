"""Webhooks over HTTP: who may do what, what is refused, what a real job's end looks like to its receiver."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from comptoir.dispatch.onboard import add_user
from comptoir.kit.ids import public
from tests.dialects.native.conftest import Caller
from tests.post import open_post
from tests.webhook_receiver import BOUND_S, WebhookReceiver, receiving

MISSING = "webhook_" + "0" * 32
URL = "https://shop.example/comptoir"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def post(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Caller]:
    """One trading post for all of them; what they make they delete."""
    async with (
        open_post(
            tmp_path_factory.mktemp("webhooks"), allow_private_endpoint_urls=True, webhooks_per_owner=2
        ) as opened,
        aiohttp.ClientSession() as session,
        opened.worker(),
    ):
        caller = Caller(opened, session)
        caller.stranger = await add_user(opened.core, username="eve", email=None, password=None)
        yield caller


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with receiving() as opened:
        yield opened


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def make(post: Caller, url: str, *, key: str = "buyer", once: str = "", **fields: Any) -> tuple[int, Any]:
    headers = {"idempotency-key": once} if once else None
    return await post.call("POST", "/webhooks", key=key, body={"url": url, **fields}, headers=headers)


async def delete(post: Caller, webhook: str) -> None:
    async with post._session.delete(
        f"{post.post.url}/house/webhooks/{webhook}", headers={"authorization": f"Bearer {post.post.buyer_key}"}
    ) as answer:
        assert answer.status == 204


async def delivered(post: Caller, webhook: str, count: int) -> list[dict[str, Any]]:
    """Wait until so many messages are delivered; return them, newest first."""
    async with asyncio.timeout(BOUND_S):
        while True:
            _, page = await post.get(f"/webhooks/{webhook}/log?state=delivered")
            if len(page["messages"]) >= count:
                found: list[dict[str, Any]] = page["messages"]
                return found
            await asyncio.sleep(0.005)


class TestMake:
    async def test_a_repeat_gets_the_same_webhook_and_secret(self, post: Caller) -> None:
        """Whose first answer was lost would otherwise never know the secret."""
        first = await make(post, URL, once="k1", types=["job.ended"], note="orders")
        again = await make(post, URL, once="k1", types=["job.ended"], note="orders")
        other = await make(post, URL, once="k1", types=[])
        _, listed = await post.get("/webhooks")
        await delete(post, first[1]["id"])

        assert first == again and first[0] == 201 and first[1]["secret"].startswith("whsec_")
        assert other[0] == 422
        assert [one["id"] for one in listed["webhooks"]] == [first[1]["id"]]
        assert "secret" not in listed["webhooks"][0]

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"url": "ftp://shop.example/"}, "url: must begin with http"),
            ({"url": "https://u:p@shop.example/"}, "url: must not contain a user name"),
            ({"types": ["job.began"]}, "types: no event is called 'job.began'; there are job.ended"),
            ({"types": ["job.ended"] * 33}, "types"),
            ({"parallel": 0}, "parallel"),
            ({"parallel": 17}, "parallel"),
            ({"note": "n" * 201}, "note"),
            ({"kind": "x"}, "kind"),
        ],
    )
    async def test_refuses(self, post: Caller, fields: dict[str, Any], says: str) -> None:
        code, body = await make(post, **{"url": URL, **fields})

        assert (code, says in body["error"]["message"]) == (422, True), body

    async def test_one_too_many(self, post: Caller) -> None:
        made = [(await make(post, URL))[1]["id"] for _ in range(2)]
        code, body = await make(post, URL)
        for webhook in made:
            await delete(post, webhook)

        assert (code, body["error"]["code"]) == (409, "TooManyWebhooks")


class TestOthers:
    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("DELETE", "", None),
            ("POST", "/pause", {}),
            ("POST", "/resume", {}),
            ("POST", "/rotate", {}),
            ("POST", "/test", {}),
            ("POST", "/replay", {"since_ms": 0}),
            ("POST", "/replay", {"message": "msg_" + "0" * 32}),
            ("GET", "/log", None),
        ],
    )
    async def test_anothers_and_an_unknown_one_are_not_found(
        self, post: Caller, method: str, path: str, body: Any
    ) -> None:
        _, made = await make(post, URL)
        answers = [
            await post.call(method, f"/webhooks/{webhook}{path}", key=key, body=body)
            for webhook, key in ((made["id"], "stranger"), (made["id"], "admin"), (MISSING, "buyer"), ("x", "buyer"))
        ]
        await delete(post, made["id"])

        assert [(code, found["error"]["code"]) for code, found in answers] == [(404, "UnknownWebhook")] * 4

    async def test_hosts_have_none(self, post: Caller) -> None:
        assert (await make(post, URL, key="host"))[0] == 403


class TestDeliveries:
    async def test_a_jobs_end_is_told_with_its_receipt(self, post: Caller, receiver: WebhookReceiver) -> None:
        _, made = await make(post, receiver.url, types=["job.ended"])
        job = await post.buy()
        (got,) = await receiver.until(1)
        (entry,) = await delivered(post, made["id"], 1)
        await delete(post, made["id"])

        assert got.message["data"] == {
            "job": public("job", job.id),
            "receipt": public("rcpt", job.id),
            "state": "completed",
            "cost_uusd": job.cost_uusd,
            "error_code": None,
        }
        assert (entry["id"], entry["payload"], entry["type"]) == (got.id, got.message, "job.ended")
        (attempt,) = entry["attempts"]
        assert (attempt["status"], attempt["error"], entry["next_ms"]) == (204, "", None)

    async def test_test_replay_and_pages(self, post: Caller, receiver: WebhookReceiver) -> None:
        _, made = await make(post, receiver.url)
        path = f"/webhooks/{made['id']}"
        repeated = [await post.call("POST", f"{path}/test", headers={"idempotency-key": "t1"}) for _ in range(2)]
        sent = [(await post.call("POST", f"{path}/test"))[1]["message"] for _ in range(2)]
        sent.append(repeated[0][1]["message"])
        await delivered(post, made["id"], 3)
        _, first = await post.get(f"{path}/log?limit=2")
        _, second = await post.get(f"{path}/log?limit=2&before={first['next']}")
        again = await post.call("POST", f"{path}/replay", body={"message": sent[0]})
        got = await receiver.until(4)
        unknown = await post.call("POST", f"{path}/replay", body={"message": "msg_" + "0" * 32})
        both = await post.call("POST", f"{path}/replay", body={"message": sent[0], "since_ms": 0})
        await delete(post, made["id"])

        assert repeated[0] == repeated[1]
        assert {one["id"] for one in first["messages"] + second["messages"]} == set(sent) and second["next"] is None
        assert (again, got[-1].id) == ((200, {"again": 1}), sent[0])
        assert (unknown[0], unknown[1]["error"]["code"], both[0]) == (404, "UnknownIntent", 422)

    async def test_paused_it_takes_no_test_and_no_replay(self, post: Caller) -> None:
        _, made = await make(post, URL)
        path = f"/webhooks/{made['id']}"
        paused = await post.call("POST", f"{path}/pause")
        refused = [await post.call("POST", f"{path}{verb}", body=body) for verb, body in REFUSED_WHILE_PAUSED]
        resumed = await post.call("POST", f"{path}/resume")
        await delete(post, made["id"])

        assert (paused[1]["state"], paused[1]["why"], resumed[1]["state"]) == ("paused", "by its owner", "active")
        assert [(code, body["error"]["code"]) for code, body in refused] == [(409, "WebhookNotActive")] * 3


REFUSED_WHILE_PAUSED = (
    ("/test", None),
    ("/replay", {"since_ms": 0}),
    ("/replay", {"message": "msg_" + "0" * 32}),
)
