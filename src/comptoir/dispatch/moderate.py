"""Moderate: operators suspend, resume and retire hosts, suspend users, and quarantine names of models.

An act is written first, with what it changes for good; then every coordinator reads the record and puts it in force, in
the order of the numbers: at once where it was written and over the bus, within `FOLLOW_EVERY` sweeps otherwise. Nothing
on a job's way asks whether an act is in force. A suspended host is not in the fleet, so no job finds it; a key whose
holder is suspended is in no cache, so it is looked up and refused; a quarantined name is in no list of hosts.
"""

import asyncio
import logging
from collections import deque

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.cancel import cancel, is_remote
from comptoir.dispatch.core import Core, State
from comptoir.dispatch.duties import Duties, Duty
from comptoir.dispatch.second_host import Hedges, drop_hedge
from comptoir.dispatch.settle import Ending, finish
from comptoir.events import ActRecorded, HostHeard
from comptoir.hosts import Host, Hosts, quarantine
from comptoir.identity import Identity, OwnerKind, Principal
from comptoir.jobs import AttemptState, Fault, JobFinished, JobState, LiveJob
from comptoir.kit.db import Tx
from comptoir.kit.errors import InvalidField, Refusal, Unavailable
from comptoir.kit.ids import new_id, parse, public
from comptoir.moderation import (
    COORDINATOR,
    Act,
    AlreadyRetired,
    Author,
    Decision,
    LastOperator,
    Moderation,
    NothingToLift,
    Verb,
    check_reason,
    lock,
    record,
)

log = logging.getLogger(__name__)

FOLLOW_EVERY = 4
"""Sweeps between two looks at the record, for what was recorded elsewhere and not heard of: every two seconds."""

NAME_CHARS_MAX = 256
"""Longest name of a model, as in an offer."""

HOST_VERBS = (Verb.HOST_SUSPEND, Verb.HOST_RESUME, Verb.HOST_RETIRE)
USER_VERBS = (Verb.USER_SUSPEND, Verb.USER_RESUME)
MODEL_VERBS = (Verb.MODEL_QUARANTINE, Verb.MODEL_RELEASE)
LIFTS = (Verb.HOST_RESUME, Verb.USER_RESUME, Verb.MODEL_RELEASE)


class Following(State):
    """Acts that are recorded, and not yet in force on this coordinator."""

    def __init__(self, core: Core) -> None:
        self.lock = asyncio.Lock()
        self.due: deque[Act] = deque()


# -- recording -----------------------------------------------------------------------------------------------------


async def act_on_host(
    core: Core, verb: Verb, host_id: bytes, *, author: Author, reason: str, act_id: bytes | None = None
) -> Act:
    """Suspend, resume or retire a host; in force here when this returns.

    Idempotent: what is in force already is returned as it was recorded, and nothing is written.

    Args:
        act_id: given if an Idempotency-Key determines it.

    Raises:
        InvalidField: *reason* is empty, too long or not one line.
        UnknownHost: it was never registered. AlreadyRetired: it was retired, which is for good.
        NothingToLift: it is to be resumed, and is not suspended itself.
    """
    one = _decision(core, verb, public("host", host_id), author=author, reason=reason, act_id=act_id)

    def command(tx: Tx) -> tuple[Act, list[bytes]]:
        # The host's row is locked before the record, as in every group.
        retired = Hosts.is_retired(tx, host_id)
        lock(tx)
        act = _decide(tx, one, among=HOST_VERBS)
        if act.id != one.id:
            return act, []
        if retired:
            raise AlreadyRetired("this host was retired before, which is for good; its owner may register another")
        return act, _retire(tx, host_id, at_ms=one.at_ms) if verb is Verb.HOST_RETIRE else []

    act, digests = await core.db.run(command, locks=Hosts.rows_of(host_id))
    core.identity.note_revoked(digests)
    return await _put_in_force(core, act)


