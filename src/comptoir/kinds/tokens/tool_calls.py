"""Tool calls in fragments, as OpenAI's clients put them together: by index, with id, type and name said once.

Engines deviate from that in each way there is: no index, 0 for every call, the id or the name with each fragment,
another id with each fragment, arguments as an object, no id, no type, no arguments. Clients then join two calls to one,
double a name, raise, or leave the call out.
"""

import secrets
from typing import Any

import msgspec

from comptoir.kinds.tokens.extras import INDEX_MAX

ID_BYTES = 12
"""Randomness of an id that we make up: as much as in those of vLLM or OpenAI."""

_encode = msgspec.json.Encoder().encode


class _Call:
    """What is known of one call so far."""

    __slots__ = ("has_arguments", "is_function", "name")

    def __init__(self, *, is_function: bool) -> None:
        self.name = ""
        self.has_arguments = False
        self.is_function = is_function


class ToolCallFragments:
    """Numbers the calls of one choice, delta after delta.

    A call without an id gets one: *at_origin*, where the engine's answer is read, one that no other call has; elsewhere
    its number, so that whoever reads the same frames says the same.
    """

    __slots__ = ("_at_origin", "_by_id", "_by_index", "_calls", "_last")

    def __init__(self, *, at_origin: bool = False) -> None:
        self._at_origin = at_origin
        self._calls: dict[int, _Call] = {}
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int, int] = {}
        """Our number of the call that the engine means by its index now."""
        self._last = -1

    def put_right(self, fragments: Any) -> Any:
        """Return the ``tool_calls`` of one delta (decoded, changed in place), each with its ``index``, and each that
        begins a call with ``id``, ``type`` and arguments.

        A new id begins the next call; without an index and an id, a fragment belongs to the last call, unless it names
        a function again and begins its arguments.
        """
        if isinstance(fragments, list):
            for fragment in fragments:
                if isinstance(fragment, dict):
                    self._put_right(fragment)
        return fragments

    def missing(self) -> list[dict[str, Any]]:
        """Return the fragments without which a call would end without arguments, which are JSON: no text is none."""
        bare = [place for place, call in self._calls.items() if call.is_function and not call.has_arguments]
        return [{"index": place, "function": {"arguments": "{}"}} for place in bare]

    def _put_right(self, fragment: dict[str, Any]) -> None:
        said = fragment.get("index")
        index = said if type(said) is int and 0 <= said <= INDEX_MAX else None
        given = fragment.get("id")
        id = str(given) if isinstance(given, str | int) and not isinstance(given, bool) else ""
        function = fragment.get("function") or fragment.get("custom")
        function = function if isinstance(function, dict) else {}
        if isinstance(function.get("arguments"), dict | list):
            function["arguments"] = _encode(function["arguments"]).decode()
        name, arguments = _text(function.get("name")), _text(function.get("arguments"))
        place = self._place(index, id, name, arguments)
        call = self._calls.get(place)
        if call is None:
            call = self._calls[place] = _Call(is_function="custom" not in fragment)
            fragment["id"] = id or f"call_{secrets.token_hex(ID_BYTES) if self._at_origin else place}"
            if not _text(fragment.get("type")):
                fragment["type"] = "function" if call.is_function else "custom"
            if call.is_function and not arguments:
                function["arguments"] = ""
        else:
            # Said before: a client would append it once more.
            fragment.pop("id", None)
            fragment.pop("type", None)
            if name and name == call.name:
                del function["name"]
        call.name = call.name or name
        call.has_arguments = call.has_arguments or bool(arguments)
        fragment["index"] = place
        self._last = place
        if id:
            self._by_id.setdefault(id, place)
        if index is not None:
            self._by_index[index] = place

    def _place(self, index: int | None, id: str, name: str, arguments: str) -> int:
        if id in self._by_id:
            return self._by_id[id]
        if index is not None:
            known = self._by_index.get(index)
            if known is None:
                return self._next()
            # The same index for another call; an id alone is no sign, some engines make one up for each fragment.
            return self._next() if id and name and self._calls[known].name else known
        if id or self._last < 0:
            return self._next()
        last = self._calls[self._last]
        begins = not arguments or arguments.lstrip().startswith("{")
        again = name and last.name and (name != last.name or (begins and last.has_arguments))
        return self._next() if again else self._last

    def _next(self) -> int:
        return max(self._calls, default=-1) + 1


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
