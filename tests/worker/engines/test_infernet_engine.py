"""A Ritual node's configuration served by a worker: from the file to a run, with an engine behind a real socket."""

import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.kinds import MILLION
from comptoir.link import ContainerRun, Frame
from comptoir.worker.engines import container_api
from comptoir.worker.engines.base import EngineError, EngineRequest
from comptoir.worker.engines.infernet import InfernetEngine
from comptoir.worker.engines.registry import EngineSpec, make_engine
from tests.dialects.infernet.shop import RUN_UUSD, open_node
from tests.post import free_port
from tests.worker.engines.container_stand_in import appends, serve_container
from tests.worker.engines.engine_api import FakeEngine, Image, serve_engine

IMAGE = "example/image:1"
REAL_SOCKET = "COMPTOIR_TEST_ENGINE_SOCKET"
REAL_IMAGE = "COMPTOIR_TEST_ENGINE_IMAGE"


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeEngine]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    async with serve_engine(tmp_path / "engine.sock") as running:
        running.registry[IMAGE] = Image()
        yield running


def write_config(folder: Path, *containers: dict[str, Any], **rest: Any) -> Path:
    """Write a configuration; a container without a port gets a free one."""
    entries = [{"image": IMAGE, "port": free_port()} | container for container in containers]
    path = folder / "config.json"
    path.write_text(json.dumps({"containers": entries, **rest}))
    return path


def run_of(name: str, data: Any) -> EngineRequest:
    """Return a run of one container."""
    body = ContainerRun(containers=[name], data=msgspec.Raw(msgspec.json.encode(data)))
    return EngineRequest("container", name, msgspec.json.encode(body))


async def output_of(engine: InfernetEngine, name: str, data: Any) -> Any:
    """Run a container and return its output."""
    async with contextlib.aclosing(engine.run(run_of(name, data))) as items:  # type: ignore[type-var]
        texts = [item.text async for item in items if isinstance(item, Frame)]
    return json.loads("".join(texts))


class TestInfernetEngine:
    async def test_a_managed_container_runs_jobs_and_is_gone_with_the_worker(
        self, engine: FakeEngine, tmp_path: Path
    ) -> None:
        path = write_config(tmp_path, {"id": "echo", "description": "Says it back", "allowed_ips": ["10.0.0.0/8"]})
        served = make_engine(EngineSpec("infernet", {"config": str(path)}), slots=4)
        assert isinstance(served, InfernetEngine)

        await served.start()
        (offer,) = await served.models()
        output = await output_of(served, "echo", {"n": 2**70})
        await served.close()

        assert offer.name == "echo" and offer.container is not None
        assert (offer.container.description, offer.container.allowed_ips) == ("Says it back", ["10.0.0.0/8"])
        assert (offer.container.rate_requests, offer.container.rate_period_s) == (60, 60.0)
        assert output == {"n": 2**70}
        assert engine.containers == {}

    async def test_one_that_crashes_is_not_offered_and_gets_no_run(self, engine: FakeEngine, tmp_path: Path) -> None:
        """Its port may be somebody else's the next moment, who must not see a buyer's input."""
        path = write_config(tmp_path, {"id": "one"}, {"id": "two"})
        served = InfernetEngine(config=path)
        await served.start()
        port = json.loads(path.read_text())["containers"][0]["port"]
        await engine.crash("comptoir-one")
        await served._kept.look()

        async with serve_container(port=port) as stranger:
            offers = await served.models()
            with pytest.raises(EngineError) as caught:
                await output_of(served, "one", 1)
            assert stranger.runs == []
        await served.close()

        assert [offer.name for offer in offers] == ["two"]
        assert (caught.value.code, caught.value.fault) == ("container_unreachable", "capacity")

    async def test_nothing_that_can_be_served_says_why_of_each(self, engine: FakeEngine, tmp_path: Path) -> None:
        served = InfernetEngine(config=write_config(tmp_path, {"id": "one", "image": "example/none:1"}))

        with pytest.raises(EngineError, match=r"one: image example/none:1 can't be pulled"):
            await served.start()
        await served.close()

    def test_a_file_of_refused_containers_is_no_engine(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="no container in it can be offered"):
            InfernetEngine(config=write_config(tmp_path, {"id": "a b"}))

    async def test_a_buyer_gets_a_chain_of_them_through_the_trading_post(
        self, engine: FakeEngine, tmp_path: Path
    ) -> None:
        """From the operator's file to the node's own API, and what the file protects stays protected there."""
        engine.registry |= {f"example/{word}:1": Image(answer=appends(word)) for word in "ab"}
        path = write_config(
            tmp_path,
            {"id": "first", "image": "example/a:1"},
            {"id": "second", "image": "example/b:1", "external": False},
            {"id": "far", "allowed_ips": ["192.0.2.0/24"]},
            {"id": "refused", "secret_door": 1},
        )

        async with open_node(tmp_path, answers={}) as node:
            async with node.post.worker(
                engine="infernet", options={"config": str(path)}, prices={"run": RUN_UUSD * MILLION}
            ):
                result = await node.result(await node.job("first", "second"))
                far = await node.ask("POST", "/api/jobs", {"containers": ["far"], "data": {}})
                inner = await node.ask("POST", "/api/jobs", {"containers": ["second"], "data": {}})
                info = await node.ask("GET", "/info")
            assert engine.containers == {}

        assert (result["status"], result["result"]["output"]) == ("success", {"said": ["a", "b"]})
        assert (far.status, far.json["error"]) == (405, "Container not allowed for address")
        assert (inner.status, inner.json["error"]) == (405, "First container must be external")
        assert {one["id"] for one in info.json["containers"]} == {"first", "second", "far"}


class TestRealEngine:
    async def test_a_real_engine_does_as_ours(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same path over Docker or Podman: start, adoption, run, stop. `docs/containers.md` says how to give it
        one."""
        socket, image = os.environ.get(REAL_SOCKET), os.environ.get(REAL_IMAGE)
        if not (socket and image):
            pytest.skip(
                f"NO CONTAINER ENGINE WAS GIVEN: managed containers were tried on our fake alone ({REAL_SOCKET})"
            )
        monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
        # A program that is the first process of its container may not hear that it is to stop.
        monkeypatch.setattr(container_api, "STOP_S", 1)
        path = write_config(
            tmp_path, {"id": "real", "image": image, "env": {"A": "1"}, "volumes": [f"{tmp_path}:/x:ro"]}
        )
        first, second = InfernetEngine(config=path), InfernetEngine(config=path)

        await first.start()
        before = first._kept._ones["real"].container
        await second.start()
        after = second._kept._ones["real"].container
        names = [offer.name for offer in await second.models()]
        await second.close()

        assert names == ["real"] and before == after is not None
        await first._kept.look()
        assert first._kept.gone == {"real": "it was removed, and not by us"}
        await first.close()
