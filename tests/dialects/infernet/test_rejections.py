"""Rejections: the Guardian's words, their order and 405; unreadable bodies are a 400; every error is a JSON object."""

from pathlib import Path
from typing import Any

import pytest

from tests.dialects.infernet.shop import PLENTY, Node, open_node
from tests.worker.engines.container_stand_in import Answer, appends

OPEN: dict[str, Answer] = {name: appends(name) for name in ("open", "private", "proves", "near", "far")}
CARDS: dict[str, dict[str, Any]] = {
    "private": {"external": False},
    "proves": {"generates_proofs": True},
    "near": {"allowed_ips": ("127.0.0.0/8",)},
    "far": {"allowed_ips": ("10.0.0.0/8", "2001:db8::/32")},
}

REJECTED: list[tuple[dict[str, Any], str, dict[str, Any] | None]] = [
    ({"containers": []}, "No containers specified", None),
    ({"containers": ["none"]}, "Container not supported", {"container": "none"}),
    ({"containers": ["open", "none", "nor this"]}, "Container not supported", {"container": "none"}),
    ({"containers": ["private"]}, "First container must be external", {"first_container": "private"}),
    ({"containers": ["private", "none"]}, "Container not supported", {"container": "none"}),
    (
        {"containers": ["private"], "requires_proof": True},
        "First container must be external",
        {"first_container": "private"},
    ),
    ({"containers": ["open"], "requires_proof": True}, "Container does not generate proof", {"container": "open"}),
    (
        {"containers": ["proves", "far"], "requires_proof": True},
        "Container does not generate proof",
        {"container": "far"},
    ),
    ({"containers": ["far"]}, "Container not allowed for address", {"container": "far", "address": "127.0.0.1"}),
    (
        {"containers": ["open", "far"]},
        "Container not allowed for address",
        {"container": "far", "address": "127.0.0.1"},
    ),
]
"""In the order in which the node checks; the last error of a row wins over those below it."""

TAKEN: list[dict[str, Any]] = [
    {"containers": ["open"]},
    {"containers": ["open", "private"]},
    {"containers": ["open", "proves"], "requires_proof": True},
    {"containers": ["proves", "private", "proves"], "requires_proof": True},
    {"containers": ["near", "near"]},
    {"containers": ["open"], "requires_proof": None},
]


