"""Spelling the odd answers of engines, and what a buyer gets of them (`odd_engine`)."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class Spelling:
    """Spells chunks of a chat or of a completion."""

    def __init__(self, *, chat: bool) -> None:
        self.chat = chat

    def __call__(
        self,
        text: str | None = None,
        *,
        index: Any = 0,
        finish: Any = None,
        delta: dict[str, Any] | None = None,
        choice: dict[str, Any] | None = None,
        **chunk: Any,
    ) -> dict[str, Any]:
        """Return one chunk with one choice; *chunk* are further fields of the chunk."""
        if self.chat:
            said: dict[str, Any] = {"delta": ({"content": text} if text is not None else {}) | (delta or {})}
        else:
            said = {"text": text or ""}
        return self.of({"index": index, **said, "logprobs": None, "finish_reason": finish, **(choice or {})}, **chunk)

    def of(self, *choices: dict[str, Any], **chunk: Any) -> dict[str, Any]:
        """Return one chunk with these choices."""
        name = "chat.completion.chunk" if self.chat else "text_completion"
        return {"id": "x-1", "object": name, "created": 1, "model": "m", "choices": list(choices), **chunk}

    def whole(self, *texts: str, finish: Any = "stop", message: dict[str, Any] | None = None, **body: Any) -> bytes:
        """Return an answer in one JSON object, a choice for each text."""
        choices = []
        for index, text in enumerate(texts):
            said = (
                {"message": {"role": "assistant", "content": text, **(message or {})}} if self.chat else {"text": text}
            )
            choices.append({"index": index, **said, "finish_reason": finish})
        name = "chat.completion" if self.chat else "text_completion"
        return json.dumps(
            {"id": "x-1", "object": name, "created": 1, "model": "m", "choices": choices, **body}
        ).encode()


def events(*chunks: dict[str, Any] | bytes, done: bool = True, mark: bytes = b"data: ", end: bytes = b"\n\n") -> bytes:
    """Spell a stream as Python's json does: half a surrogate pair, NaN and Infinity included."""
    lines = [chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode() for chunk in chunks]
    return b"".join(mark + line + end for line in [*lines, *([b"[DONE]"] if done else [])])


def counts(prompt: Any, completion: Any, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 1, **more}


@dataclass(frozen=True)
class Outcome:
    """What a buyer gets, streamed or whole."""

    texts: tuple[str, ...] = ("ab",)
    reasons: tuple[str, ...] = ("stop",)
    calls: tuple[tuple[tuple[str, str], ...], ...] = ()
    """Of each choice, the name and the arguments of its tool calls."""
    usage: tuple[int, int] | None = None
    """Prompt and answer tokens; None: not looked at."""
    chunk: dict[str, Any] = field(default_factory=dict)
    """Fields beside ``choices``."""
    choice: dict[str, Any] = field(default_factory=dict)
    """Fields of choice 0 beside its message."""
    message: dict[str, Any] = field(default_factory=dict)
    """Fields of choice 0's message beside its text."""
    error: str = ""
    """Code of the failure; empty: there is none."""
    words: str = ""
    """What the failure's message ends with."""


@dataclass(frozen=True)
class Manner:
    """One way to answer."""

    body: Callable[[Spelling], bytes | list[bytes]]
    """The body, or its pieces, each of which is read on its own."""
    outcome: Outcome
    chat: bool = True
    completion: bool = True
    content_type: str = "text/event-stream"
    n: int = 1
