"""Callers: jobs belong to a key or to an address; who has none is let in as the operator says, and paid for up to an
allowance."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.gateway.local import is_local
from comptoir.kit.http import Request
from comptoir.ledger import ANONYMOUS_CALLERS, PROMOTIONS
from comptoir.reports import audit
from tests.dialects.infernet.shop import PLENTY, RUN_UUSD, Node, Said, open_node
from tests.worker.engines.container_stand_in import appends

JOB = {"containers": ["a"], "data": {}}


async def ask_from(node: Node, address: str, request: str, *, body: Any = None, **headers: str) -> Said:
    """Send a request as if it came through a trusted proxy from *address*."""
    method, _, path = request.partition(" ")
    return await node.ask(method, path, body, headers={"X-Forwarded-For": address, **headers})


class TestWithoutAKey:
    async def test_nobody_is_let_in_unless_the_operator_says_so(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, infernet_anonymous="off") as node:
            for method, path, body in (
                ("POST", "/api/jobs", JOB),
                ("POST", "/api/jobs/batch", [JOB]),
                ("POST", "/api/jobs/stream", JOB),
                ("GET", "/api/jobs", None),
                ("PUT", "/api/status", {"id": "x", "status": "running", "containers": []}),
            ):
                said = await node.ask(method, path, body)
                assert (said.status, list(said.json)) == (401, ["error"]), path
                assert "Authorization" in said.json["error"]
            assert (await node.ask("POST", "/api/jobs", JOB, key=node.post.buyer_key)).status == 200
            for path in ("/health", "/info", "/resources"):
                assert (await node.ask("GET", path)).status == 200

    async def test_what_a_proxy_hands_on_is_no_program_of_this_machine(self, node: Node) -> None:
        assert (await node.ask("POST", "/api/jobs", JOB)).status == 200
        for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
            said = await node.ask("POST", "/api/jobs", JOB, headers={header: "127.0.0.1"})
            assert said.status == 401, header

    async def test_jobs_belong_to_the_address_and_another_sees_nothing(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, infernet_anonymous="any", trusted_proxies=("127.0.0.1",)) as node:
            job = (await ask_from(node, "192.0.2.1", "POST /api/jobs", body=JOB)).json["id"]

            for address, ids in (
                ("192.0.2.1", [job]),
                ("192.0.2.2", []),
                ("::ffff:192.0.2.1", [job]),
                ("2001:db8::1", []),
            ):
                assert (await ask_from(node, address, "GET /api/jobs")).json == ids
                assert len((await ask_from(node, address, f"GET /api/jobs?id={job}")).json) == len(ids)
            assert (await node.ask("GET", "/api/jobs", key=node.post.buyer_key)).json == []
            while (await ask_from(node, "192.0.2.1", f"GET /api/jobs?id={job}")).json[0]["status"] == "running":
                pass
            node.core.jobs.live.forget_recent(older_than_ms=1 << 60)
            assert (await ask_from(node, "192.0.2.2", f"GET /api/jobs?id={job}")).json == []
            assert len((await ask_from(node, "192.0.2.1", f"GET /api/jobs?id={job}")).json) == 1

    async def test_a_repeat_of_anothers_request_is_no_repeat(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, infernet_anonymous="any", trusted_proxies=("127.0.0.1",)) as node:
            repeat = {"Idempotency-Key": "same"}
            said = [
                await ask_from(node, address, "POST /api/jobs", body=JOB, **repeat)
                for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1")
            ]
            ids = [one.json["id"] for one in said]
            assert ids[0] == ids[2] != ids[1]

    async def test_an_ipv6_address_is_spelled_one_way(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, infernet_anonymous="any", trusted_proxies=("127.0.0.1",)) as node:
            job = (await ask_from(node, "2001:DB8:0:0::1", "POST /api/jobs", body=JOB)).json["id"]
            assert (await ask_from(node, "2001:db8::1", "GET /api/jobs")).json == [job]

    async def test_containers_open_to_some_addresses_go_by_the_peers(self, tmp_path: Path) -> None:
        cards = {"a": {"allowed_ips": ("192.0.2.0/24",)}}
        settings = {"infernet_anonymous": "any", "trusted_proxies": ("127.0.0.1",)}
        async with open_node(tmp_path, cards=cards, **settings) as node:
            assert (await ask_from(node, "192.0.2.9", "POST /api/jobs", body=JOB)).status == 200
            assert (await ask_from(node, "192.0.3.9", "POST /api/jobs", body=JOB)).status == 405
            # Whoever writes the header himself is not believed.
            said = await ask_from(node, "192.0.2.9, 192.0.3.9", "POST /api/jobs", body=JOB)
            assert said.json["params"] == {"container": "a", "address": "192.0.3.9"}


class TestAllowance:
    async def test_the_house_pays_up_to_the_days_allowance(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, infernet_anonymous_uusd_per_day=2 * RUN_UUSD) as node:
            said = [await node.ask("POST", "/api/jobs", JOB) for _ in range(3)]
            for one in said[:2]:
                await node.result(one.json["id"])

            assert [one.status for one in said] == [200, 200, 402]
            assert said[2].json["params"] == {"needed_uusd": RUN_UUSD, "free_uusd": 0}
            account = await node.core.ledger.account(ANONYMOUS_CALLERS)
            assert (account.kind, account.balance_uusd, account.held_uusd) == ("unnamed", 0, 0)
            assert await audit(node.core.db) == []

    async def test_it_is_filled_up_again_the_next_day_and_no_sooner(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, infernet_anonymous_uusd_per_day=2 * RUN_UUSD) as node:
            await node.result(await node.job("a"))
            ledger, day_ms = node.core.ledger, 86_400_000
            midnight_ms = node.core.clock.now_ms() // day_ms * day_ms

            # Asked again on the same day, by whichever coordinator, it gives nothing more.
            for _ in range(2):
                assert await ledger.allow(ANONYMOUS_CALLERS, most_uusd=2 * RUN_UUSD, since_ms=midnight_ms) == RUN_UUSD
            given = -(await ledger.account(PROMOTIONS)).balance_uusd
            assert (
                await ledger.allow(ANONYMOUS_CALLERS, most_uusd=2 * RUN_UUSD, since_ms=midnight_ms + day_ms)
                == 2 * RUN_UUSD
            )
            assert -(await ledger.account(PROMOTIONS)).balance_uusd == given + RUN_UUSD

    async def test_a_lower_one_holds_at_once(self, tmp_path: Path) -> None:
        """What was given under the higher one, and is not spent, is taken back: the setting is what may be spent."""
        async with open_node(tmp_path, infernet_anonymous_uusd_per_day=10 * RUN_UUSD) as node:
            await node.result(await node.job("a"))
            midnight_ms = node.core.clock.now_ms() // 86_400_000 * 86_400_000

            for _ in range(2):
                rest = await node.core.ledger.allow(ANONYMOUS_CALLERS, most_uusd=2 * RUN_UUSD, since_ms=midnight_ms)
                assert rest == RUN_UUSD
            assert await audit(node.core.db) == []

    async def test_free_containers_need_none(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={}, infernet_anonymous_uusd_per_day=0) as node:
            from_none = await node.ask("POST", "/api/jobs", JOB)
            assert from_none.status == 405

    async def test_with_a_key_its_owner_pays(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, infernet_anonymous_uusd_per_day=0) as node:
            key = node.post.buyer_key
            await node.result(await node.job("a", key=key), key=key)

            assert (await node.core.ledger.account(node.post.buyer_id)).balance_uusd == 1_000_000 - RUN_UUSD
            assert (await node.ask("POST", "/api/jobs", JOB)).status == 402


class TestKeys:
    async def test_a_key_sees_its_jobs_from_any_address_and_nobody_elses(self, tmp_path: Path) -> None:
        settings = {"infernet_anonymous": "any", "trusted_proxies": ("127.0.0.1",)}
        async with open_node(tmp_path, **settings) as node:
            bearer = {"Authorization": f"Bearer {node.post.buyer_key}"}
            job = (await ask_from(node, "192.0.2.1", "POST /api/jobs", body=JOB, **bearer)).json["id"]

            assert (await ask_from(node, "192.0.2.2", "GET /api/jobs", **bearer)).json == [job]
            assert (await ask_from(node, "192.0.2.1", "GET /api/jobs")).json == []
            other = {"Authorization": f"Bearer {node.post.admin_key}"}
            assert (await ask_from(node, "192.0.2.1", f"GET /api/jobs?id={job}", **other)).json == []

    async def test_jobs_of_other_apis_are_none_of_this_one(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={"a": appends("a")}) as node, node.post.worker(name="model"):
            key = node.post.buyer_key
            chat = {"model": "trivial", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
            async with node.session.post(
                node.url + "/v1/chat/completions", json=chat, headers={"Authorization": f"Bearer {key}"}
            ) as answer:
                public = answer.headers["x-comptoir-job"].removeprefix("job_")
            name = f"{public[:8]}-{public[8:12]}-{public[12:16]}-{public[16:20]}-{public[20:]}"

            assert await node.results(name, key=key) == []
            assert (await node.ask("GET", "/api/jobs", key=key)).json == []

    async def test_a_hosts_key_buys_nothing(self, tmp_path: Path) -> None:
        async with open_node(tmp_path) as node:
            host_key = json.loads(next(node.post.folder.glob("containers/*.json")).read_text())["api_key"]
            said = await node.ask("POST", "/api/jobs", JOB, key=host_key)
            assert (said.status, list(said.json)) == (403, ["error"])

    async def test_other_apis_call_a_chain_by_all_its_containers(self, tmp_path: Path) -> None:
        async with open_node(tmp_path) as node:
            key = node.post.buyer_key
            job = await node.job("a", "b", key=key)
            await node.result(job, key=key)

            shown = await node.ask("GET", f"/jobs/job_{job.replace('-', '')}", key=key)
            listed = await node.ask("GET", "/jobs", key=key)
            assert (shown.json["model"], listed.json["jobs"][0]["model"]) == ("a,b", "a,b")


class TestIsLocal:
    @pytest.mark.parametrize(
        ("peer", "headers", "local"),
        [
            ("127.0.0.1", [], True),
            ("127.9.9.9", [], True),
            ("::1", [], True),
            ("::ffff:127.0.0.1", [], True),
            ("172.17.0.2", [], False),
            ("192.168.1.2", [], False),
            ("10.0.0.1", [], False),
            ("", [], False),
            ("127.0.0.1", [(b"x-forwarded-for", b"127.0.0.1")], False),
            ("127.0.0.1", [(b"forwarded", b"for=127.0.0.1")], False),
            ("127.0.0.1", [(b"x-forwarded-for", b"")], False),
            ("127.0.0.1", [(b"host", b"localhost:4000")], True),
            ("127.0.0.1", [(b"host", b"[::1]:4000")], True),
            ("127.0.0.1", [(b"host", b"rebound.example:4000")], False),
            ("127.0.0.1", [(b"host", b"")], True),
            ("127.0.0.1", [(b"origin", b"https://page.example")], False),
            ("127.0.0.1", [(b"sec-fetch-site", b"cross-site")], False),
            ("127.0.0.1", [(b"x-forwarded-for", b"192.0.2.1"), (b"x-forwarded-for", b"")], False),
        ],
    )
    def test_loopback_itself_and_nothing_else(self, peer: str, headers: list[tuple[bytes, bytes]], local: bool) -> None:
        """The real node also lets in Docker's and everybody's home network."""

        async def receive() -> dict[str, Any]:
            return {}

        request = Request({"client": (peer, 1) if peer else None, "headers": headers}, receive, {})
        assert is_local(request) is local


NO_REPORTS: list[tuple[dict[str, Any], str]] = [
    ({"id": "x", "status": "done", "containers": []}, "Status is invalid"),
    ({"id": "x", "status": "", "containers": []}, "Status is invalid"),
    ({"status": "running", "containers": []}, "id: is required"),
    ({"id": "x", "containers": []}, "status: is required"),
    ({"id": "x", "status": "running"}, "containers: is required"),
    ({"id": 1, "status": "running", "containers": []}, "id: expected `str`, got `int`"),
    ({"id": "a\0b", "status": "running", "containers": []}, "NUL can't be part of a name"),
]


class TestStatus:
    async def test_a_program_of_this_machine_reports_and_asks(self, tmp_path: Path) -> None:
        async with open_node(tmp_path) as node:
            for status in ("running", "success", "failed", "running"):
                said = await node.ask(
                    "PUT", "/api/status", {"id": "job-1", "status": status, "containers": ["old", "image"]}
                )
                assert (said.status, said.body, said.headers["content-type"]) == (200, b"null", "application/json")
                assert await node.results("job-1") == [{"id": "job-1", "status": status, "result": None}]
            await node.ask("PUT", "/api/status", {"id": "job-2", "status": "success", "containers": []})
            bought = await node.job("a")
            await node.result(bought)

            assert (await node.ask("GET", "/api/jobs")).json == [bought, "job-2", "job-1"]
            assert (await node.ask("GET", "/api/jobs?pending=true")).json == ["job-1"]
            assert (await node.ask("GET", "/api/jobs?pending=false")).json == [bought, "job-2"]
            (found,) = await node.results("job-2", intermediate=True)
            assert found == {"id": "job-2", "status": "success", "result": None, "intermediate_results": []}

    async def test_nobody_else_may(self, tmp_path: Path) -> None:
        body = {"id": "x", "status": "running", "containers": []}
        async with open_node(tmp_path, infernet_anonymous="any", trusted_proxies=("127.0.0.1",)) as node:
            for headers in ({"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Real-IP": "::1"}):
                said = await node.ask("PUT", "/api/status", body, headers=headers)
                assert (said.status, said.json) == (403, {"error": "Unauthorized"})

    async def test_what_can_not_be_noted_is_a_400(self, node: Node) -> None:
        for body, error in NO_REPORTS:
            said = await node.ask("PUT", "/api/status", body)
            assert (said.status, said.json["error"]) == (400, error), body
        assert (await node.ask("GET", "/api/jobs")).json == []

    async def test_no_report_stands_for_a_job_that_was_bought(self, node: Node) -> None:
        """The real node lets a report overwrite what a job gave."""
        job = await node.job("a", key=node.post.buyer_key)
        await node.result(job, key=node.post.buyer_key)

        said = await node.ask("PUT", "/api/status", {"id": job, "status": "failed", "containers": ["a"]})

        assert (said.status, said.json["params"]) == (400, {"id": job})
        assert (await node.result(job, key=node.post.buyer_key))["status"] == "success"

    async def test_reports_of_a_key_are_its_own(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, **PLENTY) as node:
            key = node.post.buyer_key
            await node.ask("PUT", "/api/status", {"id": "mine", "status": "running", "containers": []}, key=key)

            assert await node.results("mine") == []
            assert len(await node.results("mine", key=key)) == 1


async def test_the_prefix_serves_the_same(tmp_path: Path) -> None:
    async with open_node(tmp_path, prefix="/infernet") as node, aiohttp.ClientSession() as session:
        job = await node.job("a")
        await node.result(job)
        async with session.get(f"{node.post.url}/api/jobs?id={job}") as answer:
            assert (await answer.json())[0]["id"] == job
