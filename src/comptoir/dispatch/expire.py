"""Expire: sweep leases, deadlines and silent hosts. None of this depends on a client's next request."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from comptoir.dispatch.assign import spec_of, wait_here
from comptoir.dispatch.bonds import return_bonds
from comptoir.dispatch.cancel import tell_host_to_stop
from comptoir.dispatch.core import Core, State
from comptoir.dispatch.duties import Duties, Duty
from comptoir.dispatch.endings import no_host_here, nobody_left
from comptoir.dispatch.expire_hosts import retire_silent_hosts
from comptoir.dispatch.files import Files
from comptoir.dispatch.moderate import FOLLOW_EVERY, follow_acts
from comptoir.dispatch.newcomers import left_alone
from comptoir.dispatch.release_files import sweep_files
from comptoir.dispatch.settle import Ending, finish
from comptoir.dispatch.unpaid import drop_unpaid
from comptoir.dispatch.watch import RELINK_S, cause_is_here, revoke_from_silent_host, silence_max_s, why_lost
from comptoir.jobs import AttemptState, Fault, JobState, Lease, LiveJob
from comptoir.kit.errors import Refusal, Unavailable

log = logging.getLogger(__name__)

DAY_MS = 24 * 3600 * 1000

WALK_AGAIN_S = 3600.0
"""Pause after a walk over all old jobs; retention, set in days, is precise to an hour."""

SWEEP_S = 0.5
"""Sweep interval; the lease of a silent host is revoked at most this late."""

LATE_S = 0.25
"""A sweep this late means that the process itself was stalled."""

FLUSH_EVERY = 10
"""Sweeps between two writes of the fleet's statistics (`Hosts.flush`)."""

FORGET_EVERY = 20
"""Sweeps between two searches for data past its retention."""

FORGET_BATCHES_MAX = 20
"""Batches per search, of 500 jobs, 1,000 keys or 1,000 events: 1,000 jobs a second without holding up the writer."""

LOOKED_AT_MAX = 256
"""Waiting jobs looked at in one turn of the event loop, when hosts of their model are gone."""

TOGETHER_MAX = 256
"""Jobs ended concurrently, so that they share commits."""


class Retention(State):
    """Progress of the walk over old jobs."""

    def __init__(self, core: Core) -> None:
        self.after = b""
        """Id of the last job looked at."""
        self.again_s = 0.0
        """Monotonic time before which no new walk begins."""
        self.events_again_s = 0.0
        """The same for the walk over old events."""
        self.signups_again_s = 0.0
        """The same for the addresses of sign-ups."""


async def sweep_forever(core: Core) -> None:
    """Run until cancelled."""
    turns, duties, failing = 0, core.state(Duties), set[str]()
    before_s = core.clock.monotonic_s()
    while True:
        await asyncio.sleep(SWEEP_S)
        turns += 1
        late_s = core.clock.monotonic_s() - before_s - SWEEP_S
        before_s += SWEEP_S + late_s
        if late_s > LATE_S:
            # This process was stalled, and what hosts sent meanwhile is still unread: don't count it as their silence.
            for job in core.jobs.live.under_lease():
                if job.lease is not None:
                    job.lease.forgive(late_s)
        if core.db.unavailable or core.db.lost:
            # No lease can be revoked without the database; silent hosts are judged when it is back, and whole.
            continue
        try:
            for name, every, step in STEPS:
                if turns % every == 0:
                    await _take(core, name, step, failing)
        except Unavailable as outage:
            log.warning("a sweep was cut short: %s", outage)
        if failing:
            duties.failed(Duty.SWEEP, ", ".join(sorted(failing)))
        else:
            duties.done(Duty.SWEEP)


async def _take(core: Core, name: str, step: Callable[[Core], Awaitable[object]], failing: set[str]) -> None:
    """Take one step of a sweep; *failing* has the names of those that failed when their turn last came."""
    try:
        await step(core)
        failing.discard(name)
    except Unavailable:
        raise
    except Refusal as refusal:
        log.warning("a sweep was cut short at %s: %s", name, refusal)
    except Exception:  # The loop's edge: one failed step must not hold up the others, nor all later sweeps.
        log.exception("a sweep failed at %s", name)
        failing.add(name)


async def _flush(core: Core) -> None:
    await core.hosts.flush()


async def _erase(core: Core) -> None:
    # Erasing waits for the store, and no lease may wait for that.
    core.background.spawn(_sweep_files(core))


async def _sweep_files(core: Core) -> None:
    await sweep_files(core)
    await core.state(Files).collect()


async def sweep(core: Core) -> None:
    """Check every job past its deadline, every lease and every silent host once; jobs in the queue cost nothing."""
    for host in core.fleet.silent():
        log.info("host %s fell silent", host.id.hex())
    await _end_without_hosts(core)
    for job in left_alone(core):
        core.jobs.queue.remove(job.id)
        wait_here(core, job)
    now_s, now_ms = core.clock.monotonic_s(), core.common_ms()
    live = core.jobs.live
    due = [job for job in dict.fromkeys(live.due(now_ms) + list(live.broken)) if _due(core, job, now_s, now_ms)]
    for first in range(0, len(due), TOGETHER_MAX):
        await asyncio.gather(*(_end(core, job, now_ms) for job in due[first : first + TOGETHER_MAX]))
    silent = [
        (job, lease, why)
        for job in live.under_lease()
        if (lease := job.lease) is not None and not job.closing and (why := why_lost(core, job, lease, now_s))
    ]
    if silent:
        await _revoke_from_silent_hosts(core, silent, now_s)


