"""Poll: a host requests work and waits. The channel of hosts that can't be called and hold a request open instead.

A host gets jobs only while one of its requests waits; the job goes to the oldest of them. From the moment that routing
reserves a waiting request until the lease is durable, the request is *promised* and does not time out. A request whose
client hung up loses no job.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.core import Core
from comptoir.dispatch.deferred_settlements import retry_when_db_returns
from comptoir.dispatch.drain import Shutdown
from comptoir.hosts import LINK, OFFLINE, Host
from comptoir.jobs import Fault, Lease, LiveJob
from comptoir.kit.errors import NotAllowed, TooManyRequests, Unavailable
from comptoir.receipts import Receipt

POLLS_PER_HOST_MAX = 256
"""Most waiting requests of one host; each costs a connection and a few kilobytes."""

TURN_S = 1.0
"""How often a waiting request checks for a drain, and for waiting requests that routing no longer counts."""

PROMISED_S = 5.0
"""How much longer a request with a promised job is held; far longer than a commit takes."""

PROMISED_TURN_S = 0.01


class Poll:
    """One waiting request."""

    __slots__ = ("answer", "ends_s", "gone", "timer")

    def __init__(self, ends_s: float) -> None:
        self.answer: asyncio.Future[tuple[LiveJob, Lease] | None] = asyncio.get_running_loop().create_future()
        self.ends_s = ends_s
        """Event loop time at which it ends without a job."""
        self.gone = False
        """Whether its client hung up."""
        self.timer: asyncio.TimerHandle | None = None


class PollChannel:
    """The waiting requests of one host, oldest first."""

    def __init__(self, core: Core, host_id: bytes) -> None:
        self._core = core
        self._host_id = host_id
        self._polls: deque[Poll] = deque()
        self._handed: set[bytes] = set()
        """Leases given to the host that may still be open."""
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._polls)

    # -- HostChannel
    # ----------------------------------------------------------------------------------------------------

    def send_job(self, job: LiveJob, lease: Lease) -> bool:
        """Answer the oldest waiting request with the job; False if none is waiting."""
        while self._polls:
            poll = self._polls.popleft()
            if not poll.answer.done():
                self._handed.add(lease.id)
                poll.answer.set_result((job, lease))
                return True
        return False

    def cancel(self, lease: Lease, reason: str) -> None:
        """Do nothing: the host learns that the lease is closed when it delivers its next piece."""
        self._handed.discard(lease.id)

    def raise_bound(self, job: LiveJob, lease: Lease) -> None:
        """Do nothing: the host knows the bound that came with the job."""

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
        """Forget the lease; the host is told by the answer to its own request."""
        self._handed.discard(lease.id)

    def turn_away(self, reason: str, *, for_good: bool) -> None:
        """End every waiting request without a job; the next one is refused with the reason."""
        for poll in list(self._polls):
            if not poll.answer.done():
                self._withdraw(poll)

    # -- waiting -------------------------------------------------------------------------------------------------

    async def wait(self, *, wait_s: float, watch: Callable[[Callable[[], None]], None]) -> tuple[LiveJob, Lease] | None:
        """Wait for a job; None when *wait_s* passed, the client hung up, or the coordinator drains.

        The lease is durable when this returns it.

        Args:
            watch: called with the function to call when the client hangs up.

        Raises:
            TooManyRequests: the host has too many requests waiting.
        """
        if len(self._polls) >= POLLS_PER_HOST_MAX:
            raise TooManyRequests(f"{POLLS_PER_HOST_MAX} requests of this host wait already", retry_after_s=1.0)
        poll = Poll(self._loop.time() + wait_s)
        self._polls.append(poll)
        watch(lambda: self._hang_up(poll))
        poll.timer = self._loop.call_later(min(wait_s, TURN_S), self._turn, poll)
        try:
            self._core.fleet.poll_began(self._host_id)
            answer = await poll.answer
        except BaseException:
            # The request was cancelled from outside (the server stops), so it must not get a job any more.
            self._hang_up(poll)
            raise
        finally:
            poll.timer.cancel()
        if answer is not None and poll.gone:
            job, lease = answer
            gone = partial(revoke_lease, self._core, job, lease, "its poll hung up", fault=Fault.NONE, reached=False)
            self._core.background.spawn(retry_when_db_returns(self._core, job, gone))
            return None
        return answer

    def _hang_up(self, poll: Poll) -> None:
        poll.gone = True
        if not poll.answer.done():
            self._withdraw(poll)

    def _withdraw(self, poll: Poll) -> None:
        self._polls.remove(poll)
        if self._core.fleet.find(self._host_id) is not None:
            self._core.fleet.poll_ended(self._host_id)
        if not poll.answer.done():
            poll.answer.set_result(None)

    def _turn(self, poll: Poll) -> None:
        if poll.answer.done():
            return
        now_s = self._loop.time()
        left_s = poll.ends_s - now_s
        host = self._core.fleet.find(self._host_id)
        if host is None or self._core.state(Shutdown).draining:
            self._withdraw(poll)
            return
        if left_s <= 0 and (left_s <= -PROMISED_S or not self._all_promised(host)):
            self._withdraw(poll)
            return
        self._recount(host)
        assert poll.timer is not None
        poll.timer = self._loop.call_later(min(left_s, TURN_S) if left_s > 0 else PROMISED_TURN_S, self._turn, poll)

    def _all_promised(self, host: Host) -> bool:
        """Whether every waiting request is reserved for a job that is being leased."""
        return host.slots.waiting == 0 and host.status != OFFLINE

    def _recount(self, host: Host) -> None:
        """Count requests as waiting again whose promised job never came (it was cancelled meanwhile)."""
        if host.slots.waiting is None:
            return
        by_lease = self._core.jobs.live.by_lease
        self._handed = {lease for lease in self._handed if by_lease(lease) is not None}
        on_their_way = host.slots.running - len(self._handed)
        for _ in range(len(self._polls) - on_their_way - host.slots.waiting):
            self._core.fleet.poll_began(host.id)


def poll_channel(core: Core, host: Host) -> PollChannel:
    """Return the channel in which a host's requests wait; created with the first of them, and kept.

    Raises:
        NotAllowed: the host has a link of its own.
    """
    if host.row.transport == LINK:
        raise NotAllowed("this host is given its jobs over its link")
    channel = core.channels.get(host.id)
    if channel is None:
        channel = core.channels[host.id] = PollChannel(core, host.id)
    polls = channel if isinstance(channel, PollChannel) else getattr(channel, "polls", None)
    assert isinstance(polls, PollChannel), "a host without a link has a channel with room for polls"
    return polls


async def wait_for_job(
    core: Core, host: Host, *, speaks: str, wait_s: float | None, watch: Callable[[Callable[[], None]], None]
) -> tuple[LiveJob, Lease] | None:
    """Wait until *host* gets a job, at most *wait_s* and ``next_job_wait_s``; None: none came. See `PollChannel.wait`.

    Raises:
        Unavailable: this coordinator is shutting down.
        NotAllowed: the host has a link of its own, or registered in another shape than *speaks*.
        TooManyRequests: the host has too many requests waiting.
    """
    if core.state(Shutdown).draining:
        raise Unavailable("this coordinator is shutting down; ask again in a moment", retry_after_s=2.0)
    channel = poll_channel(core, host)
    if host.row.speaks != speaks:
        raise NotAllowed(f"this host registered for jobs in the shape {host.row.speaks}: ask where it registered")
    longest = core.settings.next_job_wait_s
    return await channel.wait(wait_s=longest if wait_s is None else min(wait_s, longest), watch=watch)
