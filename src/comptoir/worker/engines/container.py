"""Containers with Ritual Infernet's contract: ``POST /service_output`` with the input returns JSON or a stream.

A job is a chain of one or more of them, and each stage is a request of its own (`link.ContainerRun`). A container is
only asked for runs, whether it is up, and what it reports about itself (`resources`, `supports`).
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Sequence

import aiohttp
import msgspec

from comptoir.kit.address import BadAddress, http_address
from comptoir.link import CONTAINER, ContainerCard, Frame, ModelOffer, Usage
from comptoir.worker.engines import container_wire as wire
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.engines.container_http import ContainerClient, open_session
from comptoir.worker.engines.container_spec import OUTPUT_BYTES_MAX, RUN_TIMEOUT_S, ContainerSpec

CONTEXT_TOKENS = 10_000_000
"""Offered by every container: a run has no tokens, so there is no limit."""

ID_CHARS_MAX = 256
TEXT_CHARS_MAX = 2000
"""Longest description, image and bearer."""

NETWORKS_MAX = 1000
TIMEOUT_S_MAX = 86_400.0
CONCURRENCY_MAX = 4096

OUTPUT_BYTES_LIMIT = 15 * 1024 * 1024
"""Largest output that may be allowed: a larger frame could not travel (`leases.FRAME_BYTES_MAX`)."""


class ContainerEngine:
    """One container at *url*, offered as *id*; `of` takes several.

    *allowed_ips* are the networks of allowed callers, joined by ``+``; with *external* false, no job may begin with it;
    *concurrency* 0 runs as many at once as the worker has *slots*.
    """

    name = "container"

    def __init__(
        self,
        *,
        id: str = "",
        url: str = "",
        bearer: str = "",
        description: str = "",
        image: str = "",
        external: bool = True,
        generates_proofs: bool = False,
        allowed_ips: str = "",
        timeout_s: float = RUN_TIMEOUT_S,
        output_bytes_max: int = OUTPUT_BYTES_MAX,
        concurrency: int = 0,
        slots: int = 4,
    ) -> None:
        one = ContainerSpec(
            id=id,
            url=url,
            bearer=bearer,
            description=description,
            image=image,
            external=external,
            generates_proofs=generates_proofs,
            allowed_ips=tuple(allowed_ips.split("+") if allowed_ips else ()),
            timeout_s=timeout_s,
            output_bytes_max=output_bytes_max,
            concurrency=concurrency,
        )
        self._take([one], slots)

    @classmethod
    def of(cls, specs: Sequence[ContainerSpec], *, slots: int = 4) -> "ContainerEngine":
        """Return an engine of several containers.

        Raises:
            EngineError: one of them can't be served as described; the message says what to do.
        """
        engine = cls.__new__(cls)
        engine._take(specs, slots)
        return engine

    def _take(self, specs: Sequence[ContainerSpec], slots: int) -> None:
        checked = [checked_spec(spec) for spec in specs]
        if not checked:
            raise EngineError("engine_spec", "no container was named: container,id=NAME,url=http://HOST:PORT")
        self._containers = {spec.id: ContainerClient(spec, slots=slots) for spec in checked}
        if len(self._containers) < len(checked):
            raise EngineError("engine_spec", "two containers have the same id; give each its own")
        self._sessions: list[aiohttp.ClientSession] = []

    async def start(self) -> None:
        """Open the connections and check which containers answer.

        Raises:
            EngineError: none does.
        """
        session, fresh = self._sessions = [open_session(), open_session(kept=False)]
        for container in self._containers.values():
            container.open(session, fresh=fresh)
        if not await self.models():
            silent = ", ".join(f"{one.spec.id} at {one.spec.url}" for one in self._containers.values())
            raise EngineError("no_container", f"no container answers ({silent}): start it first")

    async def models(self) -> list[ModelOffer]:
        """Return the containers that answer now."""
        containers = list(self._containers.values())
        answer = await asyncio.gather(*(one.answers() for one in containers))
        return [_offer(one.spec) for one, there in zip(containers, answer, strict=True) if there]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Run the container of the current stage; see `Engine.run`. Closing the iterator aborts the request at once."""
        container = self._containers.get(request.model)
        if request.kind != CONTAINER or container is None:
            raise EngineError("model_not_served", f"no {request.kind} with {request.model!r} here")
        step = wire.read_step(request)
        if step.stream:
            frames = wire.StreamFrames()
            async with contextlib.aclosing(container.stream(step.body)) as pieces:
                async for piece in pieces:
                    for frame in frames.feed(piece):
                        yield frame
            for frame in frames.end():
                yield frame
        else:
            yield Frame(await container.output(step.body), 1, wire.STOPPED)
        yield Finish("stop", Usage(0, 1))

    async def resources(self) -> dict[str, bytes]:
        """Return what each container reports about itself; see `ReportsResources`."""
        containers = list(self._containers.values())
        said = await asyncio.gather(*(one.about() for one in containers))
        for container, body in zip(containers, said, strict=True):
            # One that is too busy to answer still has what it reported before.
            if body or not container.running:
                container.about_last = body
        return {one.spec.id: one.about_last for one in containers if one.about_last}

    async def supports(self, container: str, model_id: str) -> bytes:
        """Return what *container* reports about a model; see `ReportsResources`."""
        one = self._containers.get(container)
        return await one.about(model_id) if one is not None else b""

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions:
            await session.close()
        self._sessions = []


