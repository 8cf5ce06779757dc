"""Jobs, their life, and their receipts; another's job is one that does not exist."""

import aiohttp
import pytest

from comptoir.jobs import JobState
from comptoir.receipts import read_registry, verify
from tests.dialects.native.conftest import Caller


class TestJobs:
    async def test_newest_first_and_page_by_page(self, core: Caller) -> None:
        made = ["job_" + (await core.buy()).id.hex() for _ in range(3)]

        _, first = await core.get("/jobs?limit=2")
        _, second = await core.get(f"/jobs?limit=2&before={first['next']}")

        assert [one["id"] for one in first["jobs"] + second["jobs"]] == made[::-1]
        assert second["next"] is None

    async def test_a_state_filters(self, core: Caller) -> None:
        await core.buy()

        assert len((await core.get("/jobs?state=completed"))[1]["jobs"]) == 1
        assert (await core.get("/jobs?state=failed"))[1]["jobs"] == []
        assert (await core.get("/jobs?state=done"))[1]["error"]["field"] == "state"

    async def test_only_an_operator_sees_everybodys(self, core: Caller) -> None:
        await core.buy()

        assert (await core.get("/jobs", key="stranger"))[1]["jobs"] == []
        assert (await core.get("/jobs?everyone=true", key="stranger"))[0] == 403
        assert len((await core.get("/jobs?everyone=true", key="admin"))[1]["jobs"]) == 1

    async def test_the_key_of_a_request_names_its_job(self, core: Caller) -> None:
        """For who lost the answer that does, and wants to stop it."""
        url, key = core.post.url, core.post.buyer_key
        body = {"model": "trivial", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
        headers = {"authorization": f"Bearer {key}", "idempotency-key": "mine"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{url}/v1/chat/completions", json=body) as answer,
        ):
            made = answer.headers["x-comptoir-job"]

        assert [job["id"] for job in (await core.get("/jobs?idempotency_key=mine"))[1]["jobs"]] == [made]
        assert (await core.get("/jobs?idempotency_key=mine", key="stranger"))[1]["jobs"] == []
        assert (await core.get("/jobs?idempotency_key=other"))[1]["jobs"] == []

    async def test_a_key_that_made_no_job_names_none(self, core: Caller) -> None:
        deposit = {"owner": "ada", "credits": 1}
        headers = {"idempotency-key": "paid"}
        assert (await core.call("POST", "/deposit", key="admin", body=deposit, headers=headers))[0] < 300

        assert (await core.get("/jobs?idempotency_key=paid", key="admin"))[1]["jobs"] == []

    async def test_a_host_key_buys_nothing(self, core: Caller) -> None:
        assert (await core.get("/jobs", key="host"))[0] == 403


class TestJob:
    async def test_it_tells_its_whole_life(self, core: Caller) -> None:
        made = await core.buy()

        status, job = await core.get(f"/jobs/job_{made.id.hex()}")

        assert status == 200
        assert (job["state"], job["cost_uusd"], job["completion_tokens"]) == ("completed", 501, 5)
        assert [event["state"] for event in job["events"]] == ["queued", "running", "completed"]
        (attempt,) = job["attempts"]
        assert (attempt["state"], attempt["host"], attempt["paid_uusd"]) == ("done", job["host"], 441)
        assert (attempt["first_frame"], attempt["end_frame"], attempt["tokens"]) == (0, 5, 5)
        assert job["receipt"] == "rcpt_" + made.id.hex()
        assert job["waited_ms"] >= 0 and job["ran_ms"] >= 0

    async def test_one_that_waits_says_how_many_are_before_it(self, slow_core: Caller) -> None:
        made = [await slow_core.buy(tokens=500, wait=False) for _ in range(3)]

        seen = [(await slow_core.get(f"/jobs/job_{one.id.hex()}"))[1] for one in made]

        assert [(job["state"], job["queue_position"]) for job in seen] == [
            ("running", None),
            ("queued", 0),
            ("queued", 1),
        ]

    @pytest.mark.parametrize("key", ["stranger", "buyer"])
    async def test_anothers_job_is_unknown(self, core: Caller, key: str) -> None:
        made = await core.buy()
        name = f"job_{made.id.hex()}" if key == "stranger" else "job_" + "0" * 32

        for path in (f"/jobs/{name}", f"/jobs/{name}/receipt", f"/receipts/{name.replace('job', 'rcpt')}"):
            status, body = await core.get(path, key=key)
            assert (status, body["error"]["code"]) == (404, "UnknownJob"), path
        assert (await core.call("POST", f"/jobs/{name}/cancel", key=key))[0] == 404

    async def test_a_malformed_id_is_unknown(self, core: Caller) -> None:
        assert (await core.get("/jobs/7"))[0] == 404
        assert (await core.get("/receipts/7"))[0] == 404

    async def test_an_operator_sees_any_job(self, core: Caller) -> None:
        made = await core.buy()

        assert (await core.get(f"/jobs/job_{made.id.hex()}", key="admin"))[0] == 200


class TestCancel:
    async def test_a_running_job_stops_and_pays_what_came(self, slow_core: Caller) -> None:
        made = await slow_core.buy(tokens=500, wait=False)

        status, job = await slow_core.call("POST", f"/jobs/job_{made.id.hex()}/cancel")

        assert (status, job["state"], job["fault"]) == (200, "cancelled", "buyer")
        assert job["completion_tokens"] < 500
        assert (await slow_core.get("/me"))[1]["account"]["held_uusd"] == 0

    async def test_one_that_is_over_stays_as_it_is(self, core: Caller) -> None:
        made = await core.buy()

        status, body = await core.call("POST", f"/jobs/job_{made.id.hex()}/cancel")

        assert (status, body["error"]["code"]) == (409, "JobFinished")
        assert made.state == JobState.COMPLETED


class TestReceipt:
    async def test_it_verifies_against_the_published_keys(self, core: Caller) -> None:
        made = await core.buy()
        session, url = core._session, core.post.url + "/house"
        mine = {"authorization": f"Bearer {core.post.buyer_key}"}

        async with session.get(f"{url}/jobs/job_{made.id.hex()}/receipt", headers=mine) as answer:
            envelope = await answer.read()
        async with session.get(f"{url}/keys") as answer:
            registry = await answer.read()

        verdict = verify(envelope, read_registry(registry))
        assert verdict.ok, verdict
        assert verdict.statement is not None
        assert verdict.statement.predicate.amounts.charged_uusd == 501

    async def test_both_ids_name_the_same_receipt(self, core: Caller) -> None:
        made = (await core.buy()).id.hex()

        answers = [
            await core.get(path)
            for path in (f"/jobs/job_{made}/receipt", f"/receipts/rcpt_{made}", f"/receipts/job_{made}")
        ]

        assert answers[0][0] == 200
        assert answers[0] == answers[1] == answers[2]

    async def test_the_host_that_worked_may_read_it(self, core: Caller) -> None:
        made = (await core.buy()).id.hex()

        async with core.post.worker(name="idle"):
            assert (await core.get(f"/receipts/rcpt_{made}", key="host"))[0] == 200
            other = core.post.folder / "idle" / "host.json"
            key = other.read_text().split('"api_key": "')[1].split('"')[0]
            assert (await core.get(f"/receipts/rcpt_{made}", key=key))[0] == 404

    async def test_a_job_that_is_not_over_has_none(self, slow_core: Caller) -> None:
        made = await slow_core.buy(tokens=500, wait=False)

        status, body = await slow_core.get(f"/jobs/job_{made.id.hex()}/receipt")

        assert (status, body["error"]["code"]) == (404, "UnknownReceipt")
