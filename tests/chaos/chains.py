"""Chains of containers in an episode: an engine that appends its container's name, a client of the Infernet API, and
their rule.

``comptoir host --engine tests.chaos.chains:AppendingEngine``. Whatever is killed, a chain's output says each container
once, in order.
"""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Iterator

import msgspec

from comptoir.link import CONTAINER, ContainerCard, ContainerRun, Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineRequest, Finish
from tests.chaos.tables import Record

NAMES = ("append-x", "append-y", "append-z")
STEPS_MAX = 3
RUN_S_MAX = 0.3
"""Longest run: long enough to be struck in the middle of it."""

TIMEOUT_S = 10.0

STOPPED = b'{"finish_reason":"stop"}'


class Data(msgspec.Struct):
    """Input and output of every container."""

    tag: str
    said: list[str] = []


class AppendingEngine:
    """Three containers, each of which says its name behind what was said."""

    name = "appending"

    async def start(self) -> None:
        """Nothing to load."""

    async def models(self) -> list[ModelOffer]:
        """Return the containers."""
        card = ContainerCard(timeout_s=TIMEOUT_S)
        return [ModelOffer(name=name, kinds=[CONTAINER], context_tokens=100_000, container=card) for name in NAMES]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield the one frame that a container answers with."""
        run = msgspec.json.decode(request.body, type=ContainerRun)
        given = request.prefix[-1].text.encode() if request.prefix else bytes(run.data)
        data = msgspec.json.decode(given, type=Data)
        await asyncio.sleep(random.uniform(0.0, RUN_S_MAX))
        data.said.append(run.containers[len(request.prefix)])
        yield Frame(msgspec.json.encode(data).decode(), 1, STOPPED)
        yield Finish("stop", Usage(0, 1))

    async def close(self) -> None:
        """Nothing to free."""


def containers_of(dice: int) -> list[str]:
    """Return the chain of an order, drawn from its dice."""
    drawn = random.Random(dice)
    return drawn.choices(NAMES, k=drawn.randint(1, STEPS_MAX))


def public_id(job: str) -> str:
    """Spell the id of an Infernet job as everybody else does."""
    return f"job_{uuid.UUID(job).hex}"


def infernet_id(public: str) -> str:
    """The other way round."""
    return str(uuid.UUID(hex=public.removeprefix("job_")))


def is_chain(job: Record) -> bool:
    """Tell whether a stored job is a chain."""
    return bool(job["kind"] == CONTAINER)


def tag_of_chain(job: Record) -> str:
    """Return the name of the order that a stored chain is of."""
    run = msgspec.json.decode(bytes(job["body"]), type=ContainerRun)
    return msgspec.json.decode(run.data, type=Data).tag


def wrong_outputs(job: Record, frames: list[Frame]) -> Iterator[str]:
    """Yield what is wrong with what a chain's containers made: each frame is one output, and says all so far, once."""
    run = msgspec.json.decode(bytes(job["body"]), type=ContainerRun)
    for number, frame in enumerate(frames):
        data = msgspec.json.decode(frame.text, type=Data)
        if data.tag != tag_of_chain(job) or data.said != run.containers[: number + 1]:
            yield f"output {number} of {run.containers} is {frame.text!r}"
    if job["state"] == "completed" and len(frames) != len(run.containers):
        yield f"{len(frames)} outputs of {len(run.containers)} containers"
