"""OpenAI's own Node SDK as client of the openai dialect."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.dialects.openai.shop import MODEL, ROLE, STOP, Shop, open_shop
from tests.worker.openai_stand_in import Answer, Request, delta, sse, stream_of, usage

CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
TOOLS = stream_of(
    sse(
        ROLE,
        delta({"tool_calls": [CALL]}),
        delta({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}),
        delta({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
        delta({}, finish_reason="tool_calls"),
        usage(5, 9),
    )
)
TEXT = stream_of(sse(ROLE, delta({"content": "a"}), delta({"content": "b"}), STOP, usage(5, 2)))


async def talk(request: Request, answer: Answer) -> None:
    """Answer as the script's messages ask."""
    if request.path == "/v1/embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}]
        counted = {"prompt_tokens": 1, "total_tokens": 1}
        return await answer.whole(200, msgspec.json.encode({"object": "list", "data": data, "usage": counted}))
    asked = request.json["messages"][0]["content"]
    if asked == "tools":
        return await TOOLS(request, answer)
    if asked == "hi":
        return await TEXT(request, answer)
    answer.begin_stream()
    await answer.piece(sse(ROLE, delta({"content": "a"}), done=False))
    if asked == "die":
        await asyncio.sleep(0.05)
        return answer.reset()
    while True:
        await answer.piece(sse(delta({"content": "x"}), done=False))
        await asyncio.sleep(0.005)


async def run_script(node: str, shop: Shop) -> Any:
    script = Path(__file__).parent / "openai.mjs"
    process = await asyncio.create_subprocess_exec(
        node,
        str(script),
        shop.url + "/v1",
        shop.post.buyer_key,
        MODEL,
        "embed-small",
        cwd=script.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return msgspec.json.decode(out)


@pytest.mark.node
class TestSdk:
    async def test_it_understands_everything_we_say(self, node: str, tmp_path: Path) -> None:
        async with open_shop(tmp_path) as shop:
            shop.answers(talk)
            seen = await run_script(node, shop)
            # The stream that the script left is cancelled at the host.
            async with asyncio.timeout(2):
                await shop.upstream.gone.wait()
            await shop.idle()

        assert seen.pop("requestId").startswith("req_")
        assert seen == {
            "whole": "ab",
            "deltas": ["", "a", "b", None],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "cost": 0.000205},
            "tool": ["call_1", "weather", '{"a":1}', "tool_calls"],
            "embedding": [0.5, -1.0],
            "models": ["embed-small", MODEL],
            "model": MODEL,
            "missing": ["NotFoundError", 404, "model_not_found", "model"],
            "bad": ["BadRequestError", 400, None, "temperature"],
            "key": ["AuthenticationError", 401, "invalid_api_key", None],
            "cut": ["APIError", None, "upstream_cut", None],
        }
