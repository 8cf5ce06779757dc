"""Hosts that poll in the native shape: all that goes over the link reaches them and comes back, over plain HTTP."""

import asyncio
import base64
import json
import re
from typing import Any

import pytest

from comptoir.jobs import Fault
from comptoir.kit.signing import SigningKey
from comptoir.ledger import audit
from comptoir.link import Frame, Segment, hash_after, hash_start, segment_bytes
from tests.dialects.infrintia.caller import LLAMA, Caller
from tests.dialects.infrintia.conftest import Market
from tests.dispatch.acting import retire
from tests.transports.native_host import OFFER, NativeHost, b64, bought, chat, items, register

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
CALL = {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]}


async def leased(market: Market, **fields: Any) -> tuple[NativeHost, Any, "asyncio.Task[dict[str, Any]]"]:
    """Return a host, the job that it has, and the task that waits for the buyer's answer."""
    host = await register(market)
    _, end = await bought(market, **fields)
    return host, await host.next(), end


def chunks_of(text: str) -> list[Any]:
    """Return the chunks of an OpenAI stream; each line has to be one."""
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line and not line.startswith(":")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


class TestAJob:
    async def test_comes_whole_and_its_answer_goes_whole(self, market: Market) -> None:
        """Tools are no matter of a text-only host, and the frames' extras reach the buyer as they were sent."""
        text_only = await market.anyone.register()
        host = await register(market)
        asked = asyncio.create_task(chat(market, tools=TOOLS, seed=7))

        job = await host.next()

        assert (await text_only.next_job(wait_s=0)).status == 204
        body = json.loads(base64.b64decode(job["body"]))
        assert (body["tools"], body["seed"], job["kind"], job["model"]) == (TOOLS, 7, "chat", LLAMA)
        assert (job["start_seq"], job["prefix"], job["chain"], job["max_tokens"]) == (0, [], "", 64)
        assert job["left_ms"] > 0
        extra = [{"delta": CALL}, {"finish_reason": "tool_calls"}]
        frames = [{"text": "", "tokens": tokens, "extra": b64(json.dumps(one))} for tokens, one in zip((1, 0), extra)]  # noqa: B905
        assert (await host.tell(job, "frames", seq=0, items=frames)).body == {"next_seq": 2}
        usage = {
            "prompt_tokens": 9,
            "completion_tokens": 1,
            "details": b64('{"prompt_tokens":9,"completion_tokens":1}'),
        }
        ended = await host.done(job, 2, finish_reason="tool_calls", usage=usage)

        answer = (await asked).body
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}
        assert (answer["choices"][0]["finish_reason"], answer["usage"]["prompt_tokens"]) == ("tool_calls", 9)
        assert ended.body == {"lease": job["lease"], "job_id": job["job_id"], "tokens": 1, "earned_uusd": 88}
        assert (await host.done(job, 2)).body == ended.body, "a repeat gets the same answer"
        assert await audit(market.core.db) == []

    async def test_of_another_kind_reaches_a_host_too(self, market: Market) -> None:
        host = await register(market, models=[OFFER | {"name": "bge", "kinds": ["embedding"], "can_continue": False}])
        asked = asyncio.create_task(market.buyer.post("/v1/embeddings", {"model": "bge", "input": "hi"}))

        job = await host.next()
        data = {"data": [{"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}]}
        await host.tell(job, "frames", seq=0, items=[{"tokens": 0, "extra": b64(json.dumps(data))}])
        await host.done(job, 1, usage={"prompt_tokens": 2})

        assert job["kind"] == "embedding"
        assert (await asked).body["data"][0]["embedding"] == [0.5, 1.0]

    async def test_of_a_chain_of_containers_reaches_one_host_after_the_other(self, market: Market) -> None:
        """The second is given what the first made; the first is paid when the chain is over."""
        made = {"kinds": ["container"], "container": {}, "price_out_uusd_per_mtok": 1_000_000_000}
        first, second = [await register(market, models=[{"name": name} | made]) for name in ("a", "b")]
        bought = await market.buyer.post("/api/jobs", {"containers": ["a", "b"], "data": {"x": 1}})
        assert bought.status == 200, bought.text

        earned = []
        for host, start, output in ((first, 0, '{"y":2}'), (second, 1, '{"z":3}')):
            job = await host.next()
            assert (job["kind"], job["start_seq"], [frame["text"] for frame in job["prefix"]]) == (
                "container",
                start,
                ['{"y":2}'][:start],
            )
            frame = {"text": output, "tokens": 1, "extra": b64('{"finish_reason":"stop"}')}
            assert (await host.tell(job, "frames", seq=start, items=[frame])).body == {"next_seq": start + 1}
            ended = await host.done(job, start + 1, usage={"completion_tokens": 1})
            assert ended.status == 200, ended.text
            earned.append(ended.body["earned_uusd"])

        shown = (await market.buyer.get(f"/api/jobs?id={bought.body['id']}")).body[0]
        assert (shown["status"], shown["result"]["output"]) == ("success", {"z": 3})
        accounts = await market.core.ledger.accounts([first.id, second.id])
        assert (earned, [accounts[host.id].balance_uusd for host in (first, second)]) == ([0, 880], [880, 880])
        assert await audit(market.core.db) == []

    async def test_text_only_is_the_offers_word_and_not_the_ways(self, market: Market) -> None:
        await register(market, models=[OFFER | {"text_only": True}])

        assert (await chat(market, tools=TOOLS)).body["error"]["code"] == "no_host_possible"
        shown = (await market.buyer.get("/house/hosts")).body["hosts"][0]
        assert (shown["transport"], shown["models"][0]["name"]) == ("poll", LLAMA)


class TestGoingOn:
    @pytest.mark.parametrize("settings", [{"lease_s": 0.5, "stall_floor_s": 0.5}])
    @pytest.mark.parametrize("dies", ["says so", "in silence"])
    async def test_another_host_goes_on_after_the_last_frame(self, market: Market, dies: str) -> None:
        first = await register(market)
        job_id, end = await bought(market)
        begun = await first.next()
        await first.frames(begun, 0, "one", " two")
        second = await register(market)
        if dies == "says so":
            gone = await first.tell(begun, "fail", code="oom", message="CUDA out of memory")
            assert gone.body["state"] == "queued"

        job = await second.next()

        assert (job["job_id"], job["start_seq"]) == (job_id, 2)
        assert job["prefix"] == items("one", " two")
        chain = hash_start(bytes.fromhex(job_id[4:]))
        for text in ("one", " two"):
            chain = hash_after(chain, Frame(text))
        assert base64.b64decode(job["chain"]) == chain
        await second.frames(job, 2, " three")
        assert (await second.done(job, 3)).body["tokens"] == 1
        shown = await end
        assert (shown["status"], shown["output_text"], shown["tokens"]) == ("completed", "one two three", 3)
        assert (await first.frames(begun, 2, " late")).status == 409
        attempts = (await market.buyer.get(f"/house/jobs/{job_id}")).body["attempts"]
        assert [(one["first_frame"], one["end_frame"], one["paid_uusd"]) for one in attempts] == [
            (0, 2, 176),
            (2, 3, 88),
        ]
        assert await audit(market.core.db) == []

    async def test_only_one_that_can_is_asked(self, market: Market) -> None:
        """An offer without can_continue gets nothing that was begun, and the job ends honestly."""
        first = await register(market)
        _, end = await bought(market)
        begun = await first.next()
        await first.frames(begun, 0, "one")
        other = await register(market, models=[OFFER | {"can_continue": False}])
        await first.tell(begun, "fail", code="oom")

        assert await other.next(wait_s=0.0) is None
        shown = await end
        assert (shown["status"], shown["output_text"]) == ("failed", "one")


@pytest.mark.asyncio(loop_scope="module")
class TestFrames:
    @pytest.mark.parametrize(
        ("seq", "texts", "next_seq"), [(2, ("c",), 3), (0, ("a", "b"), 2), (1, ("b", "c"), 3), (0, (), 2)]
    )
    async def test_those_that_are_here_are_skipped(
        self, shared: Market, seq: int, texts: tuple[str, ...], next_seq: int
    ) -> None:
        host, job, end = await leased(shared)
        await host.frames(job, 0, "a", "b")

        answer = await host.frames(job, seq, *texts)

        assert (answer.status, answer.body) == (200, {"next_seq": next_seq})
        await host.done(job, next_seq)
        assert (await end)["output_text"] == "abc"[:next_seq]
        await retire(shared.core, host.id)

    async def test_a_gap_is_refused_and_an_end_that_leaves_one(self, shared: Market) -> None:
        host, job, end = await leased(shared)
        await host.frames(job, 0, "a")

        for answer in (await host.frames(job, 2, "c"), await host.done(job, 3)):
            assert (answer.status, answer.body["error"]["code"]) == (409, "FramesOutOfOrder")
            assert "send from 1" in answer.body["error"]["message"]
        await host.done(job, 1)
        assert (await end)["output_text"] == "a"
        await retire(shared.core, host.id)

    @pytest.mark.parametrize(
        ("what", "body", "status", "field"),
        [
            ("frames", b"{", 400, None),
            ("frames", b'{"lease":"att_00","seq":0,"items":[{"text":1}]}', 422, "items[0].text"),
            ("frames", b'{"lease":"att_00","seq":-1,"items":[]}', 422, "seq"),
            ("frames", b'{"lease":"nobody","seq":0,"items":[]}', 422, "lease"),
            ("frames", b'{"seq":0,"items":[]}', 422, "lease"),
            ("frames", b'{"lease":"att_00","seq":0,"items":[{"extra":"%%"}]}', 422, "items[0].extra"),
            ("done", b'{"lease":"att_00","end_seq":0,"chain":"x"}', 422, "chain"),
            ("fail", b'{"lease":"att_00","code":"x","fault":"mine"}', 422, "fault"),
        ],
    )
    async def test_what_is_not_understood_is_named(
        self, shared: Market, what: str, body: bytes, status: int, field: str | None
    ) -> None:
        host = await register(shared)

        answer = await host.caller.post(f"/house/host/jobs/job_{'0' * 32}/{what}", body)

        assert answer.status == status
        assert answer.body["error"].get("field") == field
        await retire(shared.core, host.id)


class TestBounds:
    async def test_an_answer_past_its_limit_ends_the_attempt(self, market: Market) -> None:
        host, job, end = await leased(market, max_tokens=4)

        answer = await host.frames(job, 0, *["x"] * 13)

        assert (answer.status, answer.body["error"]["code"]) == (413, "AnswerTooLarge")
        shown = await end
        assert (shown["status"], shown["error"]["code"], shown["credits_used"]) == ("failed", "answer_too_large", 0)

    async def test_what_its_buyer_could_not_read_ends_the_attempt_and_the_next_host_goes_on(
        self, market: Market
    ) -> None:
        bad = await register(market)
        asked = asyncio.create_task(chat(market, stream=True))
        job = await bad.next()
        await bad.frames(job, 0, "one")
        good = await register(market)

        answer = await bad.tell(job, "frames", seq=1, items=[{"text": " two", "extra": b64("not json")}])
        given = await good.next()
        await good.frames(given, 1, " 2")
        await good.done(given, 2)

        assert (answer.status, answer.body["error"]["code"]) == (422, "BadFrame")
        assert (given["prefix"], given["start_seq"]) == (items("one"), 1)
        chunks = chunks_of((await asked).text)
        assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "one", " 2", None]
        attempts = (await market.buyer.get(f"/house/jobs/{job['job_id']}")).body["attempts"]
        assert [(one["state"], one["fault"]) for one in attempts] == [("failed", "host"), ("done", None)]
        assert await audit(market.core.db) == []

    async def test_an_engines_error_that_is_no_text_is_no_error_of_ours(self, market: Market) -> None:
        host = await register(market)
        asked = asyncio.create_task(chat(market))
        job = await host.next()
        body = b64(b'{"error":{"message":"\xff"}}')

        await host.tell(job, "fail", code="bad_request", message="no", fault="buyer", status=400, body=body)

        answer = await asked
        assert (answer.status, answer.body["error"]["message"]) == (400, "no")

    async def test_json_laid_out_over_lines_is_one_line_of_an_event(self, market: Market) -> None:
        """Between its tokens JSON may have line ends, and an event ends at one."""
        host = await register(market)
        asked = asyncio.create_task(chat(market, stream=True, stream_options={"include_usage": True}))
        job = await host.next()
        extra = '{"delta":{"x":{\r\n"y":\n1}},\n"logprobs":{\n\n"content":[]}}'
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "details": b64('{"z":{\n\n"a":1}}')}

        await host.tell(job, "frames", seq=0, items=[{"text": "a", "extra": b64(extra)}])
        await host.done(job, 1, usage=usage)

        *_, piece, _, last = chunks_of((await asked).text)
        assert piece["choices"][0]["delta"] == {"content": "a", "x": {"y": 1}}
        assert piece["choices"][0]["logprobs"] == {"content": []}
        assert last["usage"]["z"] == {"a": 1}

    @pytest.mark.parametrize("settings", [{"body_bytes_max": 4096}])
    async def test_a_body_that_is_too_large_is_refused(self, market: Market) -> None:
        host, job, _ = await leased(market)

        assert (await host.frames(job, 0, "x" * 5000)).status == 413


class TestFail:
    @pytest.mark.parametrize(
        ("fault", "stored", "status"),
        [
            ("buyer", Fault.BUYER, 400),
            ("host", Fault.HOST, 502),
            ("capacity", Fault.CAPACITY, 429),
            ("coordinator", Fault.HOST, 500),  # That is ours to know.
        ],
    )
    async def test_says_whose_fault_it_is(self, market: Market, fault: str, stored: Fault, status: int) -> None:
        """With no other host the job ends so, and a buyer's fault carries the engine's own words."""
        host = await register(market)
        asked = asyncio.create_task(chat(market))
        job = await host.next()

        own = b'{"error":{"message":"too hot","code":"temperature"}}'
        told = await host.tell(
            job,
            "fail",
            code="engine_error",
            message="no",
            fault=fault,
            status=400 if fault == "buyer" else 0,
            body=b64(own) if fault == "buyer" else "",
        )

        assert told.body == {"lease": job["lease"], "job_id": job["job_id"], "state": "failed"}
        row = await market.core.jobs.get(bytes.fromhex(job["job_id"][4:]))
        assert (row.state, row.fault, row.error_code) == ("failed", stored, "engine_error")
        answer = await asked
        assert answer.status >= 400
        if fault == "buyer":
            assert (answer.status, answer.body["error"]["message"]) == (status, "too hot")
        assert (await host.tell(job, "fail", code="engine_error")).status == 409
        assert market.core.fleet.get(host.id).jobs_failed == (stored is Fault.HOST)


class TestWhoMay:
    async def test_only_the_host_that_has_the_lease(self, market: Market) -> None:
        host, job, end = await leased(market)
        other = await register(market)
        published = await market.anyone.register()
        stranger, buyer = NativeHost(market.anyone), NativeHost(market.buyer)

        for caller, status in ((other, 409), (NativeHost(published), 403), (stranger, 401), (buyer, 403)):
            for answer in (
                await caller.frames(job, 0, "x"),
                await caller.done(job, 0),
                await caller.tell(job, "fail", code="x"),
            ):
                assert answer.status == status, answer.text
        assert (await published.post("/house/host/jobs/next", {})).status == 403
        assert (await host.caller.next_job()).status == 403, "nor does a native host ask at Infrintia's"
        before = {**job, "lease": "att_" + "0" * 32}
        assert (await host.frames(before, 0, "x")).status == 409, "of an attempt before"
        assert (await host.done(job, 0)).status == 200
        assert (await end)["output_text"] == ""

    async def test_who_hung_up_gets_no_job(self, market: Market) -> None:
        host = await register(market)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(host.next(), 0.1)

        job_id, _ = await bought(market)

        assert (await host.next())["job_id"] == job_id


class TestRegistering:
    async def test_with_a_users_key_it_is_the_users(self, market: Market) -> None:
        host = await register(market, by=market.buyer, region="eu", tier="secure", gpu="L40S", vram_mib=46_068, gpus=2)

        row = market.core.fleet.get(host.id).row
        assert (row.owner_id, row.region, row.tier, row.gpu, row.vram_mib, row.capacity.gpus) == (
            market.post.buyer_id,
            "eu",
            "secure",
            "L40S",
            46_068,
            2,
        )
        assert (row.transport, row.speaks, row.models[0].can_continue, row.models[0].text_only) == (
            "poll",
            "native",
            True,
            False,
        )
        assert [one["id"] for one in (await market.buyer.get("/house/hosts?mine=true")).body["hosts"]] == [
            host.caller.host_id
        ]

    async def test_a_repeat_under_its_key_gets_the_same_host(self, market: Market) -> None:
        body = {"transport": "poll", "models": [OFFER]}
        answers = [await market.buyer.post("/house/hosts", body, Idempotency_Key="once") for _ in range(2)]

        assert answers[0].status == 201
        assert answers[0].body == answers[1].body
        other = await market.buyer.post("/house/hosts", body | {"gpu": "other"}, Idempotency_Key="once")
        assert (other.status, other.body["error"]["code"]) == (422, "IdempotencyMismatch")

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"transport": "push"}, "endpoint_url"),
            ({"transport": "link"}, "transport"),
            ({"transport": "push", "endpoint_url": "http://10.0.0.1/x"}, "endpoint_url"),
            ({"models": []}, "models"),
            ({"models": [OFFER, OFFER]}, "models"),
            ({"models": [OFFER | {"kinds": ["container"]}]}, "models[0]"),
            ({"public_key": "zz"}, "public_key"),
            ({"slots": 0}, "slots"),
        ],
    )
    async def test_the_first_fault_is_named(self, market: Market, fields: dict[str, Any], field: str) -> None:
        answer = await market.anyone.post("/house/hosts", {"transport": "poll", "models": [OFFER]} | fields)

        assert (answer.status, answer.body["error"]["field"]) == (422, field)

    async def test_a_host_registers_none(self, market: Market) -> None:
        host = await register(market)

        assert (await host.caller.post("/house/hosts", {"transport": "poll", "models": [OFFER]})).status == 403


