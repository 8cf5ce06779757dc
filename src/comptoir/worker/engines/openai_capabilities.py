"""Finds out what a model behind an OpenAI-compatible server can do, by asking for it: tools, images, a schema, thought.

Five requests of a few tokens at most, each only while no buyer's job runs at the engine. What is seen is `PROBED`; what
is refused is `LACKING`, whatever the server claims elsewhere. An answer that shows neither proves nothing: the model
may have answered in words instead of calling a tool, or thought for too long. So it stays what the server claims, or
unknown.
"""

import asyncio
import contextlib
import logging
import re
import zlib
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec

from comptoir.kinds.capabilities import LACKING, PROBED
from comptoir.kinds.tokens.capabilities import FIELDS, REASONING, SCHEMA, TOOLS, VISION
from comptoir.link import Frame
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.context_overflow import is_overflow

_log = logging.getLogger(__name__)

T = TypeVar("T")
Json = dict[str, Any]
Ask = Callable[[Json], AsyncGenerator[Frame, None]]
"""Sends a chat request (without model) to the server, and yields the frames of its answer until closed."""

CAPABILITIES_TIMEOUT_S = 20.0
"""Most seconds that all questions about one model take; what was not found out by then stays what the server claims."""

TOOL_TOKENS = 128
PICTURE_TOKENS = 48
SCHEMA_TOKENS = 32
"""Tokens requested. A call of the tool has about 25, the other answers ten, but some models think before them."""

DISTURBED_MAX = 3
"""How often a question is asked again because a buyer's job came in between."""

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look up a word in the dictionary.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
TOOL_QUESTION = "Look up the word 'tide' in the dictionary. Call the tool."

COLOURS: Mapping[str, bytes] = {"red": b"\xff\x00\x00", "blue": b"\x00\x00\xff"}
"""Two pictures, and one question: a model that does not see them says the same of both."""
PICTURE_QUESTION = "Which colour is this picture? Answer with one word."
PICTURE_PIXELS = 64
"""Each side; some models take nothing below 28."""

VERDICT = "quite-so"
"""What the schema leaves as the only answer, and what nobody would say by himself."""
SCHEMA_QUESTION = "Say hello."
SCHEMA_FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"verdict": {"type": "string", "enum": [VERDICT]}},
            "required": ["verdict"],
            "additionalProperties": False,
        },
    },
}

_REFUSED_STATUSES = (400, 415, 422, 501)
_REFUSED_WORDS = {
    TOOLS: re.compile(r"tool|function", re.IGNORECASE),
    VISION: re.compile(r"image|picture|vision|multi.?modal|mmproj", re.IGNORECASE),
    SCHEMA: re.compile(r"schema|response_format|grammar|guided|structured", re.IGNORECASE),
}


