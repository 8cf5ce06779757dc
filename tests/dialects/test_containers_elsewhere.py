"""Containers in the dialects that sell models: not in their lists, and refused in their own words when named."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.dialects.infernet.shop import Node, open_node

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    """A post with the model ``trivial`` and the container ``a``."""
    from_a = {"a": _unasked}
    async with open_node(tmp_path_factory.mktemp("node"), answers=from_a) as opened, opened.post.worker():
        yield opened


async def _unasked(run: Any) -> Any:
    raise AssertionError("nobody bought a run")


async def ask(node: Node, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    said = await node.ask(method, path, body, key=node.post.buyer_key)
    return said.status, said.json


class TestOpenAI:
    async def test_its_list_has_models_alone(self, node: Node) -> None:
        status, listed = await ask(node, "GET", "/v1/models")

        assert (status, [one["id"] for one in listed["data"]]) == (200, ["trivial"])

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/chat/completions", CHAT),
            ("/v1/chat/completions", CHAT | {"stream": True}),
            ("/v1/completions", {"model": "a", "prompt": "hi"}),
            ("/v1/embeddings", {"model": "a", "input": "hi"}),
        ],
    )
    async def test_a_container_can_not_be_asked(self, node: Node, path: str, body: dict[str, Any]) -> None:
        status, said = await ask(node, "POST", path, body)

        assert (status, said["error"]["param"]) == (400, "model")
        assert "container" in said["error"]["message"]


class TestInfrintia:
    async def test_its_list_has_models_alone(self, node: Node) -> None:
        status, listed = await ask(node, "GET", "/models")

        assert status == 200
        assert "trivial" in str(listed) and "'a'" not in str(listed)

    async def test_a_container_can_not_be_asked(self, node: Node) -> None:
        status, said = await ask(node, "POST", "/run/model", {"model": "a", "input_text": "hi", "max_tokens": 4})

        assert status == 422
        assert "container" in str(said["detail"])
