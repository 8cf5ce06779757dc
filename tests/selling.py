"""A kind that does not ship, for tests of what is priced, told and shown of any: it sells text by the kilobyte."""

from collections.abc import AsyncIterator

from comptoir.kinds import Kind, Unit
from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineRequest, Finish

TARGET = "tests.selling:Letters"
BYTE = Unit("byte", "byte", "bytes", 1000, "kilobyte")


class Letters(Kind):
    """Text, by the kilobyte."""

    name = "letters"
    output = BYTE
    noun = "writer"

    def output_max(self, body: bytes) -> int:
        """Return that it is no longer than what was asked."""
        return len(body)

    def sample(self, model: str) -> bytes:
        """Return four bytes."""
        return b"abcd"


OFFER = ModelOffer("scribe", [Letters.name])


class Scribe:
    """Says what it is given, a byte a frame."""

    name = "scribe"

    async def start(self) -> None:
        """Nothing to load."""

    async def models(self) -> list[ModelOffer]:
        """Return the one offer."""
        return [OFFER]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Say it."""
        for letter in request.body.decode():
            yield Frame(letter, 1)
        yield Finish("stop", Usage())

    async def close(self) -> None:
        """Nothing to free."""
