"""Bringing an answer: pieces numbered and never doubled, ended once, paid by what was delivered."""

import pytest

from comptoir.jobs import Fault, JobState
from comptoir.kit.signing import SigningKey
from comptoir.ledger import audit
from comptoir.link import Frame, Segment, hash_after, hash_start, segment_bytes
from comptoir.receipts import read_registry, verify
from tests.dialects.infrintia.caller import LLAMA, Caller
from tests.dialects.infrintia.conftest import Market


async def leased(market: Market, *, max_tokens: int = 256) -> tuple[Caller, str]:
    """Return a host and the id of the job it has."""
    host = await market.anyone.register()
    await market.buyer.run(max_tokens=max_tokens)
    return host, (await host.next_job()).body["job_id"]


async def text_of(market: Market, job_id: str) -> str:
    """Return the answer so far."""
    job = market.core.jobs.live.get(bytes.fromhex(job_id[4:]))
    assert job is not None
    return "".join(frame.text for frame in job.frames)


@pytest.mark.asyncio(loop_scope="module")
class TestChunk:
    @pytest.mark.parametrize(
        ("fields", "next_seq", "text"),
        [
            ({"seq": 2, "tokens": ["c"]}, 3, "abc"),
            ({"tokens": ["c"]}, 3, "abc"),
            ({"seq": 0, "tokens": ["a", "b"]}, 2, "ab"),
            ({"seq": 1, "tokens": ["b", "c"]}, 3, "abc"),
            ({"seq": 0, "tokens": []}, 2, "ab"),
            ({"seq": 2, "tokens": ["", "c"]}, 4, "abc"),
        ],
    )
    async def test_pieces_that_are_here_are_skipped(
        self, shared: Market, fields: dict[str, object], next_seq: int, text: str
    ) -> None:
        host, job_id = await leased(shared)
        await host.chunk(job_id, "a", "b", seq=0)

        answer = await host.chunk(job_id, **fields)

        assert (answer.status, answer.body) == (200, {"next_seq": next_seq})
        assert await text_of(shared, job_id) == text

    async def test_one_token_may_come_by_itself(self, shared: Market) -> None:
        host, job_id = await leased(shared)

        answer = await host.post(f"/hosts/jobs/{job_id}/chunk", {"host_id": host.host_id, "token": "hé"})

        assert answer.body == {"next_seq": 1}
        assert await text_of(shared, job_id) == "hé"

    async def test_a_gap_is_refused_with_the_number_expected(self, shared: Market) -> None:
        host, job_id = await leased(shared)
        await host.chunk(job_id, "a", seq=0)

        answer = await host.chunk(job_id, "c", seq=2)

        assert answer.status == 409
        assert answer.body["expected"] == 1
        assert await text_of(shared, job_id) == "a"

    async def test_another_hosts_job_is_none_of_yours(self, shared: Market) -> None:
        _, job_id = await leased(shared)
        other = await shared.anyone.register()

        for answer in (await other.chunk(job_id, "x"), await other.complete(job_id), await other.fail(job_id)):
            assert answer.status == 409
            assert "no open lease" in answer.body["detail"]


class TestLimit:
    async def test_an_answer_past_its_limit_ends_the_attempt(self, market: Market) -> None:
        host, job_id = await leased(market, max_tokens=4)

        answer = await host.chunk(job_id, *["x"] * 13)

        assert answer.status == 413
        shown = (await market.buyer.get(f"/jobs/{job_id}")).body
        assert (shown["status"], shown["error"]["code"]) == ("failed", "answer_too_large")
        assert (shown["credits_used"], shown["output_text"]) == (0, "")


@pytest.mark.asyncio(loop_scope="module")
class TestCompleteJob:
    async def test_the_last_pieces_may_come_with_it(self, shared: Market) -> None:
        host, job_id = await leased(shared)
        await host.chunk(job_id, "a", "b")

        answer = await host.complete(job_id, tokens=["c", "d"], seq=2)

        assert answer.status == 200
        # Four tokens at 0.01 credits, less 12 %.
        assert answer.body == {"job_id": job_id, "status": "completed", "tokens": 4, "credits_earned": 0.0352}
        assert (await shared.buyer.get(f"/jobs/{job_id}")).body["output_text"] == "abcd"

    async def test_a_repeat_gets_the_same_answer_and_no_money(self, shared: Market) -> None:
        host, job_id = await leased(shared)
        first = await host.complete(job_id, tokens=["a"], seq=0)

        again = await host.complete(job_id, tokens=["a"], seq=0)

        assert (again.status, again.body) == (200, first.body)
        account = await shared.core.ledger.account(bytes.fromhex(host.host_id[5:]))
        assert account.balance_uusd == 88
        assert await audit(shared.core.db) == []

    @pytest.mark.parametrize(
        ("here", "fields", "status"),
        [
            (("a", "b"), {"seq": 2}, 200),
            (("a", "b"), {"seq": 3}, 409),
            (("a", "b"), {"seq": 0}, 409),
            (("a", "b"), {"usage": {"completion_tokens": 60}}, 200),
            ((), {"usage": {"completion_tokens": 60}}, 409),
            ((), {"usage": {"prompt_tokens": 5}}, 200),
            ((), {}, 200),
        ],
    )
    async def test_an_end_without_its_pieces_is_refused(
        self, shared: Market, here: tuple[str, ...], fields: dict[str, object], status: int
    ) -> None:
        """After a restart the job starts over, at the same host: what it brought before is not an empty answer."""
        host, job_id = await leased(shared)
        if here:
            await host.chunk(job_id, *here, seq=0)

        answer = await host.complete(job_id, **fields)

        assert answer.status == status
        if status == 409:
            assert answer.body["expected"] == len(here)
            await host.fail(job_id)

    async def test_a_text_in_one_piece_counts_as_the_host_counted(self, shared: Market) -> None:
        host, job_id = await leased(shared)

        answer = await host.complete(job_id, token="x" * 1000, usage={"prompt_tokens": 5, "completion_tokens": 192})

        assert answer.body["tokens"] == 192
        assert (await shared.buyer.get(f"/jobs/{job_id}")).body["credits_used"] == 1.92

    @pytest.mark.parametrize(("token", "counted", "tokens"), [("abc", 200, 3), ("x" * 1000, 5000, 256), ("", 50, 0)])
    async def test_no_piece_stands_for_more_than_its_bytes_or_the_limit(
        self, shared: Market, token: str, counted: int, tokens: int
    ) -> None:
        host, job_id = await leased(shared)

        answer = await host.complete(job_id, token=token, usage={"completion_tokens": counted})

        assert answer.body["tokens"] == tokens


