"""Jobs: bought, run in order, asked about; what is the container's is passed on to the byte."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest

from comptoir.dialects.infernet import wire
from comptoir.dispatch.assign import requeue_verb
from comptoir.kinds import MILLION
from comptoir.kit.errors import Unavailable
from comptoir.link import Bye
from comptoir.reports import audit
from comptoir.worker.engines.container_spec import ContainerSpec
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.events import Event, JobDone
from comptoir.worker.run import WorkerConfig, run_worker
from tests.dialects.infernet.shop import RUN_UUSD, Node, open_node
from tests.worker.engines.container_stand_in import Answer, after, appends, dies, echo, says, serve_container

OFFCHAIN = 1


class TestRun:
    async def test_a_job_is_run_and_its_result_kept(self, node: Node) -> None:
        said = await node.ask("POST", "/api/jobs", {"containers": ["a"], "data": {"said": ["hello"]}})

        assert (said.status, list(said.json), said.headers["content-type"]) == (200, ["id"], "application/json")
        job = said.json["id"]
        assert str(uuid.UUID(job)) == job
        found = await node.result(job)
        assert found == {
            "id": job,
            "status": "success",
            "result": {"container": "a", "output": {"said": ["hello", "a"]}},
        }

    async def test_a_chain_gives_each_container_what_the_one_before_it_made(self, node: Node) -> None:
        job = await node.job("a", "b", "c", data={"said": []}, requires_proof=None)

        found = await node.result(job, intermediate=True)

        assert found["result"] == {"container": "c", "output": {"said": ["a", "b", "c"]}}
        assert found["intermediate_results"] == [
            {"container": "a", "output": {"said": ["a"]}},
            {"container": "b", "output": {"said": ["a", "b"]}},
        ]
        runs = [one.runs[0].json for one in node.containers.values()]
        assert [(run["source"], run["destination"], run["requires_proof"]) for run in runs] == [(1, 1, False)] * 3
        assert [run["data"] for run in runs] == [{"said": []}, {"said": ["a"]}, {"said": ["a", "b"]}]

    async def test_results_asked_for_at_once_are_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One small request must not have the coordinator write gigabytes: an id may be repeated."""
        monkeypatch.setattr(wire, "RESULTS_BYTES_MAX", 30_000)
        async with open_node(tmp_path, answers={"a": says(b'"' + b"x" * 20_000 + b'"')}) as node:
            job = await node.job("a")
            assert len((await node.result(job))["result"]["output"]) == 20_000

            said = await node.ask("GET", f"/api/jobs?id={job}&id={job}")
            assert (said.status, said.json["params"]) == (400, {"field": "id"})
            monkeypatch.setattr(wire, "RESULTS_BYTES_MAX", 10)
            assert (await node.ask("GET", f"/api/jobs?id={job}")).status == 200

    async def test_intermediate_results_come_only_when_asked_for(self, node: Node) -> None:
        job = await node.job("a", "b")

        assert "intermediate_results" not in await node.result(job)
        assert (await node.result(await node.job("a"), intermediate=True))["intermediate_results"] == []

    @pytest.mark.parametrize(
        "data",
        [
            b'{"n":115792089237316195423570985008687907853269984665640564039457584007913129639935}',
            b'{"n":-115792089237316195423570985008687907853269984665640564039457584007913129639936}',
            b'{"n": 0.10000000000000000555, "m":1e400, "t":"\\u00e9\\ud83d\\ude00 \xf0\x9f\x90\x88" }',
            b'{"a":{"b":[[],{},null,true,""]},"a":2}',
        ],
        ids=["2^256-1", "-2^256", "digits and signs", "nested, a name twice"],
    )
    async def test_input_and_output_are_passed_on_to_the_byte(self, tmp_path: Path, data: bytes) -> None:
        async with open_node(tmp_path, answers={"a": echo, "b": echo}) as node:
            said = await node.ask("POST", "/api/jobs", b'{"containers":["a","b"],"data":' + data + b"}")
            await node.result(said.json["id"])
            found = await node.ask("GET", f"/api/jobs?id={said.json['id']}&intermediate=true")

            assert [one.runs[0].data for one in node.containers.values()] == [data, data]
            assert found.body.count(b'"output":' + data + b"}") == 2

    async def test_what_a_body_says_of_id_and_ip_counts_for_nothing(self, tmp_path: Path) -> None:
        """The real node lets them override its own: anybody's results could be overwritten, any address claimed."""
        cards = {"b": {"allowed_ips": ("10.0.0.0/8",)}}
        async with open_node(tmp_path, cards=cards) as node:
            mine = str(uuid.uuid4())
            body = {"containers": ["a"], "data": {}, "id": mine, "ip": "10.1.2.3", "type": "x"}
            job = (await node.ask("POST", "/api/jobs", body)).json["id"]
            assert job != mine
            assert await node.results(mine) == []
            refused = await node.ask("POST", "/api/jobs", body | {"containers": ["b"]})
            assert (refused.status, refused.json["error"]) == (405, "Container not allowed for address")
            batch = await node.ask("POST", "/api/jobs/batch", [body | {"containers": ["b"]}])
            assert batch.json[0]["params"] == {"container": "b", "address": "127.0.0.1"}

    async def test_it_is_running_until_it_is_over(self, tmp_path: Path) -> None:
        gate = asyncio.Event()
        async with open_node(tmp_path, answers={"a": appends("a"), "b": after(gate)}) as node:
            job = await node.job("a", "b")
            await node.containers["b"].came()

            assert await node.results(job) == [{"id": job, "status": "running", "result": None}]
            (found,) = await node.results(job, intermediate=True)
            assert found["intermediate_results"] == [{"container": "a", "output": {"said": ["a"]}}]
            assert (await node.ask("GET", "/info")).json["pending"] == {"offchain": 1, "onchain": 0}
            gate.set()
            assert (await node.result(job))["status"] == "success"
            assert (await node.ask("GET", "/info")).json["pending"] == {"offchain": 0, "onchain": 0}

    async def test_results_outlive_the_coordinators_memory(self, node: Node) -> None:
        """What is no longer kept in memory is read from the database, and is the same."""
        job = await node.job("a", "b")
        before = await node.result(job, intermediate=True)
        node.core.jobs.live.forget_recent(older_than_ms=1 << 60)

        assert await node.results(job, intermediate=True) == [before]

    async def test_a_result_that_is_no_longer_kept_is_said_to_be_so(self, node: Node) -> None:
        key = node.post.buyer_key
        job = await node.job("a", "b", key=key)
        await node.result(job, key=key)
        node.core.jobs.live.forget_recent(older_than_ms=1 << 60)
        await node.core.jobs.forget(older_than_ms=node.core.clock.now_ms() + 60_000, after=b"")

        (found,) = await node.results(job, key=key)
        assert found["status"] == "success"
        assert found["result"] == {"container": "b", "error": "the result is no longer kept"}