class TestPulse:
    async def test_keeps_a_host_here_and_changes_its_offer(self, market: Market) -> None:
        host = await register(market)
        kept = market.core.fleet.get(host.id)
        kept.seen_s -= 1000

        answer = await host.caller.post(
            "/house/host/pulse", {"gpu_utilization": 0.5, "models": [OFFER | {"name": "other"}], "slots": 2}
        )

        assert (answer.status, answer.body) == (200, {"status": "active"})
        assert market.core.fleet.silent() == []
        assert ([*kept.candidates], kept.slots.total, kept.gpu_utilization) == (["other"], 2, 0.5)
        assert (await host.caller.post("/house/host/pulse", {"models": []})).body == {"status": "draining"}
        assert (await host.caller.post("/house/host/pulse", {})).body == {"status": "draining"}
        assert (await host.caller.post("/house/host/pulse", {"models": [OFFER]})).body == {"status": "active"}
        assert (await host.caller.post("/house/host/pulse", {"models": [OFFER, OFFER]})).status == 422

    async def test_a_heartbeat_of_the_published_api_leaves_a_native_offer_alone(self, market: Market) -> None:
        host = await register(market)
        before = market.core.fleet.get(host.id).row.models

        body = {"host_id": host.caller.host_id, "available_models": ["something else"]}
        assert (await host.caller.post("/hosts/heartbeat", body)).status == 200

        assert market.core.fleet.get(host.id).row.models == before