async def retire_silent_host(core: Core, host_id: bytes, *, unless_heard_after_ms: int, reason: str) -> bool:
    """Retire a host that was not heard, as an act of the coordinator; False: it was heard or retired meanwhile.

    It is in force here with the next `catch_up`.

    Raises:
        UnknownHost: it was never registered.
    """
    one = _decision(core, Verb.HOST_RETIRE, public("host", host_id), author=COORDINATOR, reason=reason, act_id=None)

    def command(tx: Tx) -> tuple[Act, list[bytes]] | None:
        if Hosts.is_retired(tx, host_id, or_heard_after_ms=unless_heard_after_ms):
            return None
        lock(tx)
        return record(tx, one), _retire(tx, host_id, at_ms=one.at_ms)

    done = await core.db.run(command, locks=Hosts.rows_of(host_id))
    if done is None:
        return False
    core.identity.note_revoked(done[1])
    core.events.publish(ActRecorded(done[0].number))
    return True


async def act_on_user(
    core: Core, verb: Verb, user_id: bytes, *, author: Author, reason: str, act_id: bytes | None = None
) -> Act:
    """Suspend or resume a user; idempotent, and in force here when this returns, as `act_on_host`.

    Raises:
        InvalidField: *reason* is empty, too long or not one line.
        UnknownUser: there is none. NothingToLift: the user is to be resumed, and is not suspended.
        LastOperator: no operator would be left.
    """
    await core.identity.get_user(user_id)
    one = _decision(core, verb, public("usr", user_id), author=author, reason=reason, act_id=act_id)

    def command(tx: Tx) -> Act:
        lock(tx)
        act = _decide(tx, one, among=USER_VERBS)
        if act.id == one.id and verb is Verb.USER_SUSPEND:
            operators = Identity.operators(tx)
            if user_id in operators and all(_is_suspended(tx, operator) for operator in operators):
                raise LastOperator("this is the last operator: nobody could lift anything any more")
        return act

    return await _put_in_force(core, await core.db.run(command))


async def act_on_model(
    core: Core, verb: Verb, name: str, *, author: Author, reason: str, act_id: bytes | None = None
) -> Act:
    """Quarantine or release a model's name, on offer or not; idempotent, and in force here when this returns.

    Raises:
        InvalidField: *name* or *reason* is empty, too long or not one line.
        NothingToLift: it is to be released, and is not in quarantine.
    """
    if not 1 <= len(name) <= NAME_CHARS_MAX or not name.isprintable():
        raise InvalidField("model", f"must be a name of 1 to {NAME_CHARS_MAX} characters, as hosts offer it")
    one = _decision(core, verb, name, author=author, reason=reason, act_id=act_id)

    def command(tx: Tx) -> Act:
        lock(tx)
        return _decide(tx, one, among=MODEL_VERBS)

    return await _put_in_force(core, await core.db.run(command))


def _decision(core: Core, verb: Verb, subject: str, *, author: Author, reason: str, act_id: bytes | None) -> Decision:
    return Decision(act_id or new_id(), author, verb, subject, check_reason(reason), core.clock.now_ms())


def _decide(tx: Tx, one: Decision, *, among: tuple[Verb, ...]) -> Act:
    """Record *one*, unless the newest act about its subject says the same already."""
    newest = Moderation.newest(tx, one.subject, among)
    if newest is not None and newest.verb == one.verb:
        return newest
    if newest is not None and newest.verb == Verb.HOST_RETIRE:
        raise AlreadyRetired(f"this host was retired with act {newest.number}, which is for good")
    if newest is None and one.verb in LIFTS:
        begun = "quarantined" if one.verb is Verb.MODEL_RELEASE else "suspended"
        raise NothingToLift(f"{one.subject} is not {begun} itself: see 'comptoir acts' for what is in force")
    return record(tx, one)


