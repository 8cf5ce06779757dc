"""Tool calls, from recorded chunks: no model small enough to ship calls a tool by itself."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from comptoir.link import Frame
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.engines.llamacpp_answers import FrameMailbox, Item, ToolAnswer
from comptoir.worker.engines.llamacpp_request import read_ask
from comptoir.worker.engines.llamacpp_server import LlamaChunk

TOOL = {"type": "function", "function": {"name": "light", "parameters": {"type": "object"}}}
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "light", "arguments": '{"on":'}}
REST = {"index": 0, "function": {"arguments": "true}"}}


def chunk(delta: dict[str, Any], predicted: int, finish: str | None = None) -> dict[str, Any]:
    timings = {"prompt_n": 30, "cache_n": 5, "predicted_n": predicted}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "timings": timings}


RECORDED = [
    chunk({"role": "assistant", "content": None}, 0),
    chunk({"reasoning_content": "Hm"}, 1),
    chunk({"content": "Sure"}, 2),
    chunk({"tool_calls": [CALL]}, 9),
    chunk({"tool_calls": [REST]}, 11),
    chunk({}, 12, "tool_calls"),
]


class ScriptedServer:
    """Answers every chat with the recorded chunks."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def stream(self, request: dict[str, Any], on_chunk: Callable[[LlamaChunk], bool], *, chat: bool) -> None:
        assert chat
        self.asked = request
        for recorded in RECORDED:
            if on_chunk(msgspec.convert(recorded, LlamaChunk)):
                return


async def run(prefix: tuple[Frame, ...] = (), **fields: Any) -> tuple[list[Item], dict[str, Any]]:
    body = {"messages": [{"role": "user", "content": "light on"}], "tools": [TOOL]} | fields
    ask = read_ask(EngineRequest("chat", "m", msgspec.json.encode(body)), defaults={})
    server = ScriptedServer()
    mailbox = FrameMailbox(asyncio.get_running_loop())
    ToolAnswer(ask, prefix, server).run(mailbox)  # type: ignore[arg-type]
    items: list[Item] = []
    while not items or not isinstance(items[-1], Finish):
        items.append(await mailbox.take())
    return items, server.asked


class TestToolAnswer:
    async def test_deltas_beside_the_text_travel_in_extra(self) -> None:
        (thought, text, call, rest, _), _ = await run()

        assert text == Frame("Sure", 1)
        assert isinstance(thought, Frame)
        assert isinstance(call, Frame)
        assert isinstance(rest, Frame)
        assert msgspec.json.decode(thought.extra) == {"delta": {"reasoning_content": "Hm"}}
        assert msgspec.json.decode(call.extra) == {"delta": {"tool_calls": [CALL]}}
        assert msgspec.json.decode(rest.extra) == {"delta": {"tool_calls": [REST]}}

    async def test_tokens_are_counted_by_llama(self) -> None:
        items, _ = await run()

        assert [item.tokens for item in items if isinstance(item, Frame)] == [1, 1, 7, 2]
        finish = items[-1]
        assert isinstance(finish, Finish)
        assert finish.finish_reason == "tool_calls"
        assert (finish.usage.prompt_tokens, finish.usage.completion_tokens) == (35, 11)

    async def test_goes_on_after_every_cut(self) -> None:
        whole, _ = await run()
        frames = [item for item in whole if isinstance(item, Frame)]

        for cut in range(len(frames) + 1):
            rest, _ = await run(prefix=tuple(frames[:cut]))
            assert rest[:-1] == whole[cut:-1]

    async def test_another_call_than_the_delivered_one_is_not_passed_on(self) -> None:
        thought, text = Frame("", 1, b'{"delta":{"reasoning_content":"Hm"}}'), Frame("Sure", 1)
        other = Frame("", 7, msgspec.json.encode({"delta": {"tool_calls": [REST]}}))

        with pytest.raises(EngineError, match="differs at frame 2"):
            await run(prefix=(thought, text, other))

    async def test_the_random_id_of_a_call_does_not_matter(self) -> None:
        whole, _ = await run()
        frames = [item for item in whole if isinstance(item, Frame)]
        renamed = Frame("", 7, frames[2].extra.replace(b"c1", b"c2"))

        rest, _ = await run(prefix=(*frames[:2], renamed))

        assert rest[:-1] == frames[3:]

    async def test_a_tool_by_name_is_the_only_one_and_required(self) -> None:
        door = {"type": "function", "function": {"name": "door"}}

        _, asked = await run(tools=[TOOL, door], tool_choice={"type": "function", "function": {"name": "door"}})

        assert asked["tools"] == [door]
        assert asked["tool_choice"] == "required"
