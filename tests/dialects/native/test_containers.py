"""Containers as our own command line and page see them: on offer, bought, run by whom, paid how much."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from comptoir.dispatch.onboard import add_host
from comptoir.hosts import NewHost
from comptoir.link import ContainerCard, ModelOffer
from tests.dialects.infernet.shop import Node, open_node

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = {"description": "Says its name.", "image": "registry.example/a:1", "generates_proofs": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    """A post whose host serves the containers a, b (private) and c."""
    cards = {"a": WORDS, "b": {"external": False}}
    async with open_node(tmp_path_factory.mktemp("node"), cards=cards) as opened:
        yield opened


async def core(node: Node, path: str) -> Any:
    said = await node.ask("GET", f"/house{path}", key=node.post.buyer_key)
    assert said.status == 200, said.body
    return said.json


async def bought(node: Node, *containers: str) -> Any:
    """Buy a chain and wait for its end; give the job as the house shows it."""
    key = node.post.buyer_key
    job = await node.job(*containers, key=key)
    await node.result(job, key=key)
    return await core(node, f"/jobs/job_{job.replace('-', '')}")


class TestOnOffer:
    async def test_they_are_listed_with_the_price_of_a_run(self, node: Node) -> None:
        found = (await node.ask("GET", "/house/containers")).json["containers"]

        assert [(one["name"], one["external"], one["hosts"], one["waiting"]) for one in found] == [
            ("a", True, 1, 0),
            ("b", False, 1, 0),
            ("c", True, 1, 0),
        ]
        assert {one["price_uusd_per_run"] for one in found} == {1_000}
        assert {name: found[0][name] for name in WORDS} == WORDS

    async def test_they_are_no_models(self, node: Node) -> None:
        assert await core(node, "/models") == {"models": [], "others": [], "models_total": 0, "others_total": 0}
        now = await core(node, "/status")
        assert (now["models"], now["containers"]) == (0, 3)

    async def test_a_host_says_what_a_run_costs(self, node: Node) -> None:
        (host,) = (await core(node, "/hosts"))["hosts"]

        told = [(one["name"], one["kinds"], one["price_uusd_per_run"]) for one in host["models"]]
        assert told == [(name, ["container"], 1_000) for name in "abc"]

    async def test_a_price_finer_than_a_micro_dollar_is_told_rounded_up(self, node: Node) -> None:
        """The hold is rounded up too: nobody is asked for more than was told."""
        offer = ModelOffer("fine", ["container"], price_out_uusd_per_mtok=1_500_001, container=ContainerCard())
        await add_host(node.core, NewHost(gpu="g", models=(offer,)))

        found = (await core(node, "/containers"))["containers"]

        assert {one["name"]: one["price_uusd_per_run"] for one in found}["fine"] == 2

    async def test_they_are_counted_in_the_metrics(self, node: Node) -> None:
        text = (await node.ask("GET", "/metrics", headers={"accept": "text/plain"})).body.decode()

        assert "\ncomptoir_models 0.0\n" in text and "\ncomptoir_chains 0.0\n" in text
        assert int(float(text.partition("\ncomptoir_containers ")[2].partition("\n")[0])) >= 3


class TestJobs:
    async def test_a_chain_is_one_job_with_an_attempt_for_each_container(self, node: Node) -> None:
        job = await bought(node, "a", "b", "c")

        assert (job["kind"], job["dialect"], job["state"]) == ("container", "infernet", "completed")
        assert (job["model"], job["containers"]) == ("a,b,c", ["a", "b", "c"])
        assert (job["completion_tokens"], job["max_tokens"], job["cost_uusd"]) == (3, 3, 3_000)
        told = [(one["container"], one["tokens"], one["price_uusd_per_run"]) for one in job["attempts"]]
        assert told == [(name, 1, 1_000) for name in "abc"]
        assert [one["paid_uusd"] for one in job["attempts"]] == [880, 880, 880]

    async def test_it_is_listed_under_the_names_of_all(self, node: Node) -> None:
        job = await bought(node, "c", "a")

        listed = (await core(node, "/jobs"))["jobs"][0]

        assert (listed["id"], listed["model"], listed["containers"]) == (job["id"], "c,a", ["c", "a"])

    async def test_a_model_has_no_containers(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={}) as other, other.post.worker():
            body = {"model": "trivial", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
            await other.ask("POST", "/v1/chat/completions", body, key=other.post.buyer_key)
            listed = (await core(other, "/jobs"))["jobs"][0]
            job = await core(other, f"/jobs/{listed['id']}")

        assert (job["model"], job["containers"]) == ("trivial", [])
        assert [(one["container"], one["price_uusd_per_run"]) for one in job["attempts"]] == [(None, None)]
