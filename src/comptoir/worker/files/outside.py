"""Inputs that are addresses: fetched by the host itself, through the guard for strangers' URLs, once."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

import aiohttp

from comptoir.kinds.files import Fetched, InputFile
from comptoir.kit.errors import InvalidField
from comptoir.kit.urlguard import AddressRefused, UrlGuard
from comptoir.worker.backoff import Backoff
from comptoir.worker.engines.base import EngineError
from comptoir.worker.files.arriving import Arriving
from comptoir.worker.files.calls import LATER, Unreached
from comptoir.worker.files.inputs import goes_on
from comptoir.worker.retry_after import read_retry_after

ADDRESS_S = 900.0
"""Most seconds to fetch one input from an address, all tries together."""
ADDRESS_SILENCE_S = 30.0
"""Most seconds to wait for the next byte from an address."""
ADDRESS_TRIES = 4
"""How often an address is asked that cuts its answer, is busy, or can't be reached."""
ADDRESS_PAUSE_MAX_S = 30.0
"""Longest pause before it is asked again, whatever it says."""
REDIRECTS_MAX = 5
"""Redirects that are followed to one input; each is judged by the guard like the address itself."""

_OK, _PARTIAL = 200, 206
_MOVED = (301, 302, 303, 307, 308)


class Outside:
    """Fetches from addresses that buyers name. Bytes are taken as they are stored there, never decompressed."""

    def __init__(self, guard: UrlGuard, backoff: Callable[[], Backoff]) -> None:
        self._guard = guard
        self._backoff = backoff
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close its connections; idempotent."""
        if self._session is not None:
            await self._session.close()

    async def fetch(self, number: int, asked: InputFile, path: Path, *, bytes_max: int, until_s: float) -> Fetched:
        """Fetch input *number* into *path*.

        Goes on after a cut where the other side names what it sends by a strong ETag, else begins again.

        Args:
            bytes_max: what this host takes of it.
            until_s: when the job's time is up, on the event loop's clock.

        Raises:
            EngineError: ``buyer`` if the address has nothing to give, must not be called, gives something else than
                the order says, or takes too long; ``capacity`` if this host has no room for it.
        """
        size_max = bytes_max if asked.size is None else asked.size
        arriving = Arriving(
            path, bytes_max=min(size_max, bytes_max), too_long=lambda: _too_long(number, asked, bytes_max)
        )
        arriving.open()
        try:
            now_s = asyncio.get_running_loop().time()
            await self._try(number, asked.url, arriving, until_s=min(until_s, now_s + ADDRESS_S))
        finally:
            arriving.close()
        if asked.size is not None and arriving.size != asked.size:
            raise _not_had(number, f"has {arriving.size} bytes, and the order says {asked.size}")
        if asked.sha256 is not None and arriving.sha256 != asked.sha256:
            raise _not_had(number, f"has the SHA-256 {arriving.sha256}, and the order says {asked.sha256}")
        return Fetched(number, arriving.size, arriving.sha256)

    async def _try(self, number: int, url: str, arriving: Arriving, *, until_s: float) -> None:
        loop, backoff, tag = asyncio.get_running_loop(), self._backoff(), _Tag()
        for left in reversed(range(ADDRESS_TRIES)):
            try:
                return await self._fetch(number, url, arriving, tag=tag, until_s=until_s)
            except Unreached as reason:
                pause_s = min(max(backoff.next_s(), reason.wait_s), ADDRESS_PAUSE_MAX_S)
                if not left or loop.time() + pause_s >= until_s:
                    raise _not_had(number, f"can't be fetched: {reason}") from reason
            await asyncio.sleep(pause_s)

    async def _fetch(self, number: int, url: str, arriving: Arriving, *, tag: "_Tag", until_s: float) -> None:
        """Follow redirects to the content, and take it."""
        for _ in range(REDIRECTS_MAX + 1):
            moved = await self._ask(number, url, arriving, tag=tag, until_s=until_s)
            if not moved:
                return
            if urlsplit(url).scheme == "https" and urlsplit(moved).scheme != "https":
                raise _not_had(number, "leads from HTTPS to an address without it")
            url = moved
        raise _not_had(number, f"leads on more than {REDIRECTS_MAX} times")

    async def _ask(self, number: int, url: str, arriving: Arriving, *, tag: "_Tag", until_s: float) -> str:
        """Take what is there; return where it has moved to, empty if it has not."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._guard.connector(), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            )
        headers = {"Accept-Encoding": "identity", "Accept": "*/*", "User-Agent": "comptoir-host"}
        if arriving.size and tag.value:
            headers |= {"Range": f"bytes={arriving.size}-", "If-Range": tag.value}
        left_s = max(0.001, until_s - asyncio.get_running_loop().time())
        try:
            async with self._guard.request(
                self._session, "GET", url, timeout_s=left_s, silence_s=ADDRESS_SILENCE_S, headers=headers
            ) as response:
                if response.status in _MOVED and "Location" in response.headers:
                    return urldefrag(urljoin(url, response.headers["Location"])).url
                _check_answer(number, response)
                if not (tag.value and goes_on(response, arriving.size)):
                    arriving.restart()
                tag.note(response)
                await arriving.take(response)
                return ""
        except InvalidField as error:
            raise _not_had(number, f"must not be fetched: it {error.message}") from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, AddressRefused):
                raise _not_had(number, "must not be fetched: it points into a private network") from error
            raise Unreached("it can't be reached") from error
        except TimeoutError as error:
            raise Unreached("it took too long") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreached(f"its answer broke off or is none ({type(error).__name__})") from error


class _Tag:
    """What the other side calls the content that it began to send; empty: nothing that one can hold it to."""

    def __init__(self) -> None:
        self.value = ""

    def note(self, response: aiohttp.ClientResponse) -> None:
        said = response.headers.get("ETag", "")
        self.value = said if said.startswith('"') else ""


def _check_answer(number: int, response: aiohttp.ClientResponse) -> None:
    if response.status in LATER:
        raise Unreached(f"it answers HTTP {response.status}", wait_s=read_retry_after(response.headers))
    if response.status not in (_OK, _PARTIAL):
        raise _not_had(number, f"answers HTTP {response.status}")
    if (encoding := response.headers.get("Content-Encoding", "identity").lower()) != "identity":
        raise _not_had(number, f"is sent in the encoding {encoding[:40]!r}, although none was asked for")


def _too_long(number: int, asked: InputFile, bytes_max: int) -> EngineError:
    if asked.size is not None and asked.size <= bytes_max:
        return _not_had(number, f"has more than the {asked.size} bytes that the order says")
    return EngineError("inputs_too_large", f"this host takes {bytes_max} bytes of input {number}", fault="capacity")


def _not_had(number: int, why: str) -> EngineError:
    return EngineError("input_not_had", f"the address of input {number} {why}", fault="buyer")
