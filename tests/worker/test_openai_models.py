"""Which models a server is found to serve, and which servers are found."""

import re
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.discovery import PORTS, LocalServer, discover_local
from comptoir.worker.engines.openai import OpenAIEngine
from comptoir.worker.engines.registry import make_engine, parse_spec
from tests.house.tree import ROOT
from tests.worker import language_servers as servers
from tests.worker.openai_play import MODEL, fail, play, request
from tests.worker.openai_stand_in import Answer, OpenAIStandIn, Request


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

    @pytest.mark.parametrize(
        ("listed", "told", "wanted"),
        [
            ({"meta": {"n_ctx_train": 131072}}, {"/props": {"default_generation_settings": {"n_ctx": 4096}}}, 4096),
            ({}, {"/info": {"model_id": "m", "max_input_tokens": 3000, "max_total_tokens": 4000}}, 4000),
            ({}, {"/api/v0/models": {"data": [{"id": "m", "max_context_length": 9000}]}}, 77),
            ({}, {"/api/v0/models": {"data": [{"id": "m", "loaded_context_length": 8, "max_context_length": 9}]}}, 8),
            ({}, {"/api/ps": {"models": [{"name": "m", "context_length": 32768}]}}, 32768),
            ({}, {"/api/ps": {"models": []}, "/api/show": {"parameters": "stop  <|end|>\nnum_ctx    8192"}}, 8192),
            ({}, {"/api/ps": {"models": []}, "/api/show": {"model_info": {"llama.context_length": 131072}}}, 77),
            ({"max_model_len": 1000}, {"/info": {"max_total_tokens": 4000}}, 1000),
            ({}, {"/props": {"default_generation_settings": [1]}, "/info": {"max_total_tokens": -1}}, 77),
            ({}, {"/api/v0/models": {"data": [1, {"id": "m", "loaded_context_length": "many"}]}}, 77),
            ({}, {}, 77),
        ],
        ids=[
            "llama.cpp", "TGI", "LM Studio, not loaded", "LM Studio, loaded", "Ollama, loaded", "Ollama, num_ctx",
            "Ollama, trained", "the list says it", "nonsense", "more nonsense", "nobody",
        ],
    )  # fmt: skip
    async def test_else_the_context_in_force_is_read_where_each_project_has_it(
        self, server: OpenAIStandIn, listed: dict[str, Any], told: dict[str, Any], wanted: int
    ) -> None:
        async def handle(request: Request, answer: Answer) -> None:
            said = told.get(request.path)
            await answer.whole(404 if said is None else 200, msgspec.json.encode(said or {"error": "no such path"}))

        server.models, server.handler = {"data": [{"id": "m", **listed}]}, handle
        engine = OpenAIEngine(base_url=server.base_url, context_tokens=77)
        await engine.start()
        offers = await engine.models()
        await engine.close()

        assert [offer.context_tokens for offer in offers] == [wanted]

    @pytest.mark.parametrize(
        ("listed", "contexts"),
        [
            (b'[{"id":"a","max_model_len":8192}]', {"a": 8192}),
            (
                b'{"data":[{"id":"a","max_model_len":"8192"},{"id":"b","context_length":4096.0}]}',
                {"a": 8192, "b": 4096},
            ),
            (b'{"data":[{"id":"a","max_model_len":NaN,"temperature":Infinity}]}', {"a": 777}),
            (b'{"data":[{"id":"a","meta":"none"},{"id":7},null,{"id":"b","aliases":"b"}]}', {"a": 777, "b": 777}),
            (b'{"data":[{"id":"a\\ud83d"}]}', {"a\ufffd": 777}),
        ],
    )
    async def test_a_list_that_is_spelled_otherwise_is_read(
        self, server: OpenAIStandIn, listed: bytes, contexts: dict[str, int]
    ) -> None:
        server.models = msgspec.Raw(listed)
        engine = OpenAIEngine(base_url=server.base_url, context_tokens=777)
        await engine.start()

        offers = await engine.models()
        await engine.close()

        assert {offer.name: offer.context_tokens for offer in offers} == contexts

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


FAKES: dict[str, Callable[[], servers.LanguageServer]] = {
    "vllm": servers.Vllm,
    "sglang": servers.Sglang,
    "llamacpp": servers.LlamaCpp,
    "ollama": servers.Ollama,
    "tgi": servers.Tgi,
    "lmstudio": servers.LmStudio,
    "tensorrt-llm": servers.TensorRt,
}
"""The fake of the server that each page is about."""


class TestPages:
    @pytest.mark.parametrize("page", FAKES)
    async def test_the_table_says_what_is_found_at_each_server(self, page: str, server: OpenAIStandIn) -> None:
        table = (ROOT / "docs" / "engines" / "README.md").read_text()
        (row,) = [line for line in table.splitlines() if line.startswith("| [") and f"({page}.md)" in line]
        _, _, _, context, said, goes_on, _ = row.split("|")
        speaking = FAKES[page]()
        server.models, server.handler = speaking.models, speaking.handle
        engine = OpenAIEngine(base_url=server.base_url, context_tokens=77)
        await engine.start()
        (offer,) = await engine.models()
        await engine.detect()
        methods = engine.continuation(offer.name).partition(" (")[0].split(", ")
        await engine.close()

        assert re.findall("`(.*?)`", said) == list(offer.capabilities)
        assert (offer.context_tokens == 77) is ("nowhere" in context)
        proven = [method for method in methods if method not in ("", "plain completion")]
        assert re.findall("`(.*?)`", goes_on) == proven

    def test_each_server_has_a_fake(self) -> None:
        pages = {page.stem for page in (ROOT / "docs" / "engines").glob("*.md")} - {"README"}

        assert pages == set(FAKES)

    def test_each_server_has_one_whose_commands_are_understood(self) -> None:
        pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "engines").glob("*.md")}
        index = pages.pop("README")

        assert all(f"({name}.md)" in index for name in pages)
        for product in {product for _, product in PORTS}:
            assert any(text.startswith(f"# {product}") or f"({product})\n" in text for text in pages.values()), product
        for name, text in pages.items():
            (spec,) = set(re.findall(r"--engine (openai\S+|http\S+)", text.partition("- **Context")[0]))
            made = make_engine(parse_spec(spec), slots=1)
            assert isinstance(made, OpenAIEngine), name
