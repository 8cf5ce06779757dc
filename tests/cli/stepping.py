"""A toy kind of programs for tests of the command line: an order says step by step what its host does."""

import asyncio
import base64
import io
import os
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from comptoir.kinds import Unit
from comptoir.kinds.files import FileKind, InputFile, file_frame
from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish

TARGET = "tests.cli.stepping:Steps"
ENGINE = "tests.cli.stepping:SteppingEngine"
PAGE = Unit("page", "page", "pages", 1)


class StepsBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be done, in order: one-key objects, named as `SteppingEngine` reads them."""

    steps: list[dict[str, Any]] = []
    inputs: list[InputFile] = []


read = msgspec.json.Decoder(StepsBody).decode


class Steps(FileKind):
    """Whatever is to be done, step by step, and pages."""

    name = "steps"
    output = PAGE
    noun = "steps"

    def check(self, body: bytes) -> str:
        """Say what is wrong with a body."""
        try:
            read(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return str(error)
        return ""

    def output_max(self, body: bytes) -> int:
        """Return that each step makes a page at most."""
        return len(read(body).steps) or 1


class SteppingEngine:
    """Does what it is told."""

    name = "stepper"

    async def start(self) -> None:
        """Nothing to load."""

    async def models(self) -> list[ModelOffer]:
        """Return the one offer."""
        return [ModelOffer(self.name, [Steps.name], can_continue=True)]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Take the steps."""
        finish = "stop"
        for step in read(request.body).steps:
            ((what, how),) = step.items()
            match what:
                case "out" | "err":
                    yield file_frame(how, stream=f"std{what}")
                case "page":
                    yield file_frame(count=1, result=None)  # What is paid has to be delivered.
                case "body":
                    yield file_frame(result=msgspec.json.decode(request.body))
                case "copy":
                    assert request.files is not None
                    path, _ = await request.files.fetch(how)
                    with path.open("rb") as content:
                        made = await request.files.deliver(content, name=f"copy-{how}.txt", media="text/plain")
                    yield file_frame(count=1, artifact=made)
                case "artifact":
                    assert request.files is not None
                    content = io.BytesIO(base64.b64decode(how["base64"]) if "base64" in how else how["text"].encode())
                    made = await request.files.deliver(content, name=how["name"], media=how.get("media", ""))
                    yield file_frame(count=1, artifact=made)
                case "wait":
                    while not await is_there(how, within_s=1):
                        yield file_frame()  # A sign of life.
                case "fail":
                    raise EngineError("jammed", how, fault="buyer")
                case "finish":
                    finish = how
                case _:
                    yield file_frame(**step)
        yield Finish(finish, Usage())

    async def close(self) -> None:
        """Nothing to free."""


async def is_there(path: str, *, within_s: float) -> bool:
    """Wait until somebody makes a file; return whether it is there in time."""
    try:
        async with asyncio.timeout(within_s):
            while not os.path.exists(path):  # noqa: ASYNC240 (a look at a file in memory)
                await asyncio.sleep(0.01)
    except TimeoutError:
        return False
    return True
