"""An engine whose answers can be recognised: every frame names its order, its number and the run that made it.

``comptoir host --engine tests.chaos.engine:NumberedEngine``. What an order wants stands in its prompt (`Wanted`). A
run's mark is different every time, so an answer that was begun anew is not the same text; going on after a prefix is
exact, and only the frames after it carry the mark of the run that goes on.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator

import msgspec

from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish

MODEL = "numbered"
PROMPT_TOKENS = 7
"""Tokens that every prompt counts as."""

GLYPHS = ("", "é", "漢字", "😀", '"\\', "\n")
"""Several bytes to a character, and what JSON and SSE have to escape."""

UNMARKED = "0"

STALL_S = 3_600.0
"""A stalled run never goes on by itself: somebody has to notice."""


class Wanted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an order asks of the engine; JSON in the prompt."""

    tag: str
    """Unique name of the order."""
    frames: int
    per_s: float = 0.0
    """Frames a second; 0 is as fast as they are taken."""
    trouble: str = ""
    """``fails``, ``busy``, ``refuses`` (the buyer's fault) or ``stalls``; empty: it goes well."""
    at: int = 0
    """The frame before which the trouble comes."""
    marked: bool = True
    """Whether each run's frames carry a mark of their own; without it all runs say the same."""
    runs: int = 0
    """How many runs of this process meet it, from the first on; 0 is all of them."""


class _Message(msgspec.Struct):
    content: str


class _Body(msgspec.Struct):
    messages: list[_Message]


FRAME = re.compile(r"(?P<tag>[a-z0-9-]+)\.(?P<number>\d+)~(?P<mark>[0-9a-z-]+):(?P<glyph>.*) ", re.DOTALL)


def prompt_of(wanted: Wanted) -> str:
    """Return the prompt that asks for *wanted*."""
    return msgspec.json.encode(wanted).decode()


def wanted_of(body: bytes) -> Wanted:
    """Read what an OpenAI-style *body* asks for."""
    return msgspec.json.decode(msgspec.json.decode(body, type=_Body).messages[-1].content, type=Wanted)


def tokens_of(number: int) -> int:
    """Return how many tokens frame *number* counts as: mostly one, as engines do; sometimes several."""
    return 3 if number % 7 == 6 else 1


def tokens_in(first: int, end: int) -> int:
    """Return the tokens of frames *first* up to and without *end*."""
    return sum(tokens_of(number) for number in range(first, end))


def text_of(tag: str, number: int, mark: str) -> str:
    """Return the text of frame *number*."""
    return f"{tag}.{number}~{mark}:{GLYPHS[number % len(GLYPHS)]} "


def is_frame(text: str, tag: str, number: int) -> bool:
    """Say whether *text* is frame *number* of order *tag*, whoever made it."""
    found = FRAME.fullmatch(text)
    return found is not None and text == text_of(tag, number, found["mark"])


class NumberedEngine:
    """Answers with the frames that the prompt wants; meets the trouble that it asks for."""

    name = "numbered"

    def __init__(self, *, model: str = MODEL) -> None:
        self._model = model
        self._met: dict[str, int] = {}
        self._runs = 0

    async def start(self) -> None:
        """Nothing to load."""

    async def models(self) -> list[ModelOffer]:
        """Return the one model."""
        return [ModelOffer(name=self._model, kinds=["chat"], context_tokens=100_000, can_continue=True)]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield the wanted frames after the prefix."""
        wanted = wanted_of(request.body)
        self._runs += 1
        mark = f"{os.getpid():x}-{self._runs:x}" if wanted.marked else UNMARKED
        met = self._met[wanted.tag] = self._met.get(wanted.tag, 0) + 1
        troubled = bool(wanted.trouble) and (not wanted.runs or met <= wanted.runs)
        loop = asyncio.get_running_loop()
        due = loop.time()
        # A hostile host may have left empty frames in it.
        first = sum(1 for frame in request.prefix if frame.text)
        for number in range(first, wanted.frames):
            if troubled and number >= wanted.at:
                await meet(wanted)
            if wanted.per_s:
                due += 1 / wanted.per_s
                await asyncio.sleep(max(0.0, due - loop.time()))
            yield Frame(text_of(wanted.tag, number, mark), tokens_of(number))
        yield Finish("stop", Usage(PROMPT_TOKENS, tokens_in(first, wanted.frames)))

    async def close(self) -> None:
        """Nothing to free."""


async def meet(wanted: Wanted) -> None:
    """Have the wanted trouble.

    Raises:
        EngineError: as the trouble has it.
    """
    if wanted.trouble == "stalls":
        await asyncio.sleep(STALL_S)
    if wanted.trouble == "busy" and not wanted.at:
        raise EngineError("busy", "no slot is free", fault="capacity", status=429)
    if wanted.trouble == "refuses":
        raise EngineError("bad_request", "this prompt is refused", fault="buyer", status=400)
    raise EngineError("broken", "the engine broke", fault="host")
