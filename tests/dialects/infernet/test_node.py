"""What the node says of itself: from memory, at once, over all hosts; containers speak for themselves, word for
word."""

import asyncio
import json
from pathlib import Path

from comptoir.containers.inquire import WAIT_S
from comptoir.dialects.infernet.node import NODE_VERSION
from comptoir.dispatch.drain import Shutdown
from comptoir.worker.engines.container_spec import ContainerSpec
from tests.at_once import at_once
from tests.dialects.infernet.shop import Node, open_node
from tests.worker.engines.container_stand_in import RESOURCES, appends, serve_container

MODEL = "storage/owner/name:file"


class TestInfo:
    async def test_containers_are_told_as_their_hosts_describe_them(self, tmp_path: Path) -> None:
        cards = {
            "a": {"description": "Says a", "image": "example/a:1"},
            "b": {"external": False, "allowed_ips": ("10.0.0.0/8",)},
        }
        async with open_node(tmp_path, answers={"a": appends("a"), "b": appends("b")}, cards=cards) as node:
            said = await node.ask("GET", "/info")

            assert said.json["version"].startswith(f"{NODE_VERSION}+comptoir.")
            assert said.json["containers"] == [
                {"id": "a", "description": "Says a", "external": True, "image": "example/a:1"},
                {"id": "b", "description": "", "external": False, "image": ""},
            ]
            assert said.json["pending"] == {"offchain": 0, "onchain": 0}
            assert said.json["chain"] == {"enabled": False, "address": ""}

    async def test_a_container_is_told_once_however_many_hosts_have_it(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={"a": appends("a")}) as node, serve_container() as other:
            spec = ContainerSpec(id="a", url=other.url, external=False)
            async with node.host(spec, name="second"):
                assert [one["external"] for one in (await node.ask("GET", "/info")).json["containers"]] == [True]
            async with asyncio.timeout(10):
                while len(node.core.channels) > 1:
                    await asyncio.sleep(0.01)
            assert [one["id"] for one in (await node.ask("GET", "/info")).json["containers"]] == ["a"]

    async def test_a_host_that_left_takes_its_containers_along(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={}) as node, serve_container() as one:
            async with node.host(ContainerSpec(id="a", url=one.url)):
                await node.until("/resources", {"a": json.loads(RESOURCES)})
            await node.until("/resources", {})
            assert (await node.ask("GET", "/info")).json["containers"] == []

    async def test_models_are_no_containers(self, node: Node) -> None:
        async with node.post.worker(name="model"):
            assert [one["id"] for one in (await node.ask("GET", "/info")).json["containers"]] == ["a", "b", "c"]
            said = await node.ask("POST", "/api/jobs", {"containers": ["trivial"], "data": {}})
            assert said.json == {"error": "Container not supported", "params": {"container": "trivial"}}


class TestResources:
    async def test_each_containers_words_are_passed_on_to_the_byte(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={"a": appends("a"), "b": appends("b")}) as node:
            async with asyncio.timeout(10):
                while len(node.core.fleet.resources()) < 2:
                    await asyncio.sleep(0.01)
            said = await node.ask("GET", "/resources")

            assert said.body == b'{"a":' + RESOURCES + b',"b":' + RESOURCES + b"}"

    async def test_a_container_that_says_nothing_is_left_out(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={}) as node, serve_container() as good, serve_container() as mute:
            mute.resources = b"no JSON"
            async with node.host(ContainerSpec(id="good", url=good.url), ContainerSpec(id="mute", url=mute.url)):
                async with asyncio.timeout(10):
                    while not node.core.fleet.resources():
                        await asyncio.sleep(0.01)
                assert list((await node.ask("GET", "/resources")).json) == ["good"]
                assert len((await node.ask("GET", "/info")).json["containers"]) == 2


class TestModelSupport:
    async def test_containers_are_asked_and_the_answer_remembered(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={"a": appends("a")}) as node:
            await node.until(f"/resources?model_id={MODEL}", {"a": {"supported": True}})
            await node.until("/resources?model_id=a%26b%20c", {"a": {"supported": False}})
            asked = [path for path in node.containers["a"].asked if "model_id" in path]
            for _ in range(5):
                await node.ask("GET", f"/resources?model_id={MODEL}")

            assert [path for path in node.containers["a"].asked if "model_id" in path] == asked
            assert any("a%26b" in path for path in asked)

    async def test_one_that_is_slow_is_not_waited_for(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={"a": appends("a")}) as node:
            node.containers["a"].silent = True
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            async with at_once(ms=1000):  # What Infernet's client waits; the host has five times as long.
                said = await node.ask("GET", f"/resources?model_id={MODEL}")
            took_s = loop.time() - began_s

            assert said.json["a"]["supported"] is False
            assert "has not answered yet" in said.json["a"]["error"]
            assert took_s >= WAIT_S


class TestHealth:
    async def test_alone_it_is_the_published_one(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={}, prefix="/infernet") as node:
            assert (await node.ask("GET", "/health")).json == {"status": "healthy"}
            node.core.state(Shutdown).leaving = True
            said = await node.ask("GET", "/health")
            assert (said.status, said.json) == (503, {"status": "unhealthy"})
            node.core.state(Shutdown).leaving = False

    async def test_at_the_root_it_is_healthy_in_its_clients_word(self, node: Node) -> None:
        assert (await node.ask("GET", "/health")).json["status"] == "healthy"
