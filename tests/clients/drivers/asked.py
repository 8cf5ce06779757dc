"""What every driver asks with: the address and key of the trading post, the tools, the object."""

import json
import os
from collections.abc import Callable
from typing import Any

import pydantic

URL = os.environ["COMPTOIR_URL"] + "/v1"
KEY = os.environ["COMPTOIR_KEY"]
MODEL = "comptoir-demo"


class City(pydantic.BaseModel):
    """The object that structured answers are."""

    name: str


def weather(a: int = 0, b: int = 0) -> str:
    """Say the weather of a place by its number."""
    return f"weather {a or b}"


def time(a: int = 0, b: int = 0) -> str:
    """Say the time of a place by its number."""
    return f"time {a or b}"


FUNCTIONS = {"weather": weather, "time": time}

NUMBERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}

TOOLS = [
    {"type": "function", "function": {"name": name, "description": function.__doc__, "parameters": NUMBERS}}
    for name, function in FUNCTIONS.items()
]


def question(prompt: str) -> list[dict[str, str]]:
    """Return *prompt* as messages."""
    return [{"role": "user", "content": prompt}]


def answered(prompt: str, ask: Callable[[list[Any]], Any]) -> str | None:
    """Return the last text: *ask* gives the next message, and tools are run for as long as it calls some."""
    messages: list[Any] = question(prompt)
    while (message := ask(messages)).tool_calls:
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            result = FUNCTIONS[call.function.name](**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return message.content  # type: ignore[no-any-return]
