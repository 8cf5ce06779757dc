"""Looks for OpenAI-compatible servers on this machine, on the ports their projects use by default."""

import asyncio
from collections.abc import Collection

import aiohttp
import msgspec

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.openai_upstream import fetch_models

PORTS: tuple[tuple[int, str], ...] = (
    (8000, "vLLM"),
    (30000, "SGLang"),
    (8081, "llama.cpp"),
    (8080, "llama.cpp"),
    (11434, "Ollama"),
    (1234, "LM Studio"),
    (3000, "TGI"),
)
"""Default port and whose it is; only a name for people, as any server may sit on any port."""

PROBE_TIMEOUT_S = 0.3
"""Most seconds for one probe; all run at once."""

OWN_NAME = "comptoir"
"""What a coordinator of ours puts into ``owned_by``: buying from oneself would go round in circles."""


class LocalServer(msgspec.Struct, frozen=True):
    """A server that answered."""

    base_url: str
    product: str
    models: list[str]


async def discover_local(
    *, skip_ports: Collection[int] = (), ports: tuple[tuple[int, str], ...] = PORTS
) -> list[LocalServer]:
    """Return the servers that list at least one model on 127.0.0.1, in the order of *ports*.

    *skip_ports* names the coordinator's own port. A server that is slow, wants a key, or is something else is left out.
    """
    async with aiohttp.ClientSession() as session:
        found = await asyncio.gather(*(_probe(session, port, name) for port, name in ports if port not in skip_ports))
    return [server for server in found if server is not None]


async def _probe(session: aiohttp.ClientSession, port: int, product: str) -> LocalServer | None:
    base = f"http://127.0.0.1:{port}/v1"
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            models = await fetch_models(session, base)
    except (EngineError, TimeoutError):
        # Nothing there, or nothing of use: exactly what a probe is for.
        return None
    if not models or any(model.owned_by == OWN_NAME for model in models):
        return None
    return LocalServer(base, product, [model.id for model in models])
