"""The published examples, word for word: one story through all fifteen endpoints gives answers of their very shape."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.dialects.infrintia.routes import PUBLISHED
from tests.dialects.infrintia.caller import LLAMA, Answer, Caller, events
from tests.dialects.infrintia.conftest import Market, market_of
from tests.post import open_post

GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = {path.stem: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json"))}
ADDED = {"06_post_users": {"api_key"}}
"""Fields of ours beside the published ones."""

TOKENS = ["Quantum", " computing", " is", " a"] + [" qubit"] * 188
"""192 of them: the reference's 1.92 credits at $0.0001 a token."""


def shape(value: Any) -> Any:
    """Return what must agree: keys, JSON types, spelling of ids and times; a list counts by its first element."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, str):
        prefix = re.match(r"(usr|job|host|hk_live)_", value)
        return prefix[0] if prefix else "time" if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value) else "text"
    return type(value).__name__


def assert_published(name: str, answer: Answer) -> None:
    """The answer has the published status and shape, and nothing beside but what is written down as ours."""
    example = EXAMPLES[name]
    assert answer.status == example["status"], answer.text
    assert answer.headers["content-type"] == "application/json"
    got = {key: each for key, each in answer.body.items() if key not in ADDED.get(name, ())}
    assert shape(got) == shape(example["response"])
    assert list(got) == list(example["response"])


async def tell(market: Market, prefix: str) -> dict[str, Answer]:
    """Play the reference's story; return the answer of each endpoint."""
    session, url = market.buyer.session, market.post.url + prefix
    anyone, admin = Caller(session, url), Caller(session, url, market.admin.key)
    said: dict[str, Answer] = {}
    said["06_post_users"] = await anyone.post("/users", EXAMPLES["06_post_users"]["request"])
    alice = Caller(session, url, said["06_post_users"].body["api_key"])
    registration = EXAMPLES["11_post_hosts_register"]["request"] | {"price_per_token": 0.0001}
    said["11_post_hosts_register"] = await anyone.post("/hosts/register", registration)
    host_id = said["11_post_hosts_register"].body["host_id"]
    host = Caller(session, url, said["11_post_hosts_register"].body["api_key"], host_id)
    beat = EXAMPLES["12_post_hosts_heartbeat"]["request"] | {"host_id": host_id}
    said["12_post_hosts_heartbeat"] = await host.post("/hosts/heartbeat", beat)
    poll = asyncio.create_task(host.post("/hosts/next-job", {"host_id": host_id}))
    while not market.core.channels[bytes.fromhex(host_id[5:])].polls:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    said["08_post_run_model"] = await alice.post("/run/model", EXAMPLES["08_post_run_model"]["request"])
    said["13_post_hosts_next_job"] = await poll
    job_id = said["08_post_run_model"].body["job_id"]
    await host.chunk(job_id, *TOKENS)
    await host.complete(job_id)
    said["10_get_jobs_stream"] = await alice.get(f"/jobs/{job_id}/stream")
    for name, who in (
        ("01_get_root", anyone),
        ("02_get_health", anyone),
        ("03_get_models", anyone),
        ("04_get_hosts", anyone),
        ("05_get_metrics", anyone),
        ("07_get_users_me", alice),
        ("09_get_jobs", alice),
        ("14_get_admin_users", admin),
        ("15_get_admin_hosts", admin),
    ):
        said[name] = await who.get(EXAMPLES[name]["endpoint"].split()[1])
    return said


class TestPublishedExamples:
    def test_all_fifteen_endpoints_have_one(self) -> None:
        named = {example["endpoint"] for example in EXAMPLES.values()} | {"GET /jobs/{id}/stream"}

        assert named == {f"{endpoint.method} {endpoint.path}" for endpoint in PUBLISHED}
        assert len(PUBLISHED) == 15

    async def test_under_the_prefix_every_answer_is_the_references(self, market: Market) -> None:
        said = await tell(market, "/infrintia")

        for name in EXAMPLES:
            assert_published(name, said[name])
        assert said["01_get_root"].body == EXAMPLES["01_get_root"]["response"]

    async def test_at_the_root_every_answer_but_the_shared_three_is(self, market: Market) -> None:
        said = await tell(market, "")

        for name in EXAMPLES.keys() - {"01_get_root", "02_get_health", "05_get_metrics"}:
            assert_published(name, said[name])

    async def test_the_numbers_of_the_reference_come_out(self, market: Market) -> None:
        """256 tokens at $0.0001 reserve 2.56 credits, 192 of them cost 1.92; the host gets them less 12 %."""
        said = await tell(market, "/infrintia")

        assert said["06_post_users"].body["credits"] == 100.0
        assert said["08_post_run_model"].body["credits_reserved"] == 2.56
        assert said["08_post_run_model"].body["status"] == "queued"
        assert said["09_get_jobs"].body["jobs"][0]["credits_used"] == 1.92
        assert said["07_get_users_me"].body["credits"] == 98.08
        assert said["15_get_admin_hosts"].body["hosts"][0]["total_earnings"] == pytest.approx(1.6896)
        assert '"credits":98.08' in said["07_get_users_me"].text
        given = {
            key: said["13_post_hosts_next_job"].body[key]
            for key in ("model", "input_text", "max_tokens", "temperature")
        }
        assert given == EXAMPLES["08_post_run_model"]["request"] | {"model": LLAMA}

    async def test_the_stream_has_the_published_lines(self, market: Market) -> None:
        said = await tell(market, "/infrintia")
        stream = said["10_get_jobs_stream"]
        lines = [line for line in stream.text.split("\n") if line.startswith("data: ")]
        published = (GOLDEN / "10_get_jobs_stream.txt").read_text().splitlines()

        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert [*lines[:4], lines[-1]] == published
        assert [id for id, _ in events(stream.text)] == [*range(192), None]

    async def test_so_it_is_on_postgresql(self, tmp_path: Path, postgres_address: str) -> None:
        async with (
            open_post(tmp_path, database=postgres_address) as post,
            aiohttp.ClientSession() as session,
        ):
            said = await tell(market_of(post, session), "/infrintia")

        for name in EXAMPLES:
            assert_published(name, said[name])