class TestSigning:
    async def test_a_false_signature_is_the_hosts_fault(self, market: Market) -> None:
        host, job_id = await leased(market)
        await host.chunk(job_id, "a")

        answer = await host.complete(job_id, signature="00" * 64)

        assert answer.status == 422
        assert (await market.buyer.get(f"/jobs/{job_id}")).body["status"] == "failed"

    async def test_a_host_with_a_key_that_does_not_sign_is_not_paid(self, market: Market) -> None:
        host = await market.anyone.register(public_key=SigningKey(bytes(range(32))).public_key.hex())
        job_id = (await market.buyer.run()).body["job_id"]
        await host.next_job()

        assert (await host.complete(job_id, tokens=["a", "b"])).status == 422
        shown = (await market.buyer.get(f"/jobs/{job_id}")).body
        assert (shown["status"], shown["credits_used"]) == ("failed", 0)

    async def test_a_host_with_a_key_signs_its_part_of_the_receipt(self, market: Market) -> None:
        """What `next-job` adds for such hosts is all they need."""
        key = SigningKey(bytes(range(32)))
        host = await market.anyone.register(public_key=key.public_key.hex())
        await market.buyer.run()
        job = (await host.next_job()).body
        chain = hash_start(bytes.fromhex(job["job_id"][4:]))
        for text in ("a", "b"):
            chain = hash_after(chain, Frame(text))
        segment = Segment(
            job=job["job_id"],
            attempt=job["attempt"],
            host=host.host_id,
            model=LLAMA,
            input_sha256=job["input_sha256"],
            first_frame=0,
            end_frame=2,
            chain=chain.hex(),
            prompt_tokens=3,
            completion_tokens=2,
            finish_reason="stop",
        )

        answer = await host.complete(
            job["job_id"],
            tokens=["a", "b"],
            usage={"prompt_tokens": 3, "completion_tokens": 2},
            signature=key.sign(segment_bytes(segment)).hex(),
        )

        assert answer.status == 200
        receipts = market.core.receipts
        envelope = await receipts.envelope_of(bytes.fromhex(job["job_id"][4:]))
        verdict = verify(envelope, read_registry(await receipts.registry()))
        assert (verdict.ok, verdict.unsigned_segments) == (True, 0), verdict

    async def test_hosts_without_one_get_the_published_fields_only(self, market: Market) -> None:
        host = await market.anyone.register()
        await market.buyer.run()

        assert list((await host.next_job()).body) == ["job_id", "model", "input_text", "max_tokens", "temperature"]


class TestFailJob:
    async def test_with_nobody_else_the_job_fails_and_the_reserve_goes_back(self, market: Market) -> None:
        host, job_id = await leased(market)

        answer = await host.fail(job_id, error="CUDA out of memory")

        assert answer.body == {"job_id": job_id, "status": "failed"}
        shown = (await market.buyer.get(f"/jobs/{job_id}")).body
        assert shown["error"] == {"code": "host_error", "message": "CUDA out of memory"}
        assert shown["credits_used"] == 0
        assert (await market.buyer.get("/users/me")).body["credits"] == 100.0
        assert market.core.fleet.get(bytes.fromhex(host.host_id[5:])).jobs_failed == 1

    async def test_another_host_takes_it_over(self, market: Market) -> None:
        host, job_id = await leased(market)
        other = await market.anyone.register()

        answer = await host.fail(job_id)

        assert answer.body["status"] == "queued"
        assert (await other.next_job()).body["job_id"] == job_id

    async def test_what_was_delivered_is_paid(self, market: Market) -> None:
        host, job_id = await leased(market)
        await host.chunk(job_id, "a", "b")

        assert (await host.fail(job_id)).body["status"] == "failed"

        shown = (await market.buyer.get(f"/jobs/{job_id}")).body
        assert (shown["output_text"], shown["credits_used"]) == ("ab", 0.02)

    async def test_a_bad_input_is_not_held_against_the_host(self, market: Market) -> None:
        host, job_id = await leased(market)

        await host.fail(job_id, fault="buyer")

        row = await market.core.jobs.get(bytes.fromhex(job_id[4:]))
        assert (row.state, row.fault) == (JobState.FAILED, Fault.BUYER)
        assert market.core.fleet.get(bytes.fromhex(host.host_id[5:])).jobs_failed == 0
