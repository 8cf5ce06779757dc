"""Toy kinds that are like no kind that ships, and a street that sells them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import LiveJob
from comptoir.kinds import Ask, Kind, Part, Progress, Resume, Unit, hold_of
from comptoir.kinds.files import FileKind, extra_of
from comptoir.link import COUNT_MAX, ModelOffer
from tests.street import Street, open_street

RENDER = Unit("render", "render", "renders", 1, "render", "a render")
DEED = Unit("deed", "deed", "deeds", 1, "deed", "a deed")
SECOND = Unit("audio_second", "second of audio", "seconds of audio", 60, "minute of audio")
GRAIN = Unit("grain", "grain", "grains", 1_000, "1,000 grains", rate_max=10**9 * 1_000_000)
"""As dear as a unit may be."""
LETTER = Unit("letter", "letter", "letters", 1_000, "1,000 letters")
SHEET = Unit("sheet", "sheet", "sheets", 1, "sheet", "a sheet")
WORK = Unit("work_ms", "second", "seconds", 1_000, "second", "a second", shown=1_000)
BUSY = Unit("busy_ms", "CPU second", "CPU seconds", 1_000, "CPU second", "a CPU second", shown=1_000)

EACH_UUSD = 100
"""What a unit of each output costs here."""

MILLION_OF = EACH_UUSD * 1_000_000


class RunAgain(Kind):
    """Counts when it is whole, and is run again from the beginning: a render that shows how far it is."""

    name = "run_again"
    output = RENDER
    pays_half = False
    may_hedge = False
    steady = False

    def resume(self, job: Progress) -> Resume:
        return Resume.FROM_STAGE

    def silence_max_s(self, offer: ModelOffer | None) -> float:
        """Return what its offer says, in the one number that offers have room for here."""
        return offer.context_tokens / 10 if offer is not None else 0.0

    def wrong_output(self, job: Progress, *, finish_reason: str, usage: Any) -> str:
        return "" if job.frames and job.frames[-1].text == "whole" else "it is not whole"


class ByPieces(Kind):
    """Run again from the beginning as well, and each piece of it counts, and is no wrong output by itself."""

    name = "by_pieces"
    output = RENDER
    pays_half = False

    def resume(self, job: Progress) -> Resume:
        return Resume.FROM_STAGE


class Once(Kind):
    """May have done something in the world."""

    name = "once"
    output = DEED

    def resume(self, job: Progress) -> Resume:
        return Resume.NEVER


class WholeOrNothing(Kind):
    """Gone on with piece by piece, and worth nothing by halves."""

    name = "whole_or_nothing"
    output = LETTER
    pays_half = False


class Measured(Kind):
    """Sold by what goes in, counted by its host, and by what comes out."""

    name = "measured"
    input = SECOND
    output = LETTER

    def parts(self, ask: Ask) -> tuple[Part, ...]:
        seconds = len(ask.body)
        return (Part(ask.model, seconds, seconds, ask.output_max),)


class Dearest(Kind):
    """Both ways at the highest price there may be."""

    name = "dearest"
    input = Unit("scan", "scan", "scans", 1, rate_max=10**9 * 1_000_000)
    output = GRAIN

    def parts(self, ask: Ask) -> tuple[Part, ...]:
        return (Part(ask.model, COUNT_MAX, COUNT_MAX, ask.output_max),)

    def believed(self, claimed: int, output_bytes: int, passed_ms: int = 0) -> int:
        """Return all: a grain is smaller than a byte."""
        return claimed


class Staged(Kind):
    """Two stages of several sheets each: as many as its body says, ``3,2``."""

    name = "staged"
    output = SHEET
    staged = True
    pays_half = False

    def parts(self, ask: Ask) -> tuple[Part, ...]:
        return tuple([Part(model, output_max=most) for model, most in zip(ask.stages, _bounds(ask.body), strict=True)])

    def part(self, job: Progress) -> Part:
        at = self.stage(job)
        part = Part(job.stages[at].model, output_max=_bounds(job.body)[at])
        return msgspec.structs.replace(part, hold_uusd=hold_of(part, (0, job.stages[at].rate_out)))

    def stage(self, job: Progress) -> int:
        """Return the number of closed segments, each of which ends with its own frame."""
        return sum([frame.text == "end" for frame in job.frames[: job.segment_start]])

    def stage_start(self, job: Progress) -> int:
        return job.segment_start

    def resume(self, job: Progress) -> Resume:
        return Resume.FROM_STAGE

    def finished_already(self, job: Progress) -> str:
        fresh = job.frames[job.segment_start :]
        return "stop" if fresh and fresh[-1].text == "end" else ""


class Timed(FileKind):
    """Sold by the time it takes, and by what it keeps cores busy: as its body says, ``{"wall_s": 60, "cores": 2}``.
    With ``busy_ms`` no more than that of them is paid."""

    name = "timed"
    input = BUSY
    output = WORK
    timed = True

    def parts(self, ask: Ask) -> tuple[Part, ...]:
        busy_ms = msgspec.json.decode(ask.body).get("busy_ms", ask.output_max * self.cores(ask.body))
        return (Part(ask.model, busy_ms, busy_ms, ask.output_max),)

    def output_max(self, body: bytes) -> int:
        return int(self.runs_s(body) * 1000)

    def cores(self, body: bytes) -> int:
        return int(msgspec.json.decode(body).get("cores", 1))

    def runs_s(self, body: bytes) -> float:
        return float(msgspec.json.decode(body).get("wall_s", 60))


class Drawing(FileKind):
    """A program that is sold by the sheet, each with its file."""

    name = "drawing"
    output = SHEET


class Program(Timed):
    """The same, counted with the result alone: whoever is lost before has earned nothing, and the next begins again."""

    name = "program"
    pays_half = False
    pays_lost = False

    def wrong_output(self, job: Progress, *, finish_reason: str, usage: Any) -> str:
        last = job.frames[-1] if job.frames else None
        whole = last is not None and last.tokens == job.segment_claim and extra_of(last).finish_reason == finish_reason
        return "" if whole else "all its time is counted with its result"


def _bounds(body: bytes) -> list[int]:
    return [int(most) for most in body.decode().split(",")]


KINDS = tuple(
    f"tests.kinds.toys:{kind.__name__}"
    for kind in (RunAgain, ByPieces, Once, WholeOrNothing, Measured, Dearest, Staged, Timed, Drawing, Program)
)


def offer(kind: type[Kind], *, name: str = "m", uusd: int = EACH_UUSD, more: int = 0, **said: Any) -> ModelOffer:
    """Return an offer of *kind* at *uusd* a unit of the output, and *more* of the input."""
    prices = {kind.output.name: uusd * 1_000_000}
    if kind.input is not None:
        prices[kind.input.name] = more * 1_000_000
    return ModelOffer(name, [kind.name], prices=prices, **said)


async def buy(
    street: Street,
    kind: type[Kind],
    *,
    most: int = 5,
    body: bytes = b"{}",
    job_id: bytes | None = None,
    stages: tuple[str, ...] = (),
    name: str = "m",
) -> LiveJob:
    """Buy a job of *kind*."""
    order = Order(
        street.buyer_id, "test", kind.name, stages[0] if stages else name, body, most, True, job_id, stages=stages
    )
    return await submit(street.core, order)


@asynccontextmanager
async def selling(folder: Path, *, kinds: tuple[str, ...] = KINDS, **settings: Any) -> AsyncIterator[Street]:
    """Open a house that sells the toys as well."""
    async with open_street(folder, kinds=kinds, **settings) as street:
        yield street