def _offer(spec: ContainerSpec) -> ModelOffer:
    card = ContainerCard(
        description=spec.description,
        image=spec.image,
        external=spec.external,
        generates_proofs=spec.generates_proofs,
        allowed_ips=list(spec.allowed_ips),
        timeout_s=spec.timeout_s,
        rate_requests=spec.rate_requests,
        rate_period_s=spec.rate_period_s,
        accepted_payments={asset: str(amount) for asset, amount in spec.accepted_payments.items()},
        allowed_addresses=list(spec.allowed_addresses),
        allowed_delegate_addresses=list(spec.allowed_delegate_addresses),
    )
    return ModelOffer(spec.id, [CONTAINER], CONTEXT_TOKENS, container=card)


def checked_spec(spec: ContainerSpec) -> ContainerSpec:
    """Return *spec* with its address and networks in canonical form.

    Raises:
        EngineError: something can't be served as described; the message says what to do.
    """
    _check_id(spec.id)
    url = _checked_url(spec)
    for field in ("description", "image", "bearer"):
        text: str = getattr(spec, field)
        if len(text) > TEXT_CHARS_MAX or not (text.isprintable() and (field != "bearer" or text.isascii())):
            raise _wrong(spec, f"{field} has to be one line of at most {TEXT_CHARS_MAX} characters")
    if len(spec.allowed_ips) > NETWORKS_MAX:
        raise _wrong(spec, f"allowed_ips has {len(spec.allowed_ips)} networks, {NETWORKS_MAX} are allowed")
    if not 0 < spec.timeout_s <= TIMEOUT_S_MAX:
        raise _wrong(spec, f"timeout_s has to be above 0 and at most {TIMEOUT_S_MAX:g}, not {spec.timeout_s:g}")
    if not 1 <= spec.output_bytes_max <= OUTPUT_BYTES_LIMIT:
        raise _wrong(spec, f"output_bytes_max has to be 1 to {OUTPUT_BYTES_LIMIT}, not {spec.output_bytes_max}")
    if not 0 <= spec.concurrency <= CONCURRENCY_MAX:
        raise _wrong(spec, f"concurrency has to be 0 (as many as slots) to {CONCURRENCY_MAX}, not {spec.concurrency}")
    return msgspec.structs.replace(spec, url=url, allowed_ips=tuple(_network(spec, text) for text in spec.allowed_ips))


def _check_id(id: str) -> None:
    if not id:
        raise EngineError("engine_spec", "the container needs an id: container,id=NAME,url=http://HOST:PORT")
    if len(id) > ID_CHARS_MAX or "," in id or " " in id or not id.isprintable():
        words = f"a container's id has 1 to {ID_CHARS_MAX} characters without comma and space, not {id!r}"
        raise EngineError("engine_spec", words + "; jobs name several of them with commas between")


def _checked_url(spec: ContainerSpec) -> str:
    try:
        url = http_address(spec.url)
    except BadAddress as error:
        raise _wrong(spec, f"url has to look like http://HOST:PORT: {error}") from error
    if url.endswith("/service_output"):
        raise _wrong(spec, "url is the address without /service_output")
    return url


def _network(spec: ContainerSpec, text: str) -> str:
    try:
        return str(ipaddress.ip_network(text.strip(), strict=False))
    except ValueError as error:
        raise _wrong(spec, f"allowed_ips are networks like 10.0.0.0/8, joined by +: {error}") from error


def _wrong(spec: ContainerSpec, words: str) -> EngineError:
    return EngineError("engine_spec", f"container {spec.id}: {words}")
