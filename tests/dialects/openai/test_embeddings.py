"""Embeddings: every way to ask, and both encodings whichever the engine speaks."""

import base64
import struct
from typing import Any

import msgspec
import pytest

from tests.dialects.openai.shop import Shop
from tests.worker.openai_stand_in import Answer, Handler, Request

pytestmark = pytest.mark.asyncio(loop_scope="module")

VECTOR = [0.5, -1.0, 0.25]
PACKED = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()


def vectors(*embeddings: object, prompt_tokens: int = 4) -> Handler:
    async def handle(_: Request, answer: Answer) -> None:
        data = [{"object": "embedding", "index": n, "embedding": one} for n, one in enumerate(embeddings)]
        counted = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
        await answer.whole(200, msgspec.json.encode({"object": "list", "model": "e", "data": data, "usage": counted}))

    return handle


async def embed(shop: Shop, **fields: Any) -> Any:
    response = await shop.call("POST", "/v1/embeddings", {"model": "embed-small", "input": "x", **fields})
    assert response.status == 200, response.body
    return response.json


class TestEmbeddings:
    @pytest.mark.parametrize("engine", [VECTOR, PACKED], ids=["numbers", "packed"])
    @pytest.mark.parametrize(
        ("asked", "expected"),
        [({}, VECTOR), ({"encoding_format": "float"}, VECTOR), ({"encoding_format": "base64"}, PACKED)],
    )
    async def test_the_encoding_asked_for_is_given_whatever_the_engine_speaks(
        self, shop: Shop, engine: object, asked: dict[str, Any], expected: object
    ) -> None:
        shop.answers(vectors(engine))

        assert await embed(shop, **asked) == {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": expected}],
            "model": "embed-small",
            "usage": {"prompt_tokens": 4, "total_tokens": 4, "cost": 0.000004},
        }

    @pytest.mark.parametrize("given", ["a", ["a", "b"], [1, 2, 3], [[1, 2], [3]]])
    async def test_texts_and_token_ids_are_forwarded(self, shop: Shop, given: object) -> None:
        seen = shop.answers(vectors(VECTOR, VECTOR))

        body = await embed(shop, input=given, dimensions=3, user="u")

        assert [item["index"] for item in body["data"]] == [0, 1]
        assert (seen[0].json["input"], seen[0].json["dimensions"], seen[0].json["user"]) == (given, 3, "u")
        assert "stream" not in seen[0].json

    async def test_only_the_input_is_paid(self, shop: Shop) -> None:
        shop.answers(vectors(VECTOR, prompt_tokens=7))

        response = await shop.call("POST", "/v1/embeddings", {"model": "embed-small", "input": "some words to embed"})

        assert response.headers["x-comptoir-cost-uusd"] == "7"

    async def test_megabytes_come_back(self, shop: Shop) -> None:
        many = [[float(n)] * 1536 for n in range(300)]
        shop.answers(vectors(*many))

        body = await embed(shop, encoding_format="base64")

        unpacked = [struct.unpack("<1536f", base64.b64decode(item["embedding"])) for item in body["data"]]
        assert [one[0] for one in unpacked] == [float(n) for n in range(300)]

    async def test_an_engine_that_sends_rubbish_is_a_502(self, shop: Shop) -> None:
        shop.answers(vectors({"not": "a vector"}))

        response = await shop.call(
            "POST", "/v1/embeddings", {"model": "embed-small", "input": "x", "encoding_format": "base64"}
        )

        assert (response.status, response.json["error"]["type"]) == (502, "server_error")
