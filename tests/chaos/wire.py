"""What every client of an episode does with HTTP: ask again when it may, read events, and say what it saw."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiohttp

LINE_BYTES_MAX = 1 << 20
AGAIN_S = (0.02, 0.3)
"""A client that was refused or cut off waits between these before it asks again."""

PATIENCE_S = 100.0
"""Longest that a client waits for one answer before it calls it lost; everything it waits for takes far less."""

GONE = (aiohttp.ClientError, ConnectionError, TimeoutError)
"""What a client sees of a server that is killed, paused or unreachable."""

Choose = Callable[[random.Random], str]
"""Gives the address to ask next: of several coordinators any."""


class Patience(Exception):
    """A client waited longer than `PATIENCE_S` for something that has to come."""


@dataclass
class Piece:
    """One event of a stream, as its reader got it."""

    epoch: int
    """How often the answer had begun anew when it was sent."""
    number: int
    text: str


@dataclass
class Seen:
    """What the client of one order saw."""

    number: int
    job: str = ""
    """Public id of the job, once somebody said it."""
    accepted: bool = False
    refusal: int = 0
    """Status of a definite refusal; nothing was bought."""
    unknown: bool = False
    """The line broke before an answer: it may have been bought or not."""
    pieces: list[Piece] = field(default_factory=list)
    """Of an Infrintia stream, over all its connections."""
    texts: list[str] = field(default_factory=list)
    """Of OpenAI answers: what each asking gave."""
    ended: bool = False
    """``[DONE]`` without an error, or a whole answer: everything was read."""
    error: str = ""
    """Code of the error that a stream ended with."""
    status: str = ""
    """The final state that somebody was told."""
    told: dict[str, object] = field(default_factory=dict)
    """The job as ``GET /jobs/{id}`` gave it after its end."""
    problems: list[str] = field(default_factory=list)
    """What no client should ever see."""
    connections: int = 0
    restarts: int = 0

    def is_job(self, public_id: str) -> None:
        """Note the job's id; two ids for one order are a problem."""
        if self.job and public_id != self.job:
            self.problems.append(f"one Idempotency-Key gave two jobs: {self.job} and {public_id}")
        self.job = public_id


def parse_id(text: str) -> tuple[int, int]:
    """Read an event id, ``number`` or ``restarts.number``."""
    epoch, dot, number = text.rpartition(".")
    return (int(epoch) if dot else 0), int(number)


@dataclass
class Event:
    """One server-sent event."""

    id: str
    name: str
    data: str


async def events(response: aiohttp.ClientResponse, each_line: Callable[[], None]) -> AsyncIterator[Event]:
    """Yield the whole events of *response*, a last one that was cut is not one; *each_line* is called for pings,
    too."""
    found = Event("", "", "")
    while line := await response.content.readline():
        each_line()
        text = line.decode()
        if not text.endswith("\n"):
            return
        name, _, value = text.rstrip("\n").partition(": ")
        if not text.strip():
            if found.data:
                yield found
            found = Event("", "", "")
        elif name == "id":
            found.id = value
        elif name == "event":
            found.name = value
        elif name == "data":
            found.data = value


async def pause(dice: random.Random) -> None:
    """Wait a moment before asking again."""
    await asyncio.sleep(dice.uniform(*AGAIN_S))


class Asking:
    """One client asking: over any address, with patience."""

    def __init__(self, session: aiohttp.ClientSession, choose: Choose, *, key: str, dice: random.Random) -> None:
        self.session = session
        self.dice = dice
        self._choose = choose
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._until = asyncio.get_running_loop().time() + PATIENCE_S

    def check_patience(self, what: str) -> None:
        """Raises: Patience: it is used up."""
        if asyncio.get_running_loop().time() > self._until:
            raise Patience(what)

    def open(self, method: str, path: str, *, body: object = None, **headers: str):  # type: ignore[no-untyped-def]
        """Open one request at some coordinator."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.request(method, self._choose(self.dice) + path, json=body, headers=self._headers | named)

    async def until(
        self, method: str, path: str, *, good: tuple[int, ...], body: object = None, **headers: str
    ) -> tuple[int, dict[str, object]]:
        """Ask until the answer has one of the *good* statuses; give it with its JSON body.

        Raises:
            Patience: it never had.
        """
        last: object = "no answer"
        while True:
            self.check_patience(f"{method} {path}: {last}")
            try:
                async with self.open(method, path, body=body, **headers) as answer:
                    if answer.status in good:
                        found: dict[str, object] = await answer.json() if answer.status != 204 else {}
                        return answer.status, found
                    last = f"{answer.status} {(await answer.text())[:200]}"
            except GONE as gone:
                last = repr(gone)
            await pause(self.dice)