def _retire(tx: Tx, host_id: bytes, *, at_ms: int) -> list[bytes]:
    Hosts.retire_in(tx, host_id, at_ms)
    return Identity.revoke_all(tx, host_id, at_ms)


def _is_suspended(tx: Tx, user_id: bytes) -> bool:
    newest = Moderation.newest(tx, public("usr", user_id), USER_VERBS)
    return newest is not None and newest.verb == Verb.USER_SUSPEND


async def standing_of(hosts: Hosts, moderation: Moderation, principal: Principal, revoked: bool) -> Refusal | None:
    """Return what the holder of a credential that was just looked up is refused with; None: nothing is in force."""
    if principal.kind is OwnerKind.USER:
        return None if revoked else moderation.against_user(principal.id)
    if revoked:
        return await moderation.why_retired(principal.id)
    host = hosts.fleet.find(principal.id) or hosts.suspended.get(principal.id)
    return moderation.against_host(principal.id, host.row.owner_id if host is not None else None)


def ignored_offers(core: Core, host: Host) -> dict[str, str]:
    """Return the models of a host that nobody is offered, with the operator's reasons, for the host to be told."""
    quarantined = core.moderation.quarantined
    if not quarantined:
        return {}
    return {one.name: quarantined[one.name].reason for one in host.row.models if one.name in quarantined}


# -- in force ------------------------------------------------------------------------------------------------------


async def _put_in_force(core: Core, act: Act) -> Act:
    core.events.publish(ActRecorded(act.number))
    await catch_up(core)
    return act


async def catch_up(core: Core) -> None:
    """Put every act in force here that was recorded since the last call, in order; what can't be is tried next time.

    Raises:
        Unavailable: the database is unavailable; call again.
    """
    following = core.state(Following)
    async with following.lock:
        fresh = await core.moderation.read_new()
        about = [parse("host", act.subject) or parse("usr", act.subject) for act in fresh]
        if any(about):
            core.identity.forget_owners(frozenset([each for each in about if each is not None]))
        following.due += fresh
        while following.due:
            act = following.due[0]
            try:
                await _enforce(core, act)
            except Unavailable:
                raise
            except Exception:  # One act that can't be put in force must not hold up those after it.
                log.exception("act %d is not in force here", act.number)
                core.state(Duties).failed(Duty.ACTS)
            following.due.popleft()


async def follow_acts(core: Core) -> None:
    """Catch up with the record, and end again what slipped through while an act was being put in force.

    A job may have been on its way into the queue, or come from another coordinator; costs nothing where nothing is in
    force.

    Raises:
        Unavailable: the database is unavailable.
    """
    await catch_up(core)
    waiting = core.jobs.queue.models() if core.moderation.quarantined else {}
    if not waiting.keys().isdisjoint(core.moderation.quarantined):
        await _end_waiting(core, frozenset(core.moderation.quarantined))
    for subject in list(core.moderation.suspended):
        user_id = parse("usr", subject)
        if user_id is not None and core.state(Buyers).in_flight.total(user_id):
            await _cancel_jobs(core, user_id)


async def _enforce(core: Core, act: Act) -> None:
    level = logging.WARNING if act.operator_id is not None else logging.INFO
    log.log(level, "act %d by %s: %s %s: %s", act.number, act.operator, act.verb, act.subject, act.reason)
    if act.verb in HOST_VERBS:
        host_id = parse("host", act.subject)
        if host_id is not None:
            await _enforce_on_host(core, act, host_id)
    elif act.verb in USER_VERBS:
        user_id = parse("usr", act.subject)
        if user_id is not None:
            await _enforce_on_user(core, act, user_id)
    elif act.verb in MODEL_VERBS:
        quarantine(core.fleet, core.moderation.quarantined)
        if act.subject in core.moderation.quarantined:
            await _end_waiting(core, frozenset((act.subject,)))


def _who(act: Act) -> str:
    return "the operator" if act.operator_id is not None else act.operator