class TestDatabaseAway:
    @pytest.mark.parametrize("reconnects", [False, True])
    async def test_steps_that_can_not_be_written_are_written_later_and_not_run_again(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, reconnects: bool
    ) -> None:
        """Nor is a host that comes back meanwhile told that its lease is not known: it would forget what it has
        made."""
        gate = asyncio.Event()
        async with open_node(tmp_path, answers={"a": after(gate, appends("a")), "b": appends("b")}) as node:
            jobs = [await node.job("a", "b") for _ in range(3)]
            await node.containers["a"].came(3)
            batch, refused = node.core.db.batch, []

            def away(verb: Any, item: Any, *, turn: int = 0) -> "asyncio.Future[Any]":
                if verb is not requeue_verb or len(refused) == 3:
                    return batch(verb, item, turn=turn)
                refused.append(item)
                loop = asyncio.get_running_loop()
                done: asyncio.Future[Any] = loop.create_future()
                if reconnects and len(refused) == 1:
                    (line,) = node.core.channels.values()
                    loop.call_later(0.05, line.post, Bye("come again", 0.0))  # type: ignore[attr-defined]
                loop.call_later(1.0 if reconnects else 0.02, done.set_exception, Unavailable("it is out of reach"))
                return done

            node.core.db.batch = away  # type: ignore[method-assign]
            gate.set()

            for job in jobs:
                assert (await node.result(job))["result"] == {"container": "b", "output": {"said": ["a", "b"]}}
            assert (len(refused), len(node.containers["a"].runs), len(node.containers["b"].runs)) == (3, 3, 3)
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []

    async def test_with_a_result_go_a_failed_containers_words_and_the_callers_address(
        self, tmp_path: Path, database_address: str
    ) -> None:
        answers: dict[str, Answer] = {"a": says(b'{"your":"prompt"}', status=422)}
        async with open_node(tmp_path, answers=answers, database=database_address) as node:
            core, key = node.core, node.post.buyer_key
            jobs = [await node.job("a", key=key), await node.job("a")]
            for job, asked in zip(jobs, (key, ""), strict=True):
                assert (await node.result(job, key=asked))["result"]["error"] == '{"your":"prompt"}'
            core.jobs.live.forget_recent(older_than_ms=1 << 60)
            await core.jobs.forget(older_than_ms=core.clock.now_ms() + 60_000, after=b"")

            (found,) = await node.results(jobs[0], key=key)
            assert found["result"] == {"container": "a", "error": "the result is no longer kept"}
            assert await node.results(jobs[1]) == []
            for table, column in (("jobs", "error_message"), ("jobs", "caller"), ("job_events", "detail")):
                rows = await core.db.fetch(f"SELECT {column} FROM {table} WHERE {column} <> ''")
                assert [row[0] for row in rows] == [], column
            assert await audit(core.db) == []


