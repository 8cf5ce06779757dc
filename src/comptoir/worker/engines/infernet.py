"""The containers of a Ritual node's ``config.json`` as one engine: those it starts are kept running, all are served."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from comptoir.link import Frame, ModelOffer
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.engines.container import ContainerEngine
from comptoir.worker.engines.container_api import ContainerApiError, find_socket
from comptoir.worker.engines.container_runtime import Containers, owner_of
from comptoir.worker.engines.infernet_config import read_config


class InfernetEngine(ContainerEngine):
    """What the file at *config* describes. `ContainerEngine` speaks to the containers, `Containers` keeps them running.

    Raises:
        EngineError: the file is unusable, or nothing in it can be offered.
    """

    name = "infernet"

    def __init__(self, *, config: Path, slots: int = 4) -> None:
        specs = read_config(config).specs
        if not specs:
            raise EngineError("infernet_config", f"{config}: no container in it can be offered")
        self._take(specs, slots)
        self._kept = Containers(specs, owner=owner_of(config))

    async def start(self) -> None:
        """Start the managed containers, then look who is there; none is left behind if nobody is.

        Raises:
            EngineError: nothing can be served; says why of each container.
        """
        await self._kept.start()
        try:
            await super().start()
        except EngineError as error:
            reasons = "; ".join(f"{name}: {why}" for name, why in self._kept.gone.items())
            raise EngineError(error.code, reasons or error.message) from error

    async def models(self) -> list[ModelOffer]:
        """Return the containers that answer now. A withdrawn one is not asked: its port may belong to another now."""
        gone = self._kept.gone
        return [offer for offer in await super().models() if offer.name not in gone]

    def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Run the container whose step it is, see `Engine.run`; one just withdrawn is refused and sent nothing."""
        return _refused() if request.model in self._kept.gone else super().run(request)

    async def close(self) -> None:
        """Close all connections, stop the managed containers and remove them; idempotent."""
        await super().close()
        await self._kept.close()


def missing() -> str:
    """Return what this machine misses to start containers itself; those that run already need nothing."""
    try:
        find_socket()
    except ContainerApiError as error:
        return f"for containers that it starts itself: {error}"
    return ""


async def _refused(before: Sequence[Frame | Finish] = ()) -> AsyncIterator[Frame | Finish]:
    for item in before:
        yield item
    raise EngineError("container_unreachable", "the container does not run now", fault="capacity")
