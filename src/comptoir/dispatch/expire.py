"""Expire: sweep leases, deadlines and silent hosts. Nothing waits for a client to come back."""

import asyncio
import logging

from comptoir.dispatch.assign import lose
from comptoir.dispatch.cancel import tell_host_to_stop
from comptoir.dispatch.house import House
from comptoir.dispatch.settle import Ending, finish
from comptoir.jobs import AttemptState, Fault, JobState
from comptoir.kit.errors import Refusal

log = logging.getLogger(__name__)

SWEEP_S = 0.5
"""How often; the lease of a host that fell silent is taken away at most this late."""

FLUSH_EVERY = 10
"""Sweeps between two write-behinds of the fleet's statistics."""

RELINK_S = 10.0
"""How long a host whose link dropped may take to come back with its frames, before its leases are taken away."""


async def sweep_forever(house: House) -> None:
    """Run until cancelled."""
    turns = 0
    while True:
        await asyncio.sleep(SWEEP_S)
        turns += 1
        try:
            await sweep(house)
            if turns % FLUSH_EVERY == 0:
                await house.hosts.flush()
        except Refusal as refusal:
            log.warning("a sweep was cut short: %s", refusal)
        except Exception:  # The loop's edge: one bad job must not stop the sweeping of all others.
            log.exception("a sweep failed")


async def sweep(house: House) -> None:
    """Look once at every job in flight and every host."""
    now_s, now_ms = house.clock.monotonic_s(), house.clock.now_ms()
    for host in house.fleet.silent():
        log.info("host %s fell silent", host.id.hex())
    for job in house.jobs.live:
        if job.closing or job.over:
            continue
        lease = job.lease
        if now_ms >= job.deadline_ms:
            tell_host_to_stop(house, job, "the job's deadline has passed")
            ending = Ending(
                JobState.EXPIRED, attempt_state=AttemptState.FAILED, fault=Fault.CAPACITY, code="expired",
                message="nobody answered the job before its deadline", status=504,
            )  # fmt: skip
            await finish(house, job, ending)
        elif lease is not None:
            silent_s = now_s - lease.touched_s
            if silent_s > house.settings.lease_s:
                tell_host_to_stop(house, job, "the lease has run out")
                await lose(house, job, lease, f"no frame for {silent_s:.0f} s", fault=Fault.HOST)
            elif silent_s > RELINK_S and lease.host_id not in house.lines:
                await lose(house, job, lease, "its link dropped and did not come back", fault=Fault.HOST)