class TestSignatures:
    @pytest.mark.parametrize(("honest", "status", "paid"), [(True, 200, 176), (False, 422, 0)])
    async def test_a_hosts_word_stands_in_the_receipt(
        self, market: Market, honest: bool, status: int, paid: int
    ) -> None:
        key = SigningKey(bytes(range(32)))
        host = await register(market, public_key=key.public_key.hex())
        job_id, end = await bought(market)
        job = await host.next()
        await host.frames(job, 0, "one", " two")
        chain = hash_start(bytes.fromhex(job_id[4:]))
        for text in ("one", " two"):
            chain = hash_after(chain, Frame(text))
        row = await market.core.jobs.get(bytes.fromhex(job_id[4:]))
        live = market.core.jobs.live.get(row.id)
        assert live is not None
        segment = Segment(
            job_id, job["lease"], host.caller.host_id, LLAMA, live.body_sha256.hex(), 0, 2, chain.hex(), 3, 2, "stop"
        )
        signature = key.sign(segment_bytes(segment)) if honest else bytes(64)

        answer = await host.done(
            job, 2, usage={"prompt_tokens": 3, "completion_tokens": 2}, chain=b64(chain), signature=b64(signature)
        )

        assert answer.status == status, answer.text
        assert (await end)["status"] == ("completed" if honest else "failed")
        attempts = (await market.buyer.get(f"/house/jobs/{job_id}")).body["attempts"]
        assert [one["paid_uusd"] for one in attempts] == [paid]

    @pytest.mark.parametrize("chain", ["", "true"])
    async def test_a_host_with_a_key_signs_or_is_not_paid(self, market: Market, chain: str) -> None:
        """A host that left out both hash and signature was paid, and its receipt bore no signature."""
        host = await register(market, public_key=SigningKey(bytes(range(32))).public_key.hex())
        job_id, end = await bought(market)
        job = await host.next()
        await host.frames(job, 0, "one")
        own = {"chain": b64(hash_after(hash_start(bytes.fromhex(job_id[4:])), Frame("one")))} if chain else {}

        answer = await host.done(job, 1, **own)

        assert (answer.status, answer.body["error"]["code"]) == (422, "BadSegment")
        assert (await end)["credits_used"] == 0

    async def test_a_hash_that_differs_is_noticed(self, market: Market) -> None:
        host, job, end = await leased(market)
        await host.frames(job, 0, "one")

        answer = await host.done(job, 1, chain=b64(bytes(32)))

        assert (answer.status, answer.body["error"]["code"]) == (422, "BadSegment")
        assert (await end)["credits_used"] == 0