class TestPay:
    async def test_each_run_is_paid_to_the_host_that_did_it(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={"a": appends("a")}) as node, serve_container(appends("b")) as other:
            key = node.post.buyer_key
            async with node.host(ContainerSpec(id="b", url=other.url), name="second", run_uusd=3 * RUN_UUSD):
                job = await node.job("a", "b", key=key)
                await node.result(job, key=key)

                hosts = {host.row.models[0].name: host.id for host in node.core.fleet}
                earned = {name: (await node.core.ledger.account(host)).balance_uusd for name, host in hosts.items()}
                assert earned == {"a": 880, "b": 2640}
                assert (await node.core.ledger.account(node.post.buyer_id)).free_uusd == 1_000_000 - 4 * RUN_UUSD
                attempts = await node.core.jobs.attempts(uuid.UUID(job).bytes)
                assert [attempt.state for attempt in attempts] == ["done", "done"]
            assert await audit(node.core.db) == []

    async def test_a_host_hears_of_each_run_once_and_of_its_pay_once(self, tmp_path: Path) -> None:
        events: list[Event] = []
        stop = asyncio.Event()
        async with open_node(tmp_path, answers={}) as node, serve_container(appends("a")) as one:
            config = WorkerConfig(
                url=node.post.url,
                engines=[EngineSpec("container", {"id": "a", "url": one.url})],
                prices={"run": RUN_UUSD * MILLION},
                measure=False,
                state_dir=str(tmp_path / "worker"),
                drain_s=2.0,
            )
            working = asyncio.create_task(run_worker(config, on_event=events.append, stop=stop))
            await node.post.until_linked(1)
            await node.result(await node.job("a", "a", "a"))
            stop.set()
            await working

        told = [event for event in events if isinstance(event, JobDone)]
        assert [(event.state, event.tokens) for event in told[:3]] == [("done", 1)] * 3
        assert [(event.state, event.tokens) for event in told[3:]] == [("paid", 0)] * 2
        assert sum(event.earned_uusd for event in told) == 3 * 880

    async def test_what_is_not_covered_is_refused_and_nothing_is_written(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, signup_credits_uusd=2 * RUN_UUSD) as node:
            key = node.post.buyer_key
            said = await node.ask("POST", "/api/jobs", {"containers": ["a"] * 3, "data": {}}, key=key)

            assert (said.status, said.json["params"]) == (402, {"needed_uusd": 3000, "free_uusd": 2000})
            assert (await node.ask("GET", "/api/jobs", key=key)).json == []
            assert node.containers["a"].runs == []

    async def test_a_repeat_is_answered_though_it_would_not_be_admitted_any_more(self, tmp_path: Path) -> None:
        """The first answer was lost on its way, and the caller has had all that the container gives him for now."""
        async with open_node(tmp_path, cards={"a": {"rate_requests": 1, "rate_period_s": 3600.0}}) as node:
            headers, body = {"Idempotency-Key": "once"}, {"containers": ["a"], "data": {}}
            first = await node.ask("POST", "/api/jobs", body, headers=headers)
            again = await node.ask("POST", "/api/jobs", body, headers=headers)

            assert (first.status, again.status, again.body) == (200, 200, first.body)
            assert (await node.ask("POST", "/api/jobs", body)).status == 429

    async def test_a_repeat_under_an_idempotency_key_is_the_same_job(self, node: Node) -> None:
        headers = {"Idempotency-Key": "once"}
        body = {"containers": ["a"], "data": {}}
        said = [await node.ask("POST", "/api/jobs", body, key=node.post.buyer_key, headers=headers) for _ in range(2)]
        many = [
            await node.ask("POST", "/api/jobs/batch", [body, body], headers={"Idempotency-Key": "2"}) for _ in range(2)
        ]

        assert said[0].body == said[1].body
        assert many[0].body == many[1].body
        assert len({one["id"] for one in many[0].json}) == 2
        await node.result(said[0].json["id"], key=node.post.buyer_key)
        for one in many[0].json:
            await node.result(one["id"])
        assert len(node.containers["a"].runs) == 3


