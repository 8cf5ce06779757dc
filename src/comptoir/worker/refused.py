"""Why a coordinator refuses this host's key: asked with a pulse, since the refusal of a WebSocket carries no reason."""

import asyncio

import aiohttp
import msgspec

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
    try:
        async with (
            asyncio.timeout(ASK_S),
            session.post(url + "/link/pulse", data=b"{}", headers=headers) as answer,
        ):
            body = await answer.content.read(ANSWER_BYTES_MAX)
        return msgspec.json.decode(body, type=_RefusedPulse).error
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
        return WhyRefused()