class TestCancel:
    async def test_the_host_hears_it_with_its_next_piece(self, market: Market) -> None:
        host, job, _ = await leased(market)
        await host.frames(job, 0, "one")

        cancelled: Caller = market.buyer
        assert (await cancelled.post(f"/jobs/{job['job_id']}/cancel")).body["status"] == "cancelled"

        assert (await host.frames(job, 1, " two")).status == 409
        assert (await host.done(job, 1)).status == 409


class TestPay:
    async def test_is_for_what_came_and_not_for_what_is_claimed(self, market: Market) -> None:
        host, job, end = await leased(market, max_tokens=500)
        await host.tell(job, "frames", seq=0, items=[{"text": "", "tokens": 500}])

        ended = await host.done(job, 1, usage={"prompt_tokens": 2**31 - 1, "completion_tokens": 500})

        shown = await end
        assert (ended.body["tokens"], ended.body["earned_uusd"]) == (0, 0)
        assert (shown["status"], shown["tokens"], shown["credits_used"]) == ("completed", 0, 0)
        units = (await market.buyer.get(f"/house/jobs/{job['job_id']}")).body["units"]
        assert units[0]["count"] < 2_000 and units[1]["count"] == 0
        assert market.core.fleet.get(host.id).jobs_failed == 1
        assert await audit(market.core.db) == []
