"""Webhook: post one message to its address, signed as Standard Webhooks says, and say what came of it.

The address is a stranger's: `kit.urlguard` looks at its spelling, at what its name resolves to and at the socket. No
redirect is followed, nothing is decompressed, and only the first bytes of the answer are read.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp

from comptoir import __version__
from comptoir.dispatch import Core
from comptoir.dispatch.outbox import OutboxLoop
from comptoir.dispatch.webhooks import DELIVERY_S, GONE, UNDER_WAY_MAX, Outgoing, WebhookActor
from comptoir.kit.clock import Clock
from comptoir.kit.errors import InvalidField
from comptoir.kit.ids import public
from comptoir.kit.sealing import SealBroken
from comptoir.kit.urlguard import AddressRefused, UrlGuard
from comptoir.outbox import Attempt, AttemptOutcome, Claimed
from comptoir.webhooks import MESSAGE, Webhook, Webhooks, signature

ANSWER_BYTES_KEPT = 256
"""First bytes of an answer, which the log of deliveries shows."""

ANSWER_S = 2.0
"""How long they may take to come after the status; what counts is the status."""

ERROR_CHARS_MAX = 200
"""Longest error that the log of deliveries shows."""


class WebhookPost:
    """Posts messages over one session."""

    def __init__(
        self,
        webhooks: Webhooks,
        clock: Clock,
        *,
        session: aiohttp.ClientSession,
        guard: UrlGuard,
        timeout_s: float = DELIVERY_S,
    ) -> None:
        self._webhooks = webhooks
        self._clock = clock
        self._session = session
        self._guard = guard
        self._timeout_s = timeout_s

    async def __call__(self, claimed: Claimed, webhook: Webhook) -> AttemptOutcome:
        """Post one message; every failure is an outcome. 2xx is success, 410 final."""
        at_ms, began_s = self._clock.now_ms(), self._clock.monotonic_s()
        status, retry_after_s, error, answer = 0, 0.0, "", ""
        try:
            async with asyncio.timeout(self._timeout_s):
                headers = await self._headers(claimed, at_s=at_ms // 1000)
                async with self._guard.request(
                    self._session, "POST", webhook.url, timeout_s=self._timeout_s, data=claimed.payload, headers=headers
                ) as response:
                    status = response.status
                    retry_after_s = _retry_after(response)
                    answer = await _first_bytes(response)
        except TimeoutError:
            # An address that has given its status and then dawdles has accepted the message, or not, all the same.
            error = "" if status else f"no answer within {self._timeout_s:g} s"
        except (InvalidField, SealBroken) as refused:
            error = f"not sent: {refused}"
        except aiohttp.ClientConnectorError as failed:
            refused_inside = isinstance(failed.os_error, AddressRefused)
            error = f"not sent: {failed.os_error}" if refused_inside else f"no connection: {failed.os_error}"
        except (aiohttp.ClientError, OSError) as failed:
            error = "" if status else f"the connection failed: {type(failed).__name__}"
        done = 200 <= status < 300
        if 300 <= status < 400:
            error = "redirects are not followed"
        took_ms = round((self._clock.monotonic_s() - began_s) * 1000)
        attempt = Attempt(at_ms, took_ms, status, error[:ERROR_CHARS_MAX], answer)
        return AttemptOutcome(attempt, done=done, final=status == GONE, retry_after_s=retry_after_s)

    async def _headers(self, claimed: Claimed, *, at_s: int) -> dict[str, str]:
        message_id = public(MESSAGE, claimed.id)
        signatures = [
            signature(secret, message_id=message_id, at_s=at_s, body=claimed.payload)
            for secret in await self._webhooks.secrets(claimed.lane)
        ]
        return {
            "content-type": "application/json",
            "user-agent": f"comptoir/{__version__}",
            "webhook-id": message_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": " ".join(signatures),
        }


async def _first_bytes(response: aiohttp.ClientResponse) -> str:
    """Return the beginning of an answer as text; nothing if it does not come in time."""
    found = bytearray()
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(ANSWER_S):
            while len(found) < ANSWER_BYTES_KEPT:
                piece = await response.content.read(ANSWER_BYTES_KEPT - len(found))
                if not piece:
                    break
                found += piece
    if not response.content.at_eof():
        response.close()  # The rest is not read, so the connection can't be used again.
    return bytes(found).decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0.0


@contextlib.asynccontextmanager
async def delivering(
    core: Core, *, timeout_s: float = DELIVERY_S, claim_s: float = 2 * DELIVERY_S
) -> AsyncIterator[OutboxLoop]:
    """Send messages to webhooks until the block ends."""
    out = core.state(Outgoing)
    session = aiohttp.ClientSession(
        connector=out.guard.connector(limit=UNDER_WAY_MAX), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )
    post = WebhookPost(out.webhooks, core.clock, session=session, guard=out.guard, timeout_s=timeout_s)
    alone = core.peers.cluster_status() is None
    loop = OutboxLoop(core, out.outbox, WebhookActor(core, post, claim_s=claim_s), alone=alone)
    out.begin(loop)
    running = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await loop.close()
        await session.close()
