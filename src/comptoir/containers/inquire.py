"""Inquire: ask the containers on offer whether they support a model, over their hosts' links, and cache the answers.

Containers that only remote hosts serve are asked through their coordinators.
"""

import asyncio
from collections import OrderedDict
from typing import NamedTuple, Protocol, runtime_checkable

from comptoir.containers.remote import RemoteContainers
from comptoir.dispatch import Core, State

WAIT_S = 0.04
"""How long to wait for an answer; Infernet's own client gives up after one second, and later answers are cached."""

HOST_ANSWERS_S = 5.0
"""How long a host has to relay its container's answer; a worker gives the container half a second less."""

HOSTS_ASKED_MAX = 4
"""Most hosts of a container that are asked in turn, until one of them answers."""

FRESH_S = 30.0
"""How long a cached answer is returned without asking again."""

ANSWERS_MAX = 10_000
"""Answers cached; with more models than that, some are asked again."""


class SupportAnswer(NamedTuple):
    """A container's answer."""

    body: bytes
    """JSON; empty: it gave no answer."""
    at_s: float


class SupportCache(State):
    """Answers by container and model; the oldest are dropped first."""

    def __init__(self, core: Core) -> None:
        self._answers: OrderedDict[tuple[str, str], SupportAnswer] = OrderedDict()
        self.asking: dict[tuple[str, str], asyncio.Task[None]] = {}
        """Queries in progress: a container is not asked the same twice at a time."""

    def __len__(self) -> int:
        return len(self._answers)

    def note(self, container: str, model_id: str, body: bytes, *, now_s: float) -> None:
        """Cache an answer."""
        key = container, model_id
        self._answers[key] = SupportAnswer(body, now_s)
        self._answers.move_to_end(key)
        if len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)

    def known(self, container: str, model_id: str) -> bytes:
        """Return the last answer, however old; empty: there is none."""
        found = self._answers.get((container, model_id))
        return found.body if found is not None else b""

    def is_fresh(self, container: str, model_id: str, *, now_s: float) -> bool:
        """Tell whether the answer is recent enough not to ask again."""
        found = self._answers.get((container, model_id))
        return found is not None and now_s - found.at_s < FRESH_S


@runtime_checkable
class AnswersInquiries(Protocol):
    """A channel over which containers can be asked."""

    def inquire(self, container: str, model_id: str) -> "asyncio.Future[bytes]":
        """Ask; the answer is JSON, empty if none came."""
        ...


async def model_support(core: Core, model_id: str) -> dict[str, bytes]:
    """Return what each container on offer answers about *model_id*: JSON by container, empty if there is no answer yet.

    Takes about `WAIT_S` at most: unknown answers and those older than `FRESH_S` are requested, and if they are late the
    last known ones are returned.
    """
    now_s = core.clock.monotonic_s()
    names = [summary.name for summary in core.fleet.catalog.containers()]
    stale = [name for name in names if not core.state(SupportCache).is_fresh(name, model_id, now_s=now_s)]
    asked = [_asking(core, name, model_id) for name in stale]
    if asked:
        await asyncio.wait(asked, timeout=WAIT_S)
    return {name: core.state(SupportCache).known(name, model_id) for name in names}


def _asking(core: Core, container: str, model_id: str) -> "asyncio.Task[None]":
    asking, key = core.state(SupportCache).asking, (container, model_id)
    task = asking.get(key)
    if task is None:
        task = asking[key] = asyncio.get_running_loop().create_task(_ask(core, container, model_id))
        task.add_done_callback(lambda _: asking.pop(key, None))
    return task


async def _ask(core: Core, container: str, model_id: str) -> None:
    hosts = sorted(core.fleet.with_container(container), key=lambda each: each.remote)
    reached = [candidate for candidate in hosts if candidate.remote or candidate.host_id in core.channels]
    for candidate in reached[:HOSTS_ASKED_MAX]:
        if candidate.remote:
            body = await core.state(RemoteContainers).inquiries.inquire(candidate.host_id, container, model_id)
        else:
            body = await _host_says(core, candidate.host_id, container, model_id)
        if body:
            core.state(SupportCache).note(container, model_id, body, now_s=core.clock.monotonic_s())
            return


async def ask_here(core: Core, host_id: bytes, container: str, model_id: str) -> bytes:
    """Return what a container of a host linked here answers about a model; empty: nothing, or the host is not here."""
    if core.state(SupportCache).is_fresh(container, model_id, now_s=core.clock.monotonic_s()):
        return core.state(SupportCache).known(container, model_id)
    body = await _host_says(core, host_id, container, model_id)
    if body:
        core.state(SupportCache).note(container, model_id, body, now_s=core.clock.monotonic_s())
    return body


async def _host_says(core: Core, host_id: bytes, container: str, model_id: str) -> bytes:
    channel: object = core.channels.get(host_id)
    if not isinstance(channel, AnswersInquiries):
        return b""
    try:
        return await asyncio.wait_for(channel.inquire(container, model_id), HOST_ANSWERS_S)
    except TimeoutError:
        return b""
