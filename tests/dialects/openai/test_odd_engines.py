"""What engines send that OpenAI's clients could not read, as it reaches a buyer: the same streamed and whole."""

import asyncio
from typing import Any

import msgspec
import pytest

from comptoir.link import Frame
from tests.dialects.openai.shop import MODEL, Response, Shop
from tests.worker.misbehaving import MODEL as HOST_MODEL
from tests.worker.misbehaving import ScriptedWorker
from tests.worker.odd_engine import MANNERS, answer_oddly
from tests.worker.odd_spelling import Manner, Outcome

pytestmark = pytest.mark.asyncio(loop_scope="module")

REASONS = {"stop", "length", "tool_calls", "content_filter", "function_call"}

_OWN_CHUNK = {"id", "object", "created", "model", "choices", "usage"}
_OWN_CHOICE = {"index", "delta", "message", "text", "finish_reason"}
_OWN_MESSAGE = {"role", "content", "tool_calls", "refusal"}


def added(into: dict[str, Any], new: dict[str, Any]) -> None:
    """Add up a delta as OpenAI's own library does (openai-python, ``lib/streaming/_deltas.py``)."""
    for key, value in new.items():
        old = into.get(key)
        if old is None or key in ("index", "type"):
            into[key] = value
        elif isinstance(old, str) and isinstance(value, str):
            into[key] = old + value
        elif isinstance(old, dict) and isinstance(value, dict):
            added(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            for item in value:
                if not isinstance(item, dict) or "index" not in item:
                    old.append(item)
                    continue
                while len(old) <= item["index"]:
                    old.append({})
                added(old[item["index"]], item)


class Gathered:
    """An answer put together from its chunks, or taken from its body."""

    def __init__(self, bodies: list[dict[str, Any]]) -> None:
        self.chunk: dict[str, Any] = {}
        self.choices: dict[int, dict[str, Any]] = {}
        self.messages: dict[int, dict[str, Any]] = {}
        self.usage: dict[str, Any] | None = None
        for body in bodies:
            self.chunk |= {name: value for name, value in body.items() if name not in _OWN_CHUNK}
            self.usage = body.get("usage") or self.usage
            for choice in body["choices"]:
                self._add(choice)

    def _add(self, choice: dict[str, Any]) -> None:
        at, said = choice["index"], choice.get("delta", choice.get("message"))
        kept = self.choices.setdefault(at, {})
        message = self.messages.setdefault(at, {})
        assert kept.get("finish_reason") is None, "nothing comes after the end of a choice"
        if said is None:
            added(message, {"content": choice["text"]})
        elif "message" in choice:
            calls = [call | {"index": place} for place, call in enumerate(said.get("tool_calls") or [])]
            message.update(said | ({"tool_calls": calls} if calls else {}))
        else:
            # Some clients read one call a delta.
            assert len(said.get("tool_calls") or ()) < 2
            # In a stream each call begins with its id and its name, said once.
            added(message, {"tool_calls": []} if "tool_calls" in said else {})
            added(message, msgspec.json.decode(msgspec.json.encode(said)))
        for name, value in choice.items():
            if name not in _OWN_CHOICE and value is not None:
                kept[name] = [*kept.get(name, []), *value] if isinstance(value, list) else value
        kept["finish_reason"] = choice["finish_reason"]

    def outcome(self, like: Outcome) -> Outcome:
        """Return it in the form of *like*, with what that looks at."""
        order = sorted(self.choices)
        calls = [
            tuple(
                (call["function"]["name"], call["function"]["arguments"])
                for call in self.messages[at].get("tool_calls") or ()
            )
            for at in order
        ]
        usage = self.usage
        first, message = self.choices[0], self.messages[0]
        return Outcome(
            texts=tuple(self.messages[at].get("content") or "" for at in order),
            reasons=tuple(self.choices[at]["finish_reason"] for at in order),
            calls=tuple(calls) if any(calls) else (),
            usage=(usage["prompt_tokens"], usage["completion_tokens"]) if like.usage is not None and usage else None,
            chunk=self.chunk,
            choice={name: value for name, value in first.items() if name not in _OWN_CHOICE},
            message={name: value for name, value in message.items() if name not in _OWN_MESSAGE},
        )


async def ask(shop: Shop, name: str, manner: Manner, *, chat: bool, stream: bool) -> Response:
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 50, "n": manner.n, "stream": stream}
    asked |= {"messages": [{"role": "user", "content": name}]} if chat else {"prompt": name}
    if stream:
        asked["stream_options"] = {"include_usage": True}
    async with asyncio.timeout(30):
        return await shop.call("POST", "/v1/chat/completions" if chat else "/v1/completions", asked)


