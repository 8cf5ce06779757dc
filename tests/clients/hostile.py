"""One engine that treats every client as engines do: a question names in quotation marks («…») how to answer it.

What `tests.worker.odd_engine` spells is reached by the names of its `MANNERS`; beyond that there are the ways of `OWN`,
which depend on what was asked, or on how often. A question that brings results of tools is answered ``told:`` and what
they are, whatever it names. Clients put words of their own around a question, and ask it several times.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tests.dialects.openai.shop import ROLE, STOP, Shop
from tests.worker.odd_engine import MANNERS, answer_in
from tests.worker.openai_stand_in import Answer, Request, delta, sse, stream_of, usage

NAMED = re.compile("«(.+?)»")

COST_UUSD = 205
"""What `plain` costs: 5 tokens in, 2 out, at the prices of tests/post.py."""

CITY = '{"name":"Bern"}'

ANSWER = "Comptoir keeps the books."
"""To a question that names nothing."""

SHELL = '{"command":"echo from the shell","description":"Says where it is."}'
"""Arguments of the tool ``bash`` of coding agents."""

SLOW_S = 0.25
"""Longer than the pings of the trading post are apart."""

REFUSAL = msgspec.json.encode({"error": {"message": "stream_options: unknown field", "type": "invalid_request_error"}})
BUSY = msgspec.json.encode({"error": {"message": "busy"}})


def asked_for(messages: list[dict[str, Any]]) -> str:
    """Return what the last question that names something names; empty when none does."""
    for message in reversed(messages):
        content = message.get("content") if message["role"] == "user" else None
        parts = [content] if isinstance(content, str) else [part.get("text", "") for part in content or ()]
        if found := NAMED.findall(" ".join(parts)):
            return str(found[-1])
    return ""


def text_of(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


plain = stream_of(sse(ROLE, delta({"content": "a"}), delta({"content": "b"}), STOP, usage(5, 2)))


def says(*pieces: str) -> Callable[[Request, Answer], Awaitable[None]]:
    """Answer with these pieces of text."""
    return stream_of(sse(ROLE, *(delta({"content": piece}) for piece in pieces), STOP, usage(5, 2)))


def calls(name: str, arguments: str) -> Callable[[Request, Answer], Awaitable[None]]:
    """Call one tool, without index or type, its arguments in two pieces."""
    begin = {"id": "call_1", "function": {"name": name, "arguments": arguments[:4]}}
    return stream_of(
        sse(
            ROLE,
            delta({"tool_calls": [begin]}),
            delta({"tool_calls": [{"function": {"arguments": arguments[4:]}}]}),
            delta({}, finish_reason="tool_calls"),
            usage(5, 2),
        )
    )


class Hostile:
    """The engine, and how often each way was asked for."""

    def __init__(self) -> None:
        self.tries: Counter[str] = Counter()

    async def __call__(self, request: Request, answer: Answer) -> None:
        asked = request.json
        name = asked_for(asked["messages"])
        self.tries[name] += 1
        results = [text_of(message["content"]) for message in asked["messages"] if message["role"] == "tool"]
        if results:
            await says("told: ", ", ".join(results))(request, answer)
        elif name in OWN:
            await OWN[name](self, request, answer)
        elif name in MANNERS:
            await answer_in(MANNERS[name], answer, chat=True)
        elif isinstance(asked.get("tool_choice"), dict):
            await calls(asked["tools"][-1]["function"]["name"], msgspec.json.encode({"text": ANSWER}).decode())(
                request, answer
            )
        else:
            await says(ANSWER)(request, answer)


async def _plain(engine: Hostile, request: Request, answer: Answer) -> None:
    await plain(request, answer)


async def _busy_once(engine: Hostile, request: Request, answer: Answer) -> None:
    if engine.tries["busy once"] == 1:
        return await answer.whole(429, BUSY, retry_after_ms="20")
    await plain(request, answer)


async def _no_stream_options(engine: Hostile, request: Request, answer: Answer) -> None:
    if "stream_options" in request.json:
        return await answer.whole(400, REFUSAL)
    await plain(request, answer)


async def _closes(request: Request, answer: Answer) -> None:
    answer.begin_stream()
    await answer.piece(sse(ROLE, *(delta({"content": piece}) for piece in "abc"), done=False))
    # Closed, not reset, in the middle of an answer: what was said arrives.
    answer.writer.close()


async def _closes_always(engine: Hostile, request: Request, answer: Answer) -> None:
    await _closes(request, answer)


async def _closes_once(engine: Hostile, request: Request, answer: Answer) -> None:
    await (_closes if engine.tries["closes once after the third piece"] == 1 else plain)(request, answer)


async def _slow(engine: Hostile, request: Request, answer: Answer) -> None:
    await asyncio.sleep(SLOW_S)
    await plain(request, answer)


async def _endless(engine: Hostile, request: Request, answer: Answer) -> None:
    answer.begin_stream()
    while True:
        await answer.piece(sse(delta({"content": "x"}), done=False))
        await asyncio.sleep(0.005)


async def _structured(engine: Hostile, request: Request, answer: Answer) -> None:
    """An object by whichever way was asked: the one tool, called without index, or text in the form of the schema."""
    asked = request.json
    if "response_format" in asked:
        return await says(CITY[:4], CITY[4:])(request, answer)
    await calls(asked["tools"][-1]["function"]["name"], CITY)(request, answer)


async def _uses_the_shell(engine: Hostile, request: Request, answer: Answer) -> None:
    """Titles are asked for without tools."""
    await (calls("bash", SHELL) if "tools" in request.json else says("A title"))(request, answer)


async def _breaks_an_agent_once(engine: Hostile, request: Request, answer: Answer) -> None:
    if "tools" not in request.json:
        return await says("A title")(request, answer)
    engine.tries["with tools"] += 1
    await (_closes if engine.tries["with tools"] == 1 else plain)(request, answer)


OWN: dict[str, Callable[[Hostile, Request, Answer], Awaitable[None]]] = {
    "plain": _plain,
    "busy once": _busy_once,
    "refuses stream_options": _no_stream_options,
    "closes after the third piece": _closes_always,
    "closes once after the third piece": _closes_once,
    "slow first token": _slow,
    "endless": _endless,
    "structured": _structured,
    "uses the shell": _uses_the_shell,
    "breaks an agent once": _breaks_an_agent_once,
}


def question(name: str) -> str:
    """Return a question that is answered as *name*."""
    return f"Say «{name}»"


def installed(shop: Shop) -> Hostile:
    """Put a new engine behind *shop*."""
    engine = Hostile()
    shop.answers(engine)
    return engine
