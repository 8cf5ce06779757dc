"""The channel to a host that registered an address. The job is posted there, and the answer is read as it comes.

Accepted are ``202`` and ``204`` (the host posts its frames and ends the job itself), and ``200`` with an answer in the
host's shape. A busy host is not at fault; any other answer, silence or a broken connection is the host's fault.
Addresses are checked again before each call and at the socket.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping

import aiohttp

from comptoir.dispatch import Core
from comptoir.dispatch.errors import AnswerTooLarge, BadFrame
from comptoir.events import HostHeard, HostRegistered
from comptoir.hosts import PUSH, Host
from comptoir.jobs import Fault, Lease, LiveJob, NotYourLease
from comptoir.kit.errors import InvalidField, Refusal
from comptoir.kit.ids import public
from comptoir.kit.urlguard import AnswerTooLong, UrlGuard
from comptoir.receipts import Receipt
from comptoir.transports.poll import PollChannel
from comptoir.transports.push.call import ERROR_CHARS_MAX, PushCall, PushFailed, Shape
from comptoir.transports.push.infrintia import InfrintiaPush
from comptoir.transports.push.native import NativePush

log = logging.getLogger(__name__)

SHAPES: tuple[Shape, ...] = (InfrintiaPush(), NativePush())
"""Shapes for push hosts; a new one is a module and an entry here."""

_BY_NAME: Mapping[str, Shape] = {shape.name: shape for shape in SHAPES}

CONNECTIONS_MAX = 1_000
"""Most concurrent calls; each is a socket."""

RETRY_AFTER_MAX_S = 3_600.0

BUSY = (429, 503)
"""Statuses of a busy host: capacity, not its fault."""


class PushChannel:
    """One host with an address. If it polls, jobs are given to its polls, and it is not called."""

    def __init__(
        self, core: Core, host: Host, shape: Shape, *, session: aiohttp.ClientSession, guard: UrlGuard
    ) -> None:
        self._core = core
        self._host = host
        self._shape = shape
        self._session = session
        self._guard = guard
        self._calls: dict[bytes, asyncio.Task[None]] = {}
        self.polls = PollChannel(core, host.id)

    # -- HostChannel
    # ----------------------------------------------------------------------------------------------------

    def send_job(self, job: LiveJob, lease: Lease) -> bool:
        """Start calling the host; False once the coordinator has closed its connections."""
        if self.polls.send_job(job, lease):
            return True
        if self._session.closed:
            return False
        task = asyncio.get_running_loop().create_task(self._call(PushCall(self._core, self._host, job, lease)))
        self._calls[lease.id] = task
        task.add_done_callback(lambda done: self._ended(lease.id, done))
        return True

    def raise_bound(self, job: LiveJob, lease: Lease) -> None:
        """Do nothing: the host knows the bound that came with the job."""

    def cancel(self, lease: Lease, reason: str) -> None:
        """Close the connection: the host stops."""
        self.polls.cancel(lease, reason)
        task = self._calls.pop(lease.id, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def settled(
        self,
        job: LiveJob,
        lease: Lease,
        *,
        state: str,
        earned_uusd: int,
        balance_uusd: int,
        promo_uusd: int = 0,
        receipt: Receipt | None = None,
    ) -> None:
        """Close the connection, if the job ended otherwise than by this answer."""
        self.cancel(lease, state)

    def turn_away(self, reason: str, *, for_good: bool) -> None:
        """Close all connections; the host is not called again."""
        self.polls.turn_away(reason, for_good=for_good)
        for task in list(self._calls.values()):
            task.cancel()

    def _ended(self, lease_id: bytes, task: "asyncio.Task[None]") -> None:
        self._calls.pop(lease_id, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("calling %s failed", public("host", self._host.id), exc_info=task.exception())

    async def close(self) -> None:
        """Close all connections; the jobs stay leased, and the next start resumes them."""
        calls = list(self._calls.values())
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    # -- one call ------------------------------------------------------------------------------------------------

    async def _call(self, call: PushCall) -> None:
        job, settings, shape = call.job, self._core.settings, self._shape
        url = self._host.row.endpoint_url or ""
        left_s = max(1.0, (job.deadline_ms - self._core.common_ms()) / 1000)
        why = PushFailed(f"no answer within {settings.push_timeout_s:g} s", status=504)
        try:
            async with asyncio.timeout(settings.push_timeout_s) as limit:
                async with self._guard.request(
                    self._session,
                    "POST",
                    url,
                    timeout_s=left_s,
                    data=shape.spell(call),
                    headers={"content-type": "application/json", "accept": shape.accept},
                ) as response:
                    limit.reschedule(None)
                    if self._core.fleet.find(self._host.id) is not None:
                        self._core.fleet.seen(self._host.id)
                    await self._take(response, call)
            return
        except NotYourLease:
            return  # Cancelled or lost meanwhile: what still arrives is ignored.
        except (AnswerTooLarge, BadFrame) as error:
            why = PushFailed(error.message)
        except TimeoutError:
            pass
        except PushFailed as failed:
            why = failed
        except Refusal as refusal:
            if not isinstance(refusal, InvalidField):
                log.warning("job %s could not be settled: %s", public("job", job.id), refusal)
                return  # The database is unavailable: the end is written when it is back.
            why = PushFailed(f"its address may not be called: {refusal}")
        except (aiohttp.ClientError, OSError) as broken:
            why = PushFailed(f"the connection failed: {type(broken).__name__}")
        except AnswerTooLong as large:
            why = PushFailed(str(large))
        await self._failed(call, why)

    async def _failed(self, call: PushCall, why: PushFailed) -> None:
        fault = Fault.CAPACITY if why.status in BUSY else Fault.HOST
        log.info("host %s: %s", public("host", self._host.id), why)
        try:
            await call.fail(
                code="host_busy" if fault is Fault.CAPACITY else "push_failed",
                message=f"the host: {why}",
                fault=fault,
                status=502,
                retry_after_s=why.retry_after_s,
            )
        except Refusal as refusal:
            log.warning("the failure of job %s could not be written: %s", public("job", call.job.id), refusal)

    async def _take(self, response: aiohttp.ClientResponse, call: PushCall) -> None:
        status = response.status
        if status in (202, 204):
            return  # The host posts its frames and ends the job itself.
        if status != 200:
            said = (await response.content.read(4 * ERROR_CHARS_MAX)).decode("utf-8", "replace")[:ERROR_CHARS_MAX]
            raise PushFailed(f"it answered {status}: {said}", status=status, retry_after_s=_retry_after(response))
        await self._shape.read(response, call)


def _retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), RETRY_AFTER_MAX_S) if text.isascii() and text.isdigit() else 0.0


@contextlib.asynccontextmanager
async def pushing(core: Core, guard: UrlGuard) -> AsyncIterator[None]:
    """Keep channels to all hosts with an address, stored or newly registered, until the block ends."""
    session = aiohttp.ClientSession(
        connector=guard.connector(limit=CONNECTIONS_MAX), cookie_jar=aiohttp.DummyCookieJar()
    )

    def reach(host: Host) -> None:
        shape = _BY_NAME.get(host.row.speaks or "")
        if host.row.transport == PUSH and host.id not in core.channels and shape is not None:
            core.channels[host.id] = PushChannel(core, host, shape, session=session, guard=guard)

    ends = [
        core.events.subscribe(HostRegistered, lambda event: reach(core.fleet.get(event.host_id))),
        # A host that registered at another coordinator and sends requests here now.
        core.events.subscribe(HostHeard, lambda event: reach(core.fleet.get(event.host_id))),
    ]
    for host in core.fleet:
        reach(host)
    try:
        yield
    finally:
        for end in ends:
            end()
        for channel in core.channels.values():
            if isinstance(channel, PushChannel):
                await channel.close()
        await session.close()
