"""One choice of an answer, assembled from its deltas as OpenAI's own SDKs do it."""

from typing import Any

import msgspec

from comptoir.kinds import ToolCallFragments, finish_reason_of

_SAID_ONCE = frozenset(("id", "type", "role", "index"))
"""Fields of a delta that are whole from the start; any other text is a fragment."""


class ChoiceBuilder:
    """Collects text, further fields, log probabilities and the finish reason."""

    __slots__ = ("_blank", "_calls", "_fields", "_logprobs", "_now", "_reason", "_rest", "_texts", "_told")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._fields: dict[str, Any] = {}
        self._logprobs: dict[str, Any] = {}
        self._reason: str | None = None
        self._calls = ToolCallFragments()
        self._rest: dict[str, Any] = {}
        self._now: dict[str, Any] = {}
        self._told = False
        self._blank: dict[str, Any] = {}

    def note(self, *, rest: dict[str, Any] | None, blank: dict[str, Any] | None) -> None:
        """Note which fields stand beside the message from the next piece on, and which of the message say nothing.

        None: the same as before.
        """
        if rest is not None:
            self._now, self._told = rest, True
        self._blank |= blank or {}

    def add(
        self, text: str, *, delta: dict[str, msgspec.Raw] | None, logprobs: msgspec.Raw, finish_reason: str | None
    ) -> None:
        """Add one piece."""
        if self._told or (self._now and (text or delta)):
            overlay(self._rest, self._now)
            self._told = False
        if text:
            self._texts.append(text)
        if delta:
            fields = {name: msgspec.json.decode(raw) for name, raw in delta.items()}
            if "tool_calls" in fields:
                fields["tool_calls"] = self._calls.put_right(fields["tool_calls"])
            merge(self._fields, fields)
        if bytes(logprobs) != b"null":
            merge(self._logprobs, msgspec.json.decode(logprobs))
        self._reason = self._reason or finish_reason

    def chat(self, index: int, default_reason: str) -> dict[str, Any]:
        """Return it as a choice of a chat completion."""
        merge(self._fields, {"tool_calls": self._calls.missing()})
        calls = self._fields.pop("tool_calls", None)
        text = "".join(self._texts)
        message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
        message["refusal"] = self._fields.pop("refusal", None)
        message.update((name, value) for name, value in self._blank.items() if name not in message)
        message.update(self._fields)
        if calls:
            message["tool_calls"] = [
                {key: value for key, value in call.items() if key != "index"} if isinstance(call, dict) else call
                for call in calls
            ]
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs or None,
            "finish_reason": finish_reason_of(self._reason or default_reason, called=bool(calls)),
            **self._rest,
        }

    def completion(self, index: int, default_reason: str) -> dict[str, Any]:
        """Return it as a choice of a completion."""
        return {
            "index": index,
            "text": "".join(self._texts),
            "logprobs": self._logprobs or None,
            "finish_reason": finish_reason_of(self._reason or default_reason),
            **self._rest,
        }


def merge(into: dict[str, Any], delta: Any) -> None:
    """Merge a delta: text is appended, lists are extended (by ``index`` if they have one)."""
    if not isinstance(delta, dict):
        return
    for key, new in delta.items():
        old = into.get(key)
        if old is None:
            # A list with indices is merged from the start: its fragments may come in one delta.
            if isinstance(new, list) and _indexed(new):
                into[key] = old = []
            else:
                into[key] = new
                continue
        if isinstance(old, str) and isinstance(new, str):
            into[key] = new if key in _SAID_ONCE else old + new
        elif isinstance(old, dict) and isinstance(new, dict):
            merge(old, new)
        elif isinstance(old, list) and isinstance(new, list):
            _extend(old, new)
        elif new is not None:
            into[key] = new


def overlay(into: dict[str, Any], new: dict[str, Any]) -> None:
    """Put the *new* fields over those before: lists are extended, objects overlaid, anything else is replaced."""
    for key, value in new.items():
        old = into.get(key)
        if isinstance(old, list) and isinstance(value, list):
            into[key] = [*old, *value]
        elif isinstance(old, dict) and isinstance(value, dict):
            overlay(old, value)
        else:
            into[key] = value


def _indexed(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(item, dict) and isinstance(item.get("index"), int) for item in items)


def _extend(old: list[Any], new: list[Any]) -> None:
    if not _indexed(new):
        old += new
        return
    for item in new:
        same = next((one for one in old if isinstance(one, dict) and one.get("index") == item["index"]), None)
        if same is None:
            old.append(item)
        else:
            merge(same, item)
