"""Which models a server is found to serve, and which servers are found."""

import socket
from typing import Any

import pytest

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.discovery import LocalServer, discover_local
from comptoir.worker.engines.openai import OpenAIEngine
from tests.worker.openai_play import MODEL, fail, play, request
from tests.worker.openai_stand_in import OpenAIStandIn


class TestModels:
    async def test_context_lengths_are_read_wherever_servers_put_them(self, server: OpenAIStandIn) -> None:
        server.models = {
            "data": [
                {"id": "a", "max_model_len": 1000},
                {"id": "b", "context_length": 2000},
                {"id": "c", "meta": {"n_ctx_train": 3000}},
                {"id": "d"},
            ]
        }
        engine = OpenAIEngine(base_url=server.base_url, context_tokens=77)
        await engine.start()
        offers = await engine.models()
        await engine.close()

        assert [(offer.name, offer.context_tokens) for offer in offers] == [
            ("a", 1000),
            ("b", 2000),
            ("c", 3000),
            ("d", 77),
        ]
        assert not offers[0].can_continue

    async def test_a_file_is_offered_by_its_stem_and_asked_for_by_its_path(self, server: OpenAIStandIn) -> None:
        server.models = {"data": [{"id": "/models/Tiny-Q4.gguf", "aliases": ["tiny"]}]}
        engine = OpenAIEngine(base_url=server.base_url)
        await engine.start()
        names = [offer.name for offer in await engine.models()]
        await play(engine, request(model="tiny"))
        await engine.close()

        assert names == ["Tiny-Q4", "tiny"]
        assert server.requests[0].json["model"] == "/models/Tiny-Q4.gguf"

    async def test_aliases_choose_and_rename(self, server: OpenAIStandIn) -> None:
        engine = OpenAIEngine(base_url=server.base_url, aliases={"house-chat": MODEL, "gone": "not-there"})
        await engine.start()
        names = [offer.name for offer in await engine.models()]
        await play(engine, request(model="house-chat"))
        await engine.close()

        assert names == ["house-chat"]
        assert server.requests[0].json["model"] == MODEL

    @pytest.mark.parametrize(
        ("model", "kinds"),
        [
            ("nomic-embed-text", ["embedding"]),
            ("BAAI/bge-m3", ["embedding"]),
            ("meta-llama/Llama-3.1-8B", ["chat", "completion"]),
            ("foobge-x", ["chat", "completion"]),
        ],
    )
    async def test_embedding_models_are_known_by_their_names(
        self, server: OpenAIStandIn, model: str, kinds: list[str]
    ) -> None:
        server.models = {"data": [{"id": model}]}
        engine = OpenAIEngine(base_url=server.base_url)
        await engine.start()
        offers = await engine.models()
        await engine.close()

        assert offers[0].kinds == kinds

    async def test_a_model_that_is_not_served_is_the_hosts_fault(self, engine: OpenAIEngine) -> None:
        _, error = await fail(engine, request(model="other"))

        assert (error.code, error.fault) == ("model_not_served", "host")

    @pytest.mark.parametrize(
        ("status", "models", "words"),
        [
            (401, {}, "check the engine's api_key"),
            (200, {"data": []}, "load one there"),
            (200, [1], "not OpenAI's list"),
        ],
    )
    async def test_start_says_what_is_wrong(self, server: OpenAIStandIn, status: int, models: Any, words: str) -> None:
        server.models_status, server.models = status, models
        engine = OpenAIEngine(base_url=server.base_url)

        with pytest.raises(EngineError, match=words):
            await engine.start()

        await engine.close()

    def test_an_unknown_kind_is_refused(self) -> None:
        with pytest.raises(EngineError, match="not image"):
            OpenAIEngine(base_url="http://127.0.0.1:1", kinds="chat+image")


class TestDiscoverLocal:
    async def test_servers_are_found_by_their_ports(self, server: OpenAIStandIn) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            found = await discover_local(ports=((free.getsockname()[1], "nobody"), (server.port, "vLLM")))

        assert found == [LocalServer(f"{server.base_url}/v1", "vLLM", [MODEL])]

    async def test_the_coordinators_own_port_is_left_out(self, server: OpenAIStandIn) -> None:
        assert await discover_local(ports=((server.port, "vLLM"),), skip_ports=[server.port]) == []
        assert server.connections == 0

    async def test_another_coordinator_is_left_out(self, server: OpenAIStandIn) -> None:
        server.models = {"data": [{"id": "demo", "owned_by": "comptoir"}]}

        assert await discover_local(ports=((server.port, "vLLM"),)) == []