class Quiet:
    """Keeps questions to an engine out of the way of its jobs: they wait until none runs, and stop when one begins."""

    def __init__(self) -> None:
        self._jobs = 0
        self._none = asyncio.Event()
        self._none.set()
        self._asking: set[asyncio.Task[Any]] = set()

    @contextlib.contextmanager
    def job(self) -> Iterator[None]:
        """Run a job within this."""
        self._jobs += 1
        self._none.clear()
        for question in self._asking:
            question.cancel()
        try:
            yield
        finally:
            self._jobs -= 1
            if not self._jobs:
                self._none.set()

    async def ask(self, question: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Return the result of *question*, asked while no job runs; None: each time one came in between."""
        for _ in range(DISTURBED_MAX):
            while self._jobs:
                await self._none.wait()
            asking = asyncio.create_task(question())
            self._asking.add(asking)
            try:
                await asyncio.wait((asking,))
                if not asking.cancelled():
                    return asking.result()
            finally:
                asking.cancel()
                self._asking.discard(asking)
        return None


class _Seen(msgspec.Struct):
    """What came as an answer, and what of it counts."""

    text: str = ""
    thought: str = ""
    called: bool = False


class _Examination:
    """One model under examination."""

    def __init__(self, ask: Ask, stated: Mapping[str, str], quiet: Quiet) -> None:
        self._ask = ask
        self._quiet = quiet
        self._left_s = CAPABILITIES_TIMEOUT_S
        self.known = dict(stated)

    async def tools(self) -> None:
        """Leave the choice to the model, as most buyers do, and force it only if it chose not to."""
        body = {**_asking(TOOL_QUESTION, TOOL_TOKENS), "tools": [TOOL]}
        seen = await self._see(TOOLS, body)
        if seen is not None and not seen.called:
            seen = await self._see("", {**body, "tool_choice": "required"})
        if seen is not None and seen.called:
            self.known[TOOLS] = PROBED

    async def vision(self) -> None:
        """Show a picture of one colour, and one of another."""
        for colour in COLOURS:
            picture: Json = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture_of(colour)}"}}
            content = [{"type": "text", "text": PICTURE_QUESTION}, picture]
            seen = await self._see(VISION, _asking(content, PICTURE_TOKENS))
            if seen is None or _colours(seen.text or seen.thought) != {colour}:
                return
        self.known[VISION] = PROBED

    async def schema(self) -> None:
        """Ask for something else than what the schema allows."""
        seen = await self._see(SCHEMA, {**_asking(SCHEMA_QUESTION, SCHEMA_TOKENS), "response_format": SCHEMA_FORMAT})
        if seen is not None:
            with contextlib.suppress(msgspec.DecodeError):
                if msgspec.json.decode(seen.text) == {"verdict": VERDICT}:
                    self.known[SCHEMA] = PROBED

    async def _see(self, capability: str, body: Json) -> _Seen | None:
        """Return what the server answers; None: nothing, or it refuses, which is noted of *capability* unless empty.

        Raises:
            TimeoutError: the time for all questions is up.
        """
        try:
            seen = await self._quiet.ask(lambda: self._answer(body))
        except EngineError as error:
            if capability and _refuses(capability, error):
                self.known[capability] = LACKING
            _log.debug("asked for %s: %s", capability or "a forced call", error.message)
            return None
        if seen is not None and seen.thought:
            self.known[REASONING] = PROBED
        return seen

    async def _answer(self, body: Json) -> _Seen:
        seen = _Seen()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            async with asyncio.timeout(self._left_s), contextlib.aclosing(self._ask(body)) as frames:
                async for frame in frames:
                    seen.text += frame.text
                    delta = msgspec.json.decode(frame.extra).get("delta") if frame.extra else None
                    seen.thought += thought_in(delta)
                    if isinstance(delta, dict) and (delta.get("tool_calls") or delta.get("function_call")):
                        seen.called = True
                        break  # The rest of the call proves no more.
        finally:
            self._left_s -= loop.time() - began_s
        return seen


def thought_in(delta: object) -> str:
    """Return the thinking that engines put beside a piece's text, under one of several names."""
    if not isinstance(delta, dict):
        return ""
    said = [value for name, value in delta.items() if "reasoning" in name or "thinking" in name]
    return "".join([one if isinstance(one, str) else "…" for one in said if one])


async def find_capabilities(ask: Ask, stated: Mapping[str, str], quiet: Quiet, *, thinks: bool) -> dict[str, str]:
    """Return what is known of one model's capabilities; does not raise for anything that a server answers.

    Args:
        stated: what the server says by itself; what it says that it can't is not asked for.
        thinks: whether the model was seen to think before.
    """
    examined = _Examination(ask, {**stated, **({REASONING: PROBED} if thinks else {})}, quiet)
    questions = {TOOLS: examined.tools, VISION: examined.vision, SCHEMA: examined.schema}
    with contextlib.suppress(TimeoutError):
        for capability, question in questions.items():
            if examined.known.get(capability) != LACKING:
                await question()
    return {name: examined.known[name] for name in FIELDS if name in examined.known}


@cache
def picture_of(colour: str) -> str:
    """Return a PNG of one of `COLOURS`, in base64."""
    row = b"\x00" + COLOURS[colour] * PICTURE_PIXELS
    size = PICTURE_PIXELS.to_bytes(4, "big")
    chunks = (
        (b"IHDR", size + size + bytes((8, 2, 0, 0, 0))),
        (b"IDAT", zlib.compress(row * PICTURE_PIXELS)),
        (b"IEND", b""),
    )
    body = b"".join(
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big") for name, data in chunks
    )
    return b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def _colours(text: str) -> set[str]:
    words = set(re.findall(r"[a-z]+", text.casefold()))
    return {colour for colour in COLOURS if colour in words}


def _asking(content: str | list[Json], tokens: int) -> Json:
    return {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": tokens}


def _refuses(capability: str, error: EngineError) -> bool:
    """Tell whether *error* refuses the capability, and not just this request: too long, or at a bad moment."""
    if is_overflow(error):
        return False
    named = bool(_REFUSED_WORDS[capability].search(f"{error.message}\n{error.body.decode(errors='replace')}"))
    return error.status in _REFUSED_STATUSES or (error.status >= 500 and error.status != 503 and named)
