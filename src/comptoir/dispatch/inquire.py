"""Inquire: ask the containers on offer whether they support a model, through their hosts' links, and answer from memory."""

import asyncio
import contextlib
from typing import Protocol, runtime_checkable

import msgspec

from comptoir.dispatch.house import House

WAIT_S = 0.04
"""How long an answer is waited for; Infernet's own client gives up after one second, and what comes later is remembered."""

ASK_S = 5.0
"""How long a host's answer is waited for before the next one is asked; its worker says at the latest then that there is none."""

SAID_BYTES_MAX = 64 * 1024
"""Most bytes of what a container says of itself or of a model."""

SAID_OF_HOST_BYTES_MAX = 1024 * 1024
"""Most bytes of what all containers of one host say of themselves; anybody may register a host."""

_is_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def is_said(body: bytes) -> bool:
    """Tell whether *body* can be handed on as a container's words: a JSON object of a size that fits."""
    if not body or len(body) > SAID_BYTES_MAX:
        return False
    try:
        _is_object(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


@runtime_checkable
class Asks(Protocol):
    """A line that containers can be asked over."""

    def inquire(self, container: str, model_id: str) -> "asyncio.Future[bytes]":
        """Ask; the answer is JSON, empty if none came."""
        ...


async def model_support(house: House, model_id: str) -> dict[str, bytes]:
    """Return what each container on offer says of *model_id*: JSON by container, empty where it has not answered yet.

    Within some `WAIT_S`: what is older than `support.FRESH_S`, or not known, is asked for, and the last that was known is
    given where the answer is late.
    """
    now_s = house.clock.monotonic_s()
    names = [summary.name for summary in house.fleet.catalog.containers()]
    stale = [name for name in names if not house.support.is_fresh(name, model_id, now_s=now_s)]
    asked = [_asking(house, name, model_id) for name in stale]
    if asked:
        await asyncio.wait(asked, timeout=WAIT_S)
    return {name: house.support.known(name, model_id) for name in names}


def _asking(house: House, container: str, model_id: str) -> "asyncio.Task[None]":
    asking, key = house.support.asking, (container, model_id)
    task = asking.get(key)
    if task is None:
        task = asking[key] = asyncio.get_running_loop().create_task(_ask(house, container, model_id))
        task.add_done_callback(lambda _: asking.pop(key, None))
    return task


async def _ask(house: House, container: str, model_id: str) -> None:
    for candidate in house.fleet.with_container(container):
        line: object = house.lines.get(candidate.host_id)
        if isinstance(line, Asks):
            body = b""
            with contextlib.suppress(TimeoutError):
                body = await asyncio.wait_for(line.inquire(container, model_id), ASK_S)
            if body:
                house.support.note(container, model_id, body, now_s=house.clock.monotonic_s())
                return