async def _end_without_hosts(core: Core) -> None:
    """End the waiting jobs of connected clients whose last possible host is gone (``host_away_s``).

    A detached job waits on, until its deadline: nobody has to stay connected for it, and its hosts may come back.
    """
    departed = core.fleet.departed()
    models = dict.fromkeys([model for host in departed for model in host.candidates])
    for model in models:
        waiting = core.jobs.queue.waiting(model)
        for first in range(0, len(waiting), LOOKED_AT_MAX):
            ends = []
            for entry in waiting[first : first + LOOKED_AT_MAX]:
                job = core.jobs.live.get(entry.job_id)
                if job is None or job.detached or not job.may_be_leased or entry.gone:
                    continue
                if not core.fleet.possible(spec_of(job)):
                    ends.append(_end_without_host(core, job))
            await asyncio.gather(*ends)
            await asyncio.sleep(0)
    if departed:
        before_ms = core.common_ms() - round(1000 * core.settings.host_away_s)
        await core.hosts.write_gone(departed, before_ms=before_ms)


async def _end_without_host(core: Core, job: LiveJob) -> None:
    try:
        await finish(core, job, no_host_here(job))
    except Refusal as refusal:
        log.warning("job %s could not be ended: %s", job.id.hex(), refusal)


async def _revoke_from_silent_hosts(core: Core, silent: list[tuple[LiveJob, Lease, str]], now_s: float) -> None:
    leased = {job.lease.host_id for job in core.jobs.live.under_lease() if job.lease is not None}
    if cause_is_here({lease.host_id for _, lease, _ in silent}, leased):
        log.warning("most hosts are silent: their leases get the whole time")
        silent = [
            (job, lease, why)
            for job, lease, why in silent
            if now_s - lease.touched_s > (RELINK_S if lease.dropped_s else silence_max_s(core, job, lease, now_s))
        ]
    for first in range(0, len(silent), TOGETHER_MAX):
        await asyncio.gather(*(revoke_from_silent_host(core, *each) for each in silent[first : first + TOGETHER_MAX]))


def _due(core: Core, job: LiveJob, now_s: float, now_ms: int) -> bool:
    if job.closing or job.over:
        return False
    waits = job in core.jobs.live.broken
    return now_ms >= job.deadline_ms or (waits and now_s - job.broken_s > core.settings.broken_wait_s)


async def _end(core: Core, job: LiveJob, now_ms: int) -> None:
    """End one job that expired or waited too long for a host; on failure the next sweep retries, others go on."""
    try:
        if now_ms >= job.deadline_ms:
            tell_host_to_stop(core, job, "the job's deadline has passed")
            ending = Ending(
                JobState.EXPIRED,
                attempt_state=AttemptState.FAILED,
                fault=Fault.CAPACITY,
                code="expired",
                message="nobody answered the job before its deadline",
                status=504,
            )
            await finish(core, job, ending)
        else:
            why = f"no host was free to go on for {core.settings.broken_wait_s:g} s"
            await finish(core, job, nobody_left(job, why, fault=Fault.CAPACITY))
    except Refusal as refusal:
        log.warning("job %s could not be ended: %s", job.id.hex(), refusal)


async def forget(core: Core) -> tuple[int, int]:
    """Delete old idempotency keys, addresses of sign-ups of days that are over, and prompts, answers and events past
    ``retention_days``; return (keys, jobs).

    Bounded: the next call deletes the rest. Transfers and receipts are kept for ever.
    """
    settings, now_ms = core.settings, core.clock.now_ms()
    walk = core.state(Retention)
    keys = jobs = 0
    for _ in range(FORGET_BATCHES_MAX):
        gone = await core.idempotency.forget(older_than_ms=now_ms - int(settings.idempotency_ttl_s * 1000))
        keys += gone
        if not gone:
            break
    if core.clock.monotonic_s() >= walk.signups_again_s:
        await core.identity.forget_signups()
        walk.signups_again_s = core.clock.monotonic_s() + WALK_AGAIN_S
    if settings.retention_days and core.clock.monotonic_s() >= walk.again_s:
        older_than_ms = now_ms - settings.retention_days * DAY_MS
        core.jobs.live.forget_recent(older_than_ms=older_than_ms)
        for _ in range(FORGET_BATCHES_MAX):
            touched, after = await core.jobs.forget(older_than_ms=older_than_ms, after=walk.after)
            jobs += touched
            walk.after = after or b""
            if after is None:
                walk.again_s = core.clock.monotonic_s() + WALK_AGAIN_S
                break
    if settings.retention_days and core.clock.monotonic_s() >= walk.events_again_s:
        await _forget_events(core, walk, older_than_ms=now_ms - settings.retention_days * DAY_MS)
    if keys or jobs:
        log.info("forgot %d idempotency keys and the contents of %d jobs", keys, jobs)
    return keys, jobs


async def _forget_events(core: Core, walk: Retention, *, older_than_ms: int) -> None:
    forgotten = 0
    for _ in range(FORGET_BATCHES_MAX):
        gone, through = await core.events.forget(older_than_ms=older_than_ms)
        forgotten += gone
        if through:
            walk.events_again_s = core.clock.monotonic_s() + WALK_AGAIN_S
            break
    if forgotten:
        log.info("forgot %d events", forgotten)


STEPS: tuple[tuple[str, int, Callable[[Core], Awaitable[object]]], ...] = (
    ("leases and deadlines", 1, sweep),
    ("unpaid answers", 1, drop_unpaid),
    ("acts", FOLLOW_EVERY, follow_acts),
    ("hosts' records", FLUSH_EVERY, _flush),
    ("retention", FORGET_EVERY, forget),
    ("silent hosts", FORGET_EVERY, retire_silent_hosts),
    ("bonds", FORGET_EVERY, return_bonds),
    ("files", FORGET_EVERY, _erase),
)
"""What a sweep does, each at every so many turns."""