MALFORMED: list[tuple[bytes, str | None]] = [
    (b"", None),
    (b"{", None),
    (b"[]", "body"),
    (b"null", "body"),
    (b'"x"', "body"),
    (b"{}", "data"),
    (b'{"data":{}}', "containers"),
    (b'{"containers":["open"]}', "data"),
    (b'{"containers":["open"],"data":1}', "data"),
    (b'{"containers":["open"],"data":[]}', "data"),
    (b'{"containers":"open","data":{}}', "containers"),
    (b'{"containers":[1],"data":{}}', "containers[0]"),
    (b'{"containers":["open"],"data":{},"requires_proof":"yes"}', "requires_proof"),
    (b'{"containers":["open"],"data":{}}x', None),
    (b'{"containers":["\xff"],"data":{}}', None),
    (b'{"containers":["open"],"data":{"x":"\xff"}}', None),
    (b'{"containers":["open"],"data":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}", None),
    (b'{"containers":[' + b",".join([b'"open"'] * 33) + b'],"data":{}}', "containers"),
]
"""Bodies that are no request, and the field that is said to be wrong."""


class TestGuardian:
    async def test_each_no_has_the_nodes_own_words(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers=OPEN, cards=CARDS) as node:
            for path in ("/api/jobs", "/api/jobs/stream"):
                for body, words, params in REJECTED:
                    said = await node.ask("POST", path, {"data": {}} | body)
                    expected = {"error": words} if params is None else {"error": words, "params": params}
                    assert (said.status, said.json) == (405, expected), body
                    assert said.headers["content-type"] == "application/json"
            batch = await node.ask("POST", "/api/jobs/batch", [{"data": {}} | body for body, _, _ in REJECTED])
            assert [item["error"] for item in batch.json] == [words for _, words, _ in REJECTED]

    async def test_what_is_allowed_is_taken(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers=OPEN, cards=CARDS) as node:
            for body in TAKEN:
                job = await node.job(*body["containers"], **body)
                assert (await node.result(job))["status"] == "success"


class TestBodies:
    async def test_what_is_no_request_is_a_400_that_says_where(self, node: Node) -> None:
        for body, field in MALFORMED:
            for path in ("/api/jobs", "/api/jobs/stream"):
                said = await node.ask("POST", path, body)
                keys = ["error", "params"] if field else ["error"]
                assert (said.status, sorted(said.json)) == (400, keys), (body[:80], said.body)
                if field:
                    assert said.json["params"] == {"field": field}, body[:80]
        assert (await node.ask("GET", "/api/jobs")).json == []

    async def test_with_a_key_neither_content_type_nor_further_fields_matter(self, node: Node) -> None:
        body, html = b'{"containers":["a"],"data":{},"more":[1]}', {"Content-Type": "text/html"}
        assert (await node.ask("POST", "/api/jobs", body)).status == 200
        assert (await node.ask("POST", "/api/jobs", body, key=node.post.buyer_key, headers=html)).status == 200
        assert (await node.ask("POST", "/api/jobs", body, headers=html)).status == 415


class TestRouting:
    @pytest.mark.parametrize("prefix", ["", "/infernet"])
    async def test_every_error_is_a_json_object(self, tmp_path: Path, prefix: str) -> None:
        async with open_node(tmp_path, prefix=prefix, answers={}) as node:
            for method, path, status in (
                ("GET", "/api/nothing", 404),
                ("DELETE", "/api/jobs", 405),
                ("GET", "/api/jobs/batch", 405),
                ("GET", "/api/jobs/stream", 405),
                ("POST", "/api/status", 405),
                ("POST", "/info", 405),
                ("POST", "/resources", 405),
            ):
                said = await node.ask(method, path)
                assert (said.status, list(said.json)) == (status, ["error"]), path
                assert isinstance(said.json["error"], str)
                assert said.headers["content-type"] == "application/json"

    async def test_head_works(self, node: Node) -> None:
        said = await node.ask("HEAD", "/info")
        assert (said.status, said.body) == (200, b"")

    async def test_a_broken_key_is_no_missing_one(self, node: Node) -> None:
        said = await node.ask("GET", "/api/jobs", key="ck_" + "x" * 43)
        assert (said.status, list(said.json)) == (401, ["error"])


class TestRates:
    async def test_each_path_has_its_own_count_for_each_address(self, tmp_path: Path) -> None:
        settings = PLENTY | {"infernet_requests_per_minute": 3}
        async with open_node(tmp_path, answers={}, **settings) as node:
            said = [await node.ask("GET", "/info") for _ in range(3)]
            assert [one.headers["ratelimit-remaining"] for one in said] == ["2", "1", "0"]
            assert said[0].headers["ratelimit-limit"] == "3"
            assert 0 < int(said[2].headers["ratelimit-reset"]) <= 60
            over = await node.ask("GET", "/infernet/info")
            assert (over.status, list(over.json)) == (429, ["error"])
            assert over.headers["content-type"] == "application/json"
            assert 1 <= int(over.headers["retry-after"]) <= 20
            assert (await node.ask("GET", "/resources")).status == 200

    async def test_it_is_counted_before_the_body_is_looked_at(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={}, **(PLENTY | {"infernet_requests_per_minute": 1})) as node:
            assert [(await node.ask("POST", "/api/jobs", b"{")).status for _ in range(2)] == [400, 429]

    async def test_a_path_with_a_slash_behind_it_is_no_other_one(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={}, **(PLENTY | {"infernet_requests_per_minute": 1})) as node:
            assert [(await node.ask("GET", path)).status for path in ("/resources", "/resources/")] == [200, 429]

    async def test_a_key_has_the_houses_limit(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={}, **(PLENTY | {"infernet_requests_per_minute": 1})) as node:
            key = node.post.buyer_key
            assert [(await node.ask("GET", "/api/jobs", key=key)).status for _ in range(3)] == [200] * 3

    async def test_containers_may_have_limits_of_their_own(self, tmp_path: Path) -> None:
        cards = {"a": {"rate_requests": 2, "rate_period_s": 3600.0}}
        async with open_node(tmp_path, answers={"a": appends("a"), "b": appends("b")}, cards=cards) as node:
            said = [await node.ask("POST", "/api/jobs", {"containers": ["a"], "data": {}}) for _ in range(3)]

            assert [one.status for one in said] == [200, 200, 429]
            assert said[2].json["error"].startswith("container 'a' takes 2 jobs of one caller in 3600 s")
            assert int(said[2].headers["retry-after"]) > 1000
            await node.job("b")