class TestFailure:
    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (says(b'{"error":"boom"}', status=500), '{"error":"boom"}'),
            (says(b"no memory\n", status=503, content_type="text/plain"), "no memory\n"),
            (says(b'{"detail":"bad field"}', status=422), '{"detail":"bad field"}'),
        ],
    )
    async def test_a_container_that_fails_fails_the_job_and_is_quoted(
        self, tmp_path: Path, answer: object, error: str
    ) -> None:
        """The real node takes a 500 with a JSON body for a success."""
        async with open_node(tmp_path, answers={"a": appends("a"), "b": answer}) as node:  # type: ignore[dict-item]
            job = await node.job("a", "b", "a")

            found = await node.result(job, intermediate=True)

            assert found["status"] == "failed"
            assert found["result"] == {"container": "b", "error": error}
            assert found["intermediate_results"] == [{"container": "a", "output": {"said": ["a"]}}]
            node.core.jobs.live.forget_recent(older_than_ms=1 << 60)
            assert await node.results(job, intermediate=True) == [found]

    @pytest.mark.parametrize("answer", [dies, says(b"{", content_type="application/json")], ids=["dies", "no JSON"])
    async def test_no_error_tells_where_the_container_is(self, tmp_path: Path, answer: object) -> None:
        async with open_node(tmp_path, answers={"a": answer}) as node:  # type: ignore[dict-item]
            found = await node.result(await node.job("a"))

            port = node.containers["a"].url.rsplit(":", 1)[1]
            assert found["status"] == "failed" and found["result"]["error"]
            assert port not in found["result"]["error"] and "127.0.0.1" not in found["result"]["error"]

    async def test_a_host_that_fails_is_replaced_by_one_that_does_not(self, tmp_path: Path) -> None:
        async with (
            open_node(tmp_path, answers={"a": says(b"{}", status=500)}) as node,
            serve_container(appends("a")) as good,
        ):
            async with node.host(ContainerSpec(id="a", url=good.url), name="second", run_uusd=10 * RUN_UUSD):
                job = await node.job("a", "a")
                # The job is quoted anew at the dear host's price.
                assert (await node.result(job))["status"] == "success"
            async with node.host(ContainerSpec(id="a", url=good.url), name="third", run_uusd=RUN_UUSD):
                jobs = [await node.job("a") for _ in range(4)]

                assert {(await node.result(one))["status"] for one in jobs} == {"success"}

    async def test_outputs_that_are_too_much_together_are_no_hosts_fault(self, tmp_path: Path) -> None:
        answers = {"a": says(b'"' + b"x" * 600 + b'"')}
        async with open_node(tmp_path, answers=answers, answer_bytes_max=1024) as node:
            job = await node.job("a", "a", "a")

            found = await node.result(job)
            stored = await node.core.jobs.get(uuid.UUID(job).bytes)
            assert (found["status"], stored.error_code, stored.fault) == ("failed", "answer_too_large", "buyer")
            assert len(node.containers["a"].runs) == 2


