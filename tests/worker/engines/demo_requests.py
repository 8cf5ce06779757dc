"""Requests to the demo model, and its answers collected."""

from typing import Any

import msgspec

from comptoir.link import Frame
from comptoir.worker.engines.base import EngineRequest, Finish
from comptoir.worker.engines.llamacpp import LlamaCppEngine

ENDLESS = {"logit_bias": {"262": -100}}
"""Token 262 ends an answer; without it the model talks until a limit stops it."""
JSON_FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "open",
        "schema": {
            "type": "object",
            "properties": {"open": {"type": "boolean"}},
            "required": ["open"],
            "additionalProperties": False,
        },
    },
}


class Answer(msgspec.Struct):
    """Everything an engine yielded for one request."""

    frames: list[Frame]
    finish: Finish

    @property
    def text(self) -> str:
        return "".join(frame.text for frame in self.frames)

    @property
    def tokens(self) -> int:
        return sum(frame.tokens for frame in self.frames)


def chat(question: str, *, prefix: list[Frame] | None = None, **fields: Any) -> EngineRequest:
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0} | fields
    return EngineRequest("chat", "comptoir-demo", msgspec.json.encode(body), tuple(prefix or ()))


def completion(prompt: Any, **fields: Any) -> EngineRequest:
    return EngineRequest(
        "completion", "comptoir-demo", msgspec.json.encode({"prompt": prompt, "temperature": 0} | fields)
    )


async def ask(engine: LlamaCppEngine, request: EngineRequest) -> Answer:
    items = [item async for item in engine.run(request)]
    *frames, finish = items
    assert isinstance(finish, Finish)
    return Answer([frame for frame in frames if isinstance(frame, Frame)], finish)