def check(response: Response, manner: Manner, *, stream: bool) -> None:
    wanted = manner.outcome
    if wanted.error:
        error = response.events[-2]["error"] if stream and response.status == 200 else response.json["error"]
        assert error["code"] == wanted.error, error
        assert error["message"].endswith(wanted.words) and len(error["message"]) < 600
        return
    assert response.status == 200, response.body
    bodies = response.events[:-1] if stream else [response.json]
    assert not any("error" in body for body in bodies), bodies
    found = Gathered(bodies)
    assert {choice["finish_reason"] for choice in found.choices.values()} <= REASONS
    assert found.outcome(wanted) == wanted
    for message in found.messages.values():
        calls = message.get("tool_calls") or []
        assert [call["index"] for call in calls] == list(range(len(calls)))
        assert all(call["id"] and call["type"] == "function" for call in calls)
        assert len({call["id"] for call in calls}) == len(calls)


FORMS = [(chat, stream) for chat in (True, False) for stream in (True, False)]


@pytest.mark.parametrize(
    ("chat", "stream"), FORMS, ids=["chat, streamed", "chat", "completion, streamed", "completion"]
)
async def test_what_engines_send_reaches_the_buyer(shop: Shop, chat: bool, stream: bool) -> None:
    """All rows at once, which share their commits: one after the other they would take twenty seconds."""
    shop.answers(answer_oddly)
    rows = [(name, manner) for name, manner in MANNERS.items() if (manner.chat if chat else manner.completion)]

    responses = await asyncio.gather(*(ask(shop, name, manner, chat=chat, stream=stream) for name, manner in rows))

    wrong: dict[str, str] = {}
    for (name, manner), response in zip(rows, responses, strict=True):
        try:
            check(response, manner, stream=stream)
        except (AssertionError, KeyError, IndexError, TypeError) as error:
            wrong[name] = f"{error!r}"[:1500]
    assert not wrong, "\n".join(f"{name}: {why}" for name, why in wrong.items())


class TestHostsOfOlderWorkers:
    """What our worker puts right, a coordinator puts right too: other hosts send it as their engines do."""

    async def sent(self, shop: Shop, *frames: Frame, stream: bool) -> Gathered:
        model = msgspec.structs.replace(HOST_MODEL, name=f"odd-{len(shop.post.core.channels)}-{stream}")
        worker = ScriptedWorker(shop.url, answer=list(frames), models=[model])
        await worker.register()
        await worker.link()
        try:
            response = await shop.ask(shop.chat(model=model.name, stream=stream))
        finally:
            await worker.close()
        assert response.status == 200, response.body
        self.response = response
        return Gathered(response.events[:-1] if stream else [response.json])

    @pytest.mark.parametrize("stream", [True, False])
    async def test_their_calls_and_ends_are_put_right(self, shop: Shop, stream: bool) -> None:
        found = await self.sent(
            shop,
            Frame("", 1, b'{"delta":{"tool_calls":[{"id":"1","function":{"name":"weather","arguments":"{}"}}]}}'),
            Frame("", 1, b'{"delta":{"tool_calls":[{"id":"2","function":{"name":"time","arguments":"{}"}}]}}'),
            Frame("", 0, b'{"index":1,"finish_reason":"eos_token"}'),
            stream=stream,
        )

        outcome = found.outcome(Outcome())
        assert outcome.calls == ((("weather", "{}"), ("time", "{}")), ())
        assert outcome.reasons == ("stop", "stop")

    @pytest.mark.parametrize("stream", [True, False])
    async def test_their_calls_get_what_they_lack(self, shop: Shop, stream: bool) -> None:
        found = await self.sent(
            shop,
            Frame("", 1, b'{"delta":{"tool_calls":[{"function":{"name":"now"}},{"function":{"name":"here"}}]}}'),
            stream=stream,
        )

        first, second = found.messages[0]["tool_calls"]
        assert first == {"index": 0, "id": "call_0", "type": "function", "function": {"name": "now", "arguments": "{}"}}
        assert second == first | {"index": 1, "id": "call_1", "function": {"name": "here", "arguments": "{}"}}

    async def test_long_fields_are_shown_once(self, shop: Shop) -> None:
        """Else a host could make a buyer's stream a thousand times as long as what it sends."""
        long = msgspec.json.encode({"chunk": {"seen": "x" * 5_000, "id": "not ours"}, "choice": {"index": 7}})

        found = await self.sent(shop, Frame("a", 1, long), *(Frame("b") for _ in range(9)), stream=True)

        assert found.chunk == {"seen": "x" * 5_000}
        assert 5_000 < len(self.response.body) - self.response.body.count(b"\n\n") * 250 < 12_000
        assert list(found.choices) == [0]
