"""Playing requests through the openai engine, for its tests."""

from typing import Any

import msgspec
import pytest

from comptoir.link import Frame
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.engines.openai import OpenAIEngine
from tests.worker.openai_stand_in import delta

MODEL = "up/model-7b"
ROLE = delta({"role": "assistant", "content": ""})
STOP = delta({}, finish_reason="stop")


def request(kind: str = "chat", model: str = MODEL, **fields: Any) -> EngineRequest:
    return EngineRequest(kind=kind, model=model, body=msgspec.json.encode({"model": "buyers-name", **fields}))


async def play(engine: OpenAIEngine, asked: EngineRequest | None = None) -> tuple[list[Frame], Finish]:
    """Run a request to its end."""
    items = [item async for item in engine.run(asked or request())]
    finish = items.pop()
    assert isinstance(finish, Finish)
    assert all(isinstance(item, Frame) for item in items)
    return [item for item in items if isinstance(item, Frame)], finish


async def fail(engine: OpenAIEngine, asked: EngineRequest | None = None) -> tuple[str, EngineError]:
    """Run a request that must fail; return the text before, and the error."""
    text = ""
    try:
        async for item in engine.run(asked or request()):
            assert isinstance(item, Frame)
            text += item.text
    except EngineError as error:
        return text, error
    pytest.fail(f"the engine answered {text!r}")


def extra(frame: Frame) -> Any:
    return msgspec.json.decode(frame.extra)
