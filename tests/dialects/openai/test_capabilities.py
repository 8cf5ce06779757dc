"""What a model can do stands in every list, claims marked, and what no host can do is refused in OpenAI's words."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from comptoir.dispatch.onboard import add_host
from comptoir.hosts import LINK, NewHost
from comptoir.link import ModelOffer
from comptoir.worker.engines.openai_capabilities import SCHEMA_FORMAT, TOOL, picture_of
from tests.dialects.openai.shop import Shop, open_shop
from tests.worker.language_servers import MODEL, LlamaCpp, Ollama

pytestmark = pytest.mark.asyncio(loop_scope="module")

KNOWN = {"tools": "claimed", "vision": "probed", "schema": "probed", "reasoning": "lacking"}
"""Of the model behind the fake of Ollama: it lists tools, but was not seen to call one."""
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture_of('red')}"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    server = Ollama()
    async with open_shop(tmp_path_factory.mktemp("shop"), models=server.models, handler=server.handle) as opened:
        text = ModelOffer("text-only", ["chat"], capabilities={"tools": "probed", "vision": "lacking"})
        await add_host(opened.post.core, NewHost(gpu="x", models=(text,), transport=LINK))
        yield opened


def chat(content: Any = "plain", model: str = MODEL, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 9, **fields}


class TestLists:
    async def test_a_card_says_what_is_known_and_what_catalogues_say(self, shop: Shop) -> None:
        listed = (await shop.call("GET", "/v1/models")).json["data"]

        (card,) = [card for card in listed if card["id"] == MODEL]
        assert card == (await shop.call("GET", f"/v1/models/{MODEL}")).json
        assert card["capabilities"] == KNOWN
        assert card["architecture"] == {"input_modalities": ["text", "image"], "output_modalities": ["text"]}
        assert {"max_tokens", "tools", "tool_choice", "response_format"} <= set(card["supported_parameters"])
        assert "reasoning" not in card["supported_parameters"]

    async def test_the_native_lists_say_it_of_models_and_of_hosts(self, shop: Shop) -> None:
        models = (await shop.call("GET", "/house/models")).json["models"]
        hosts = (await shop.call("GET", f"/house/hosts?model={MODEL}")).json["hosts"]

        assert [one["capabilities"] for one in models if one["name"] == MODEL] == [KNOWN]
        assert [one["capabilities"] for host in hosts for one in host["models"]] == [KNOWN]

    async def test_the_page_marks_what_is_claimed(self, shop: Shop) -> None:
        shown = (await shop.call("GET", "/ui/market")).body.decode()

        assert '<span class="mark" title="Tried: asked for, and seen">vision</span>' in shown
        assert '<span class="mark claimed" title="Its hosts say so; nobody has tried">tools?</span>' in shown
        assert ">reasoning" not in shown


class TestRefusals:
    async def test_what_no_host_of_the_model_can_do_is_said(self, shop: Shop) -> None:
        response = await shop.ask(chat(reasoning_effort="high"))

        error = response.json["error"]
        assert (response.status, error["code"], error["param"]) == (400, "capability_missing", "reasoning_effort")
        assert error["type"] == "invalid_request_error"
        assert error["message"] == f"No host offers reasoning for the model '{MODEL}'."

    async def test_the_field_that_asks_is_named(self, shop: Shop) -> None:
        response = await shop.ask(chat([PICTURE], model="text-only"))

        assert (response.status, response.json["error"]["param"]) == (400, "messages")

    async def test_the_native_api_says_it_in_its_own_shape(self, shop: Shop) -> None:
        body = {"kind": "chat", "model": MODEL, "body": chat(reasoning_effort="low"), "output_max": 5}
        response = await shop.call("POST", "/house/jobs", body)

        assert (response.status, response.json["error"]["code"]) == (422, "CapabilityMissing")

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"messages": [{"role": "user", "content": [PICTURE]}]}, "Red."),
            ({"response_format": SCHEMA_FORMAT}, '{"verdict":"quite-so"}'),
            ({"tools": [TOOL]}, "A host that dies in the middle"),
            ({"reasoning_effort": "none"}, "A host that dies in the middle"),
        ],
        ids=["an image", "a schema", "claimed tools", "no thought"],
    )
    async def test_what_it_can_do_or_may_is_bought(self, shop: Shop, fields: dict[str, Any], said: str) -> None:
        response = await shop.ask({**chat(), **fields})

        assert response.json["choices"][0]["message"]["content"].startswith(said)


class TestLlamaCpp:
    async def test_tools_that_the_server_would_drop_are_refused(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """llama.cpp answers in words, even where a tool has to be called, if the model's template knows none."""
        server = LlamaCpp()
        async with open_shop(tmp_path_factory.mktemp("shop"), models=server.models, handler=server.handle) as shop:
            refused = await shop.ask(chat(tools=[TOOL], tool_choice="required"))

        assert (refused.status, refused.json["error"]["param"]) == (400, "tools")
