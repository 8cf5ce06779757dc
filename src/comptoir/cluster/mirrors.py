"""Mirrors of other coordinators' jobs for readers here, and sending our jobs to readers elsewhere.

A mirror is a `LiveJob` about which nothing is decided here: frames and the end come from its owner. It may have been
our job (which moved to a remote host, or was taken over), and may become ours again; its readers notice neither. What
the owner sends has to continue exactly the frames that were shown here, compared by their running hash.
"""

import asyncio
import logging
from collections.abc import Iterable
from functools import partial

from comptoir.cluster.messages import Batch, Differs, Ended, Follow, Gone, Owned, Stop, Unfollow
from comptoir.cluster.switchboard import Switchboard
from comptoir.dispatch import Core
from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.recover import resume_job
from comptoir.dispatch.second_host import drop_hedge
from comptoir.jobs import (
    FINAL,
    RESTARTED,
    Fault,
    JobFinished,
    JobRow,
    JobState,
    LiveJob,
    Reader,
    UnknownJob,
)
from comptoir.kit.errors import Refusal, Unavailable
from comptoir.link import hash_over, hash_start

log = logging.getLogger(__name__)

FRAMES_A_MESSAGE = 2_048
"""Most frames of one message."""

SENT_BYTES_MAX = 8 * 1024 * 1024
"""Largest frame sent over the bus; an answer with a larger one is read from the database at its end."""

LOOK_S = 0.5
"""How often the database is asked about mirrored jobs that went silent, while the bus is down or unsure."""

QUIET_S = 5.0
"""A mirror without news for this long is looked up even while the bus is up, because messages may be lost."""

OWNER_WAIT_S = 10.0
"""How long a follower waits for a job to have an owner: longer than a dead one takes to be noticed and replaced."""


