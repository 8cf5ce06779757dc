"""Requests for one lease to whichever coordinator the worker is with, and what their refusals mean."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from comptoir.worker.addresses import Addresses
from comptoir.worker.backoff import Backoff
from comptoir.worker.engines.base import EngineError
from comptoir.worker.retry_after import read_retry_after

CONNECT_S = 10.0
"""Most seconds to connect to a coordinator."""
SILENCE_S = 30.0
"""Most seconds without a byte from a coordinator; then the transfer goes on over another connection."""
PATIENCE_S = 30.0
"""How long a coordinator is asked again that has no room, or does not know the lease: one that has just started learns
of it when this host's link is back, and where the lease is really gone, the link says so first."""
PAUSE_MAX_S = 30.0
"""Longest pause before the next try, whatever a coordinator asks for."""
ERROR_BYTES_MAX = 64 * 1024

NOT_FOUND, CONFLICT, NO_ROOM = 404, 409, 507
LATER = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""
KEY_REFUSED = (401, 403)
UNKNOWN = "file_unknown"
"""Code of an `EngineError`: the coordinator has no such file, or can't go on with it."""


class Unreached(Exception):
    """This try came to nothing, and the next may not; *wait_s*: no sooner than that."""

    def __init__(self, why: str, *, wait_s: float = 0.0, at_last: EngineError | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s
        self.at_last = at_last
        """What becomes of the job if that is all one hears for `PATIENCE_S`; None: it is tried until the deadline."""


class Trying:
    """How long one transfer is tried again: until the job's deadline, with growing pauses while nothing comes of it."""

    def __init__(self, until_s: float, backoff: Callable[[], Backoff]) -> None:
        self._until_s = until_s
        self._fresh = backoff
        self._backoff = backoff()
        self._since_s = float("inf")

    def progressed(self) -> None:
        """Note that something came of it: pauses begin small again."""
        self._backoff = self._fresh()
        self._since_s = float("inf")

    async def again(self, reason: Unreached) -> None:
        """Pause before the next try.

        Raises:
            EngineError: there is no time left, or no patience.
        """
        now_s = asyncio.get_running_loop().time()
        self._since_s = min(self._since_s, now_s) if reason.at_last is not None else float("inf")
        if reason.at_last is not None and now_s - self._since_s >= PATIENCE_S:
            raise reason.at_last
        pause_s = max(self._backoff.next_s(), min(reason.wait_s, PAUSE_MAX_S))
        if now_s + pause_s >= self._until_s:
            why = f"the coordinator could not be reached before the job's deadline: {reason}"
            raise EngineError("coordinator_away", why, fault="coordinator")
        await asyncio.sleep(pause_s)


class _ErrorFacts(msgspec.Struct):
    code: str = ""
    message: str = ""


class _ErrorBody(msgspec.Struct):
    error: _ErrorFacts = msgspec.field(default_factory=_ErrorFacts)


class LeaseCalls:
    """What a host may ask for under one lease, with the host's key.

    The address is the one that the link uses now: where that moves to another coordinator, the next request follows.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        addresses: Addresses,
        key: str,
        job: str,
        lease: str,
        until_s: float,
        backoff: Callable[[], Backoff],
    ) -> None:
        """*job* and *lease* as ``job_…`` and ``att_…``; *until_s*: when trying ends, on the event loop's clock."""
        self._session = session
        self._addresses = addresses
        self._path = f"/house/host/jobs/{job}"
        self._headers = {"Authorization": f"Bearer {key}", "X-Comptoir-Lease": lease, "Accept-Encoding": "identity"}
        self.until_s = until_s
        self._backoff = backoff

    def trying(self) -> Trying:
        """Begin a transfer."""
        return Trying(self.until_s, self._backoff)

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], data: Any = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request; give its answer if the status is 2xx.

        Raises:
            Unreached: no answer, half an answer (also while the caller reads it), or one that says to come later.
            EngineError: the answer is a refusal.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        url = self._addresses.current + self._path + path
        try:
            async with self._session.request(
                method, url, headers={**self._headers, **headers}, data=data, timeout=timeout, allow_redirects=False
            ) as response:
                if not 200 <= response.status < 300:
                    raise await _refusal(response)
                yield response
        except TimeoutError as error:
            raise Unreached(f"it was silent for {SILENCE_S:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreached(str(error) or type(error).__name__) from error


async def _refusal(response: aiohttp.ClientResponse) -> Unreached | EngineError:
    """Say what an answer with an error means for the job."""
    status, facts = response.status, await _facts(response)
    said = f"HTTP {status}" + (f": {facts.message}" if facts.message else "")
    wait_s = read_retry_after(response.headers)
    if facts.code == "OffsetMismatch":
        return Unreached(said)  # What we sent before a cut may still arrive.
    if status == CONFLICT:
        lost = EngineError("lease_lost", f"the coordinator does not know the lease ({said})", fault="coordinator")
        return Unreached(said, wait_s=wait_s, at_last=lost)
    if facts.code == "NoRoomForArtifact":
        return EngineError("artifact_refused", facts.message, fault="buyer", status=status)
    if status == NO_ROOM:
        full = EngineError("store_full", f"the coordinator has no room ({said})", fault="capacity", status=status)
        return Unreached(said, wait_s=wait_s, at_last=full)
    if status in LATER:
        return Unreached(said, wait_s=wait_s)
    if status in KEY_REFUSED:
        return EngineError("key_refused", f"the coordinator refuses this host's key ({said})", status=status)
    code = UNKNOWN if status == NOT_FOUND or facts.code == "TooManyParts" else "coordinator_refused"
    return EngineError(code, f"the coordinator refused ({said})", fault="coordinator", status=status)


async def _facts(response: aiohttp.ClientResponse) -> _ErrorFacts:
    body = await response.content.read(ERROR_BYTES_MAX)
    while len(body) < ERROR_BYTES_MAX and (more := await response.content.readany()):
        body += more
    try:
        return msgspec.json.decode(body, type=_ErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _ErrorFacts()
