"""Containers that cost nothing and answer at once, inside the worker, to measure the coordinator alone.

``comptoir host --engine bench.free_containers:FreeContainers,count=20``
"""

from collections.abc import AsyncIterator

import msgspec

from comptoir.link import ContainerCard, ContainerRun, Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineRequest, Finish

STOPPED = b'{"finish_reason":"stop"}'

PIECES = 20
"""Pieces of a stream."""

RESOURCES = msgspec.json.encode(
    {
        "service_id": "free",
        "hardware_capabilities": [{"capability_id": "base", "cpu_info": {"model": "x" * 200}}],
        "compute_capability": [{"id": "ml", "type": "onnx", "task": [], "models": [], "cached_models": []}],
    }
)

_decode = msgspec.json.Decoder(ContainerRun).decode


class FreeContainers:
    """*count* containers, ``c0`` and so on."""

    name = "free"

    def __init__(self, *, count: int = 20) -> None:
        self._names = [f"c{number}" for number in range(count)]

    async def start(self) -> None:
        """Nothing to load."""

    async def models(self) -> list[ModelOffer]:
        """Return the containers."""
        card = ContainerCard(description="answers at once", image="none/at-all:latest")
        return [ModelOffer(name, ["container"], 10_000_000, container=card) for name in self._names]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield the constant output."""
        run = _decode(request.body)
        if run.stream and len(request.prefix) == len(run.containers) - 1:
            for number in range(PIECES):
                yield Frame("data ", int(number == 0))
            yield Frame("", 0, STOPPED)
        else:
            yield Frame('{"said":"hello"}', 1, STOPPED)
        yield Finish("stop", Usage(0, 1))

    async def resources(self) -> dict[str, bytes]:
        """Return the same for all."""
        return dict.fromkeys(self._names, RESOURCES)

    async def supports(self, container: str, model_id: str) -> bytes:
        """Support everything."""
        return b'{"supported":true}'

    async def close(self) -> None:
        """Nothing to free."""