class Mirrors:
    """Other coordinators' jobs that are read here, and the readers elsewhere of ours."""

    def __init__(self, core: Core, switchboard: Switchboard) -> None:
        self._core = core
        self._board = switchboard
        self._loop = asyncio.get_running_loop()
        self._jobs = core.jobs.live.mirrors
        self._heard_s: dict[bytes, float] = {}
        self._stops: dict[bytes, str] = {}
        """Reasons for which mirrored jobs are to be stopped, sent to each new owner until the job is over."""
        self._served: dict[tuple[bytes, bytes], asyncio.Task[None]] = {}
        """Tasks that send to readers elsewhere, by coordinator and job."""
        switchboard.on(Batch, self._batch)
        switchboard.on(Ended, self._ended)
        switchboard.on(Gone, self._gone)
        switchboard.on(Differs, self._differs)
        switchboard.on(Owned, self._owned)
        switchboard.on(Follow, self._follow)
        switchboard.on(Unfollow, self._unfollow)
        switchboard.on(Stop, self._stop)
        switchboard.on_gap.append(self._follow_again)
        switchboard.on_change.append(self._bus_changed)

    # -- becoming and ceasing to be a mirror ---------------------------------------------------------------------

    def become_mirror(self, job: LiveJob, owner: bytes) -> None:
        """Make *job*, which was ours, a mirror of *owner*'s (empty: not yet known); its readers stay."""
        core = self._core
        if job.over or self._jobs.get(job.id) is job:
            if not job.over:
                self._attach(job, owner)
            return
        core.jobs.queue.remove(job.id)
        drop_hedge(core, job, "the job moved to another coordinator")
        lease = core.jobs.live.become_mirror(job, owner)
        if lease is not None:
            core.fleet.release(lease.host_id)
        core.state(Buyers).leave(job)
        if not core.jobs.live.leased:
            core.state(Shutdown).when_empty.set()
        self._attach(job, owner)

    def known(self, job_id: bytes) -> LiveJob | None:
        """Return the mirror of a job that is about to become ours, with the frames shown here."""
        return self._jobs.get(job_id)

    def expect(self, row: JobRow, owner: bytes) -> LiveJob:
        """Return the mirror of a job without frames that this coordinator is about to lease; create it if needed.

        A client that requests the job while the lease is being written gets this same object, so that it misses
        nothing.
        """
        known = self._jobs.get(row.id)
        if known is not None and not known.frames:
            known.note_restarts(row.restarts or 0)
            return known
        if known is not None:
            # Frames were shown here of an answer that was given up since.
            self._break_off(known)
        job = self._core.jobs.revived(row, now_s=self._core.clock.monotonic_s())
        self._core.jobs.live.add_mirror(job, owner)
        self._heard_s[job.id] = self._loop.time()
        return job

    def leave_to(self, job: LiveJob, owner: bytes) -> None:
        """The expected job stays *owner*'s: readers that arrived meanwhile follow it there."""
        if self._jobs.get(job.id) is job:
            self._attach(job, owner)

    async def resume_job(self, row: JobRow, *, tried: Iterable[bytes] = (), ceilings: Iterable[int] = ()) -> None:
        """Resume a job that has just become ours, with the frames that readers here have."""
        known = self._jobs.get(row.id)
        reason = self.adopt(known) if known is not None else ""
        job = await resume_job(self._core, row, known=known, tried=tried, ceilings=ceilings)
        if known is not None and job is not known:
            self._break_off(known)
        if reason and not job.over:
            self._core.background.spawn(self._cancel(job, reason))

    def adopt(self, job: LiveJob) -> str:
        """Make a mirror our job. Returns the reason for which it is to be stopped, empty if it is not."""
        reason = self._stops.get(job.id, "")
        self._forget(job)
        self._core.jobs.live.adopt(job)
        return reason

    async def follow(self, job: LiveJob) -> LiveJob:
        """Return a mirror of an unfinished job, as read from the database; create it if needed.

        Raises:
            Unavailable: it has no live owner, and none took it over within `OWNER_WAIT_S`.
        """
        known = self._jobs.get(job.id)
        if known is not None:
            return known
        self._core.jobs.live.add_mirror(job, b"")
        owner = await self._owner(job)
        mine = self._core.jobs.live.get(job.id)
        if mine is not None:
            # It became ours while its owner was looked up: a mirror beside it would never be told anything.
            if self._jobs.get(job.id) is job:
                self._forget(job)
            return mine
        if not job.over:
            self._attach(job, owner)
        return job

    async def _owner(self, job: LiveJob) -> bytes:
        try:
            async with asyncio.timeout(OWNER_WAIT_S):
                while True:
                    found = await self._core.jobs.whereabouts([job.id])
                    state, owner = found.get(job.id, ("", None))
                    if owner in self._board.here or state not in (JobState.QUEUED, JobState.RUNNING):
                        return owner or b""
                    if owner == self._core.node_id and self._core.jobs.live.get(job.id) is not None:
                        return b""
                    await asyncio.sleep(LOOK_S / 5)
        except TimeoutError:
            self._core.jobs.live.drop_mirror(job.id)
            raise Unavailable("the job is just being taken over; try again") from None

    # -- following -----------------------------------------------------------------------------------------------

    def _attach(self, job: LiveJob, owner: bytes) -> None:
        job.owned_by(owner)
        self._heard_s[job.id] = self._loop.time() if owner else 0.0
        if owner:
            self._board.send(owner, Follow(job.id, len(job.frames), job.running_hash))
            if job.id in self._stops:
                self._board.send(owner, Stop(job.id, self._stops[job.id]))

    def stop(self, job: LiveJob, reason: str) -> None:
        """Have the owner of a mirrored job cancel it, whichever coordinator that is by then."""
        self._stops[job.id] = reason
        if job.owner_node in self._board.here:
            self._board.send(job.owner_node, Stop(job.id, reason))

    def _mine(self, sender: bytes, job_id: bytes) -> LiveJob | None:
        job = self._jobs.get(job_id)
        if job is None or job.owner_node != sender:
            return None
        self._heard_s[job_id] = self._loop.time()
        return job

    def _batch(self, sender: bytes, message: Batch) -> None:
        job = self._mine(sender, message.job_id)
        if job is None:
            if message.job_id not in self._jobs:
                self._board.send(sender, Unfollow(message.job_id))
            return
        held = len(job.frames)
        job.follow_owner(
            JobState(message.state), host_id=message.host_id, started_ms=message.started_ms, restarts=message.restarts
        )
        if message.seq > held:
            self._attach(job, sender)
        elif message.seq + len(message.items) > held:
            job.append(message.items[held - message.seq :])

    def _ended(self, sender: bytes, message: Ended) -> None:
        job = self._mine(sender, message.job_id)
        if job is None:
            return
        if message.error_code == RESTARTED[0]:
            # A coordinator of before passes a mirror of its own on, and says that its readers' end is the job's.
            self._gone(sender, Gone(job.id))
            return
        if message.frames != len(job.frames):
            self._attach(job, sender)
            return
        job.end(
            JobState(message.state),
            cost_uusd=message.cost_uusd,
            usage=message.usage,
            finish_reason=message.finish_reason,
            fault=Fault(message.fault),
            error_code=message.error_code,
            error_message=message.error_message,
            error_status=message.error_status,
            error_body=message.error_body,
            retry_after_s=message.retry_after_s,
            host_id=message.host_id,
        )
        self._is_over(job)

    def _is_over(self, job: LiveJob) -> None:
        self._forget(job)
        self._core.jobs.live.retire(job)
        job.wake()

    def _forget(self, job: LiveJob) -> None:
        self._core.jobs.live.drop_mirror(job.id)
        self._heard_s.pop(job.id, None)
        self._stops.pop(job.id, None)
        if not self._core.jobs.live.open_answers:
            self._core.state(Shutdown).when_empty.set()

    def _break_off(self, job: LiveJob) -> None:
        """End the readers of an answer that was restarted: nothing can be added to theirs. The job continues."""
        self._forget(job)
        job.break_off()

    def _gone(self, sender: bytes, message: Gone) -> None:
        job = self._jobs.get(message.job_id)
        if job is not None and job.owner_node == sender:
            self._core.background.spawn(self._look([job]))

    def _differs(self, sender: bytes, message: Differs) -> None:
        job = self._mine(sender, message.job_id)
        if job is not None:
            self._break_off(job)

    def _owned(self, sender: bytes, message: Owned) -> None:
        for job_id in message.job_ids:
            live = self._core.jobs.live.get(job_id)
            if live is not None:
                self.become_mirror(live, sender)
            elif job_id in self._jobs:
                self._attach(self._jobs[job_id], sender)

    def _follow_again(self, sender: bytes) -> None:
        for job in list(self._jobs.values()):
            if job.owner_node == sender:
                self._attach(job, sender)

    def _bus_changed(self, up: bool) -> None:
        if up:
            for job in list(self._jobs.values()):
                if job.owner_node in self._board.here:
                    self._attach(job, job.owner_node)

    async def look(self) -> None:
        """Look up in the database the mirrors without recent news; call it every `LOOK_S`."""
        before = self._loop.time() - (QUIET_S if self._board.up else LOOK_S)
        quiet = [job for job_id, job in self._jobs.items() if self._heard_s.get(job_id, 0.0) < before]
        for first in range(0, len(quiet), 500):
            await self._look(quiet[first : first + 500])

    async def _look(self, jobs: list[LiveJob]) -> None:
        found = await self._core.jobs.whereabouts([job.id for job in jobs])
        for job in jobs:
            state, owner = found.get(job.id, ("", None))
            if self._jobs.get(job.id) is not job:
                continue
            if state not in (JobState.QUEUED, JobState.RUNNING):
                await self._read_end(job)
            elif owner is not None and owner != self._core.node_id and owner in self._board.here:
                self._attach(job, owner)
            elif owner == self._core.node_id:
                self._heard_s[job.id] = self._loop.time()

    async def _read_end(self, job: LiveJob) -> None:
        """Read the end of a job from the database: its message was lost, or its owner died."""
        try:
            row = await self._core.jobs.get(job.id)
        except UnknownJob:
            self._forget(job)
            return
        frames, details = await self._core.jobs.answer(job.id)
        if self._jobs.get(job.id) is not job or row.state not in FINAL:
            return
        held = len(job.frames)
        if len(frames) < held or hash_over(hash_start(job.id), frames[:held]) != job.running_hash:
            self._break_off(job)
            return
        job.note_restarts(row.restarts or 0)
        job.append(frames[held:])
        job.end_as_stored(row, details)
        self._is_over(job)

    # -- serving readers elsewhere -------------------------------------------------------------------------------

    def serve(self, node_id: bytes, job: LiveJob, *, start: int, running_hash: bytes) -> None:
        """Send the frames of *job* from *start* on to a coordinator, and its end."""
        key = node_id, job.id
        earlier = self._served.pop(key, None)
        if earlier is not None:
            earlier.cancel()
        task = self._loop.create_task(self._serve(node_id, job, start, running_hash))
        self._served[key] = task
        task.add_done_callback(partial(self._served_out, key))

    def _served_out(self, key: tuple[bytes, bytes], task: "asyncio.Task[None]") -> None:
        if self._served.get(key) is task:
            del self._served[key]
        if not task.cancelled() and task.exception() is not None:
            log.error("following job %s failed", key[1].hex(), exc_info=task.exception())

    async def _serve(self, node_id: bytes, job: LiveJob, start: int, running_hash: bytes) -> None:
        send = self._board.send
        if not await self._goes_on(job, start, running_hash):
            send(node_id, Gone(job.id) if job.broken_off else Differs(job.id))
            return
        reader = Reader(job, start=start)
        while (fresh := await reader.next()) is not None:
            if max(len(frame.text) + len(frame.extra) for frame in fresh) > SENT_BYTES_MAX:
                await job.ended()
                send(node_id, Gone(job.id))
                return
            seq = reader.at - len(fresh)
            for first in range(0, len(fresh), FRAMES_A_MESSAGE):
                part = fresh[first : first + FRAMES_A_MESSAGE]
                send(node_id, Batch(job.id, seq + first, part, job.state, job.host_id, job.started_ms, job.restarts))
        if job.broken_off:
            # It had become a mirror, whose readers here were ended; the job continues, and readers elsewhere look for
            # its owner.
            send(node_id, Gone(job.id))
        elif job.over:
            send(node_id, _end_of(job))

    async def _goes_on(self, job: LiveJob, start: int, running_hash: bytes) -> bool:
        """Tell whether the job continues the reader's frames; if the reader is ahead, wait for the job to catch up."""
        while len(job.frames) < start and not job.over:
            await Reader(job, start=len(job.frames)).next()
        if len(job.frames) == start:
            return job.running_hash == running_hash
        return len(job.frames) > start and (
            not start or hash_over(hash_start(job.id), job.frames[:start]) == running_hash
        )

    def _follow(self, sender: bytes, message: Follow) -> None:
        live = self._core.jobs.live
        job = live.get(message.job_id) or live.recent(message.job_id)
        if job is None:
            self._board.send(sender, Gone(message.job_id))
        elif job.over and message.start == len(job.frames):
            self._board.send(sender, _end_of(job) if job.running_hash == message.chain else Differs(job.id))
        else:
            self.serve(sender, job, start=message.start, running_hash=message.chain)

    def _unfollow(self, sender: bytes, message: Unfollow) -> None:
        task = self._served.pop((sender, message.job_id), None)
        if task is not None:
            task.cancel()

    def _stop(self, sender: bytes, message: Stop) -> None:
        job = self._core.jobs.live.get(message.job_id)
        if job is not None and not job.over and not job.closing:
            self._core.background.spawn(self._cancel(job, message.reason))
        elif job is None:
            self._board.send(sender, Gone(message.job_id))

    async def _cancel(self, job: LiveJob, reason: str) -> None:
        try:
            await cancel(self._core, job, reason=reason)
        except JobFinished:
            return  # Whoever requested it is told of that end.
        except Refusal as refusal:
            log.warning("job %s could not be stopped: %s", job.id.hex(), refusal)

    # -- dead coordinators ---------------------------------------------------------------------------------------

    def forget_node(self, node_id: bytes) -> None:
        """Send nothing more to a dead coordinator; look up its jobs in the database until they have a new owner."""
        for key in [key for key in self._served if key[0] == node_id]:
            self._served.pop(key).cancel()
        for job in self._jobs.values():
            if job.owner_node == node_id:
                self._heard_s[job.id] = 0.0

    async def close(self) -> None:
        """Send nothing more."""
        tasks = list(self._served.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _end_of(job: LiveJob) -> Ended:
    return Ended(
        job.id, job.state, len(job.frames), job.cost_uusd, job.usage, job.finish_reason, job.fault, job.error_code,
        job.error_message, job.error_status, job.error_body, job.retry_after_s, job.host_id, job.started_ms,
    )  # fmt: skip
