"""Why a coordinator refuses this host's key, or its link: asked anew, since the refusal of a WebSocket carries no
reason."""

import asyncio

import aiohttp
import msgspec

from comptoir.kit.upgrade import PASS_UPGRADE_ON

NO_WEBSOCKET = frozenset((400, 404, 405, 426, 501))
"""Statuses of a coordinator, or a proxy, that saw no request for a WebSocket."""

SUSPENDED = frozenset(("HostSuspended", "UserSuspended"))
"""Codes of refusals that the operator may lift."""

EXPIRED = "HostExpired"
"""Code of the refusal of a host that was retired because nobody had heard it; it may register again."""

ASK_S = 5.0
"""Most seconds for the question."""

ANSWER_BYTES_MAX = 64 * 1024


class WhyRefused(msgspec.Struct, frozen=True):
    """What the coordinator says; both empty if it gave no reason that is understood."""

    code: str = ""
    message: str = ""


class _RefusedPulse(msgspec.Struct):
    error: WhyRefused = WhyRefused()


async def why_refused(session: aiohttp.ClientSession, url: str, key: str) -> WhyRefused:
    """Ask the coordinator at *url* why it does not accept *key*; never fails."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return await _error_of(session.post(url + "/link/pulse", data=b"{}", headers=headers))


async def why_no_link(session: aiohttp.ClientSession, address: str, status: int) -> str:
    """Return why the WebSocket at *address* was refused with *status*; never fails.

    A coordinator that got a request without ``Upgrade`` says what its proxy needs; an older one says that nothing is
    there.
    """
    if status not in NO_WEBSOCKET:
        return f"the coordinator answered HTTP {status}"
    said = (await _error_of(session.get(address))).message if status == 426 else ""
    why = said or f"there is no coordinator, or the request for a WebSocket did not reach it: {PASS_UPGRADE_ON}"
    return f"{address} answered HTTP {status}: {why}"


async def _error_of(asking: "aiohttp.client._RequestContextManager") -> WhyRefused:
    try:
        async with asyncio.timeout(ASK_S), asking as answer:
            body = await answer.content.read(ANSWER_BYTES_MAX)
        return msgspec.json.decode(body, type=_RefusedPulse).error
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError):
        return WhyRefused()