async def _enforce_on_host(core: Core, act: Act, host_id: bytes) -> None:
    if act.verb == Verb.HOST_RESUME:
        await _readmit(core, host_id)
        return
    for_good = act.verb == Verb.HOST_RETIRE
    if for_good or host_id in _barred_hosts(core, [host_id]):
        word = "retired" if for_good else "suspended"
        await _turn_away(core, host_id, f"{_who(act)} has {word} this host: {act.reason}", for_good=for_good)


async def _enforce_on_user(core: Core, act: Act, user_id: bytes) -> None:
    if core.moderation.against_user(user_id) is None:
        for host_id in [one.id for one in core.hosts.suspended.values() if one.row.owner_id == user_id]:
            await _readmit(core, host_id)
        return
    reason = f"{_who(act)} has suspended this host's owner: {act.reason}"
    owned = frozenset([host.id for host in core.fleet if host.row.owner_id == user_id])
    core.identity.forget_owners(owned)
    for host_id in owned:
        await _turn_away(core, host_id, reason, for_good=False)
    await _cancel_jobs(core, user_id)


def _barred_hosts(core: Core, host_ids: list[bytes]) -> set[bytes]:
    """Return those of *host_ids* that are suspended now: a later act may have lifted what is put in force only here."""
    barred = set()
    for host_id in host_ids:
        host = core.fleet.find(host_id) or core.hosts.suspended.get(host_id)
        if core.moderation.against_host(host_id, host.row.owner_id if host is not None else None) is not None:
            barred.add(host_id)
    return barred


async def _turn_away(core: Core, host_id: bytes, reason: str, *, for_good: bool) -> None:
    """Take a host out of the fleet, close its connection, and move its jobs; nobody is blamed, what came is paid."""
    jobs = [(job, job.lease) for job in core.jobs.live.leases_of(host_id) if not job.closing]
    channel = core.channels.pop(host_id, None)
    if channel is not None:
        for _, lease in jobs:
            if lease is not None:
                channel.cancel(lease, reason)
        channel.turn_away(reason, for_good=for_good)
    await core.hosts.bar(host_id, for_good=for_good)
    for hedge in list(core.state(Hedges).by_lease.values()):
        if hedge.lease.host_id == host_id:
            drop_hedge(core, hedge.job, reason)
    for job, lease in jobs:
        if lease is not None:
            await revoke_lease(core, job, lease, reason, fault=Fault.NONE)


async def _readmit(core: Core, host_id: bytes) -> None:
    """Take a host back that is no longer suspended; it is offline until it is heard."""
    if await core.hosts.readmit(host_id):
        # A transport that calls hosts can call this one again.
        core.events.publish(HostHeard(host_id))


async def _cancel_jobs(core: Core, user_id: bytes) -> None:
    for job in core.jobs.live.all():
        if job.owner_id == user_id and not (job.over or job.closing or is_remote(job)):
            try:
                await cancel(core, job, reason="the account is suspended by the operator")
            except JobFinished:
                continue


async def _end_waiting(core: Core, names: frozenset[str]) -> None:
    """End the jobs that wait and would need one of *names*, now or at a later stage; their buyers pay nothing."""
    for job in core.jobs.live.all():
        wanted = {job.model, *(stage.model for stage in job.stages)} & names
        if wanted and job.lease is None and not (job.over or job.closing or is_remote(job)):
            await _end_quarantined(core, job, wanted.pop())


async def _end_quarantined(core: Core, job: LiveJob, name: str) -> None:
    refusal = core.moderation.against_model(name)
    if refusal is None:
        return
    ending = Ending(
        JobState.FAILED,
        attempt_state=AttemptState.FAILED,
        fault=Fault.COORDINATOR,
        code="model_quarantined",
        message=f"{refusal.message}; nothing was charged",
        free=True,
    )
    try:
        await finish(core, job, ending)
    except Refusal as failed:
        log.warning("job %s could not be ended: %s", job.id.hex(), failed)