class TestBatch:
    async def test_each_item_is_answered_for_itself_in_order(self, node: Node) -> None:
        """One malformed item fails the whole batch of the real node, against its reference."""
        job = {"containers": ["a"], "data": {}}
        body = [
            job,
            {"containers": ["x"], "data": {}},
            5,
            {"data": {}},
            {"containers": "a", "data": {}},
            job,
            {"containers": []},
        ]

        said = await node.ask("POST", "/api/jobs/batch", body)

        assert said.status == 200
        assert [sorted(item) for item in said.json] == [["id"], *[["error", "params"]] * 4, ["id"], ["error", "params"]]
        assert said.json[1] == {"error": "Container not supported", "params": {"container": "x"}}
        assert [item.get("params", {}).get("field") for item in said.json] == [
            None,
            None,
            "body",
            "containers",
            "containers",
            None,
            "data",
        ]
        for item in (said.json[0], said.json[5]):
            assert (await node.result(item["id"]))["status"] == "success"

    async def test_it_needs_a_list(self, node: Node) -> None:
        for body in ({"containers": ["a"], "data": {}}, 1, None, "x"):
            said = await node.ask("POST", "/api/jobs/batch", body if body is not None else b"null")
            assert (said.status, said.json) == (400, {"error": "Expected a list"})

    async def test_an_empty_one_gives_an_empty_list_and_a_huge_one_is_refused(self, node: Node) -> None:
        assert (await node.ask("POST", "/api/jobs/batch", [])).json == []
        said = await node.ask("POST", "/api/jobs/batch", [{"containers": ["a"], "data": {}}] * 1001)
        assert (said.status, said.json["params"]) == (400, {"field": "body"})
        assert (await node.ask("GET", "/api/jobs")).json == []

    async def test_with_a_key_the_content_type_is_not_looked_at(self, node: Node) -> None:
        """Without one a web page could have sent it: tests/gateway/test_browsers.py."""
        headers, body = {"Content-Type": "text/plain"}, [{"containers": ["a"], "data": {}}]
        said = await node.ask("POST", "/api/jobs/batch", body, key=node.post.buyer_key, headers=headers)
        assert (said.status, len(said.json)) == (200, 1)
        said = await node.ask("POST", "/api/jobs/batch", body, headers=headers)
        assert (said.status, list(said.json)) == (415, ["error"])


class TestLook:
    async def test_jobs_come_in_the_order_asked_and_unknown_ones_are_left_out(self, node: Node) -> None:
        jobs = [await node.job("a") for _ in range(3)]
        for job in jobs:
            await node.result(job)
        asked = [jobs[2], str(uuid.uuid4()), jobs[0], "no uuid", jobs[1], jobs[2], ""]

        assert [one["id"] for one in await node.results(*asked)] == [jobs[2], jobs[0], jobs[1], jobs[2]]

    async def test_without_an_id_ones_own_are_listed_the_newest_first(self, tmp_path: Path) -> None:
        gate = asyncio.Event()
        async with open_node(tmp_path, answers={"a": appends("a"), "b": after(gate)}) as node:
            over = [await node.job("a") for _ in range(3)]
            for job in over:
                await node.result(job)
            running = await node.job("b")
            await node.job("a", key=node.post.buyer_key)

            assert (await node.ask("GET", "/api/jobs")).json == [running, *reversed(over)]
            assert (await node.ask("GET", "/api/jobs?pending=true")).json == [running]
            assert (await node.ask("GET", "/api/jobs?pending=false")).json == [*reversed(over)]
            assert (await node.ask("GET", "/api/jobs?pending=maybe")).json == [running, *reversed(over)]
            gate.set()
            await node.result(running)
            assert (await node.ask("GET", "/api/jobs?pending=true")).json == []

    async def test_a_long_list_is_paged(self, node: Node) -> None:
        jobs = [(await node.job("a")) for _ in range(5)]

        first = (await node.ask("GET", "/api/jobs?limit=2")).json
        rest = (await node.ask("GET", f"/api/jobs?limit=10&before={first[-1]}")).json

        assert first + rest == [*reversed(jobs)]
        for bad in ("limit=0", "limit=10001", "limit=x", "before=x"):
            assert (await node.ask("GET", f"/api/jobs?{bad}")).status == 400

    async def test_at_most_a_thousand_are_asked_for_at_once(self, node: Node) -> None:
        assert await node.results(*["x"] * 1000) == []
        said = await node.ask("GET", "/api/jobs?" + "&".join(["id=x"] * 1001))
        assert (said.status, said.json["params"]) == (400, {"field": "id"})


class TestPostgres:
    async def test_it_is_the_same_there(self, tmp_path: Path, postgres_address: str) -> None:
        async with open_node(tmp_path, database=postgres_address) as node:
            job = await node.job("a", "b", "c")
            found = await node.result(job, intermediate=True)
            node.core.jobs.live.forget_recent(older_than_ms=1 << 60)

            assert await node.results(job, intermediate=True) == [found]
            for pending, ids in (("", [job]), ("?pending=true", []), ("?pending=false", [job])):
                assert (await node.ask("GET", f"/api/jobs{pending}")).json == ids
            await node.ask("PUT", "/api/status", {"id": "x", "status": "running", "containers": ["z"]})
            assert await node.results("x") == [{"id": "x", "status": "running", "result": None}]
