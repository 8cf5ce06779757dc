"""Hosts: registration, heartbeats, requesting work and delivering answers."""

from decimal import Decimal
from functools import partial

from msgspec.structs import replace

from comptoir.dialects.infrintia import wire
from comptoir.dispatch import Core
from comptoir.dispatch.assign import assign_waiting
from comptoir.dispatch.deferred_settlements import retry_when_db_returns
from comptoir.dispatch.errors import FramesOutOfOrder
from comptoir.dispatch.moderate import ignored_offers
from comptoir.dispatch.onboard import host_of
from comptoir.dispatch.stream import FAULTS, complete, fail
from comptoir.gateway import accept_frames, job_named, leased_to, owner_of, register_once, until_over
from comptoir.hosts import INFRINTIA, POLL, PUSH, Host, NewHost, UnknownHost, check_offer, offers_of
from comptoir.jobs import Fault, JobState, LiveJob, NotYourLease, UnknownJob
from comptoir.kinds.tokens.text import frames_of, text_of
from comptoir.kit.errors import InvalidField
from comptoir.kit.http import Reply, Request
from comptoir.kit.ids import parse, public
from comptoir.kit.money import fee_of, to_credits
from comptoir.link import Pulse, Usage
from comptoir.transports.poll import wait_for_job

POLL_SLOTS_DEFAULT = 16
"""Slots of a polling host that gives no number: it never gets more jobs than it has waiting requests."""
PUSH_SLOTS_DEFAULT = 1

PRICE_MAX = Decimal(1)
"""Dollars per token; checked before any arithmetic, which can't handle numbers like 1e999999."""


async def register(core: Core, request: Request) -> wire.InfrintiaRegistered:
    """Register a machine; with a user's key it belongs to that user, without one to the holder of the host's key."""
    body: wire.Register = request.body
    owner_id = owner_of(request)
    if not 0 <= body.price_per_token <= PRICE_MAX:
        raise InvalidField("price_per_token", "must be between 0 and 1 dollar a token")
    made = await register_once(core, request, _new_host(body, owner_id=owner_id), invitation=body.invitation)
    return wire.InfrintiaRegistered(public("host", made.host_id), "active", made.key)


def _new_host(body: wire.Register, *, owner_id: bytes | None) -> NewHost:
    pushed = body.endpoint_url is not None
    offers = offers_of(body.models, body.price_per_token, context_tokens=body.context_tokens)
    return NewHost(
        gpu=body.gpu,
        models=tuple([replace(offer, no_promotions=body.no_promotions) for offer in offers]),
        slots=body.slots or (PUSH_SLOTS_DEFAULT if pushed else POLL_SLOTS_DEFAULT),
        backend=body.backend,
        transport=PUSH if pushed else POLL,
        endpoint_url=body.endpoint_url,
        owner_id=owner_id,
        speaks=INFRINTIA,
        public_key=bytes.fromhex(body.public_key) if body.public_key is not None else None,
    )


async def heartbeat(core: Core, request: Request) -> wire.Acknowledged:
    """Note that a host is alive, how busy it is, and which models it has; a model keeps its price."""
    body: wire.Heartbeat = request.body
    host = await _caller(core, request, body.host_id)
    core.fleet.seen(host.id, Pulse(gpu_utilization=body.gpu_utilization))
    if body.available_models is not None and host.row.speaks == INFRINTIA:
        _offer(core, host, body.available_models)
    return wire.Acknowledged("acknowledged", ignored_offers(core, host))


def _offer(core: Core, host: Host, names: list[str]) -> None:
    """Make *host* offer exactly *names*; an empty list means that it takes no new jobs for now."""
    if not names:
        core.fleet.drain(host.id)
        return
    known = {offer.name: offer for offer in host.row.models}
    if set(names) != set(known):
        like = replace(host.row.models[0], can_continue=False, fingerprint="")
        models = tuple(known.get(name) or replace(like, name=name) for name in dict.fromkeys(names))
        check_offer(models, host.row.slots, core.jobs.kinds)
        core.fleet.replace_offer(host.id, models, host.row.slots)
    core.fleet.resume(host.id)
    assign_waiting(core, host.id)


async def next_job(core: Core, request: Request) -> wire.Assigned | Reply:
    """Wait for a job; 204 if none came in time. The lease is durable when the answer is sent."""
    body: wire.NextJob = request.body
    host = await _caller(core, request, body.host_id)
    answer = await wait_for_job(core, host, speaks=INFRINTIA, wait_s=body.wait_s, watch=request.when_gone)
    if answer is None:
        return Reply(204)
    job, lease = answer
    plain = text_of(job)
    assigned = wire.Assigned(public("job", job.id), job.model, plain.input_text, plain.max_tokens, plain.temperature)
    if lease.signs:
        assigned.attempt = public("att", lease.id)
        assigned.input_sha256 = job.body_sha256.hex()
    return assigned


async def chunk(core: Core, request: Request) -> wire.ChunkTaken:
    """Append pieces of an answer, in order; pieces received before are skipped."""
    body: wire.InfrintiaChunk = request.body
    host = await _caller(core, request, body.host_id)
    job = await leased_to(core, host, job_named(request.params["id"]))
    pieces = _pieces(body.token, body.tokens)
    if pieces is None:
        raise InvalidField("token", "is required (or tokens)")
    return wire.ChunkTaken(await accept_frames(core, job, frames_of(pieces, job=job), seq=body.seq))


async def complete_job(core: Core, request: Request) -> wire.Completed:
    """End a job as answered, with its last pieces if they come in the same call. A repeat gets the same answer."""
    body: wire.Complete = request.body
    host = await _caller(core, request, body.host_id)
    try:
        job = await leased_to(core, host, job_named(request.params["id"]))
    except NotYourLease:
        return await _completed_before(core, host, request.params["id"])
    usage = Usage(body.usage.prompt_tokens, body.usage.completion_tokens) if body.usage is not None else Usage()
    pieces = _pieces(body.token, body.tokens)
    if pieces is not None:
        await accept_frames(core, job, frames_of(pieces, job=job, counted=usage.completion_tokens), seq=body.seq)
    else:
        _check_all_here(job, seq=body.seq, counted=usage.completion_tokens)
    signature = bytes.fromhex(body.signature) if body.signature is not None else b""
    await complete(core, job, finish_reason=body.finish_reason, usage=usage, signature=signature)
    await until_over(job)
    if job.state != JobState.COMPLETED:
        raise NotYourLease
    earned_uusd = job.cost_uusd - fee_of(job.cost_uusd, core.settings.fee_bps)
    return wire.Completed(public("job", job.id), "completed", job.count, to_credits(earned_uusd))


def _check_all_here(job: LiveJob, *, seq: int | None, counted: int) -> None:
    """Refuse a completion without its pieces: after a restart, a host may get a job again while it completes it.

    Raises:
        FramesOutOfOrder: the host has delivered more, or less, than is here.
    """
    here = len(job.frames)
    said = seq if seq is not None else here or counted
    if said != here:
        raise FramesOutOfOrder(expected=here, got=said)


async def _completed_before(core: Core, host: Host, text: str) -> wire.Completed:
    """Answer the repeat of a completion.

    Raises:
        NotYourLease: this host did not complete the job.
    """
    job_id = job_named(text)
    live = core.jobs.live.get(job_id)
    if live is not None and live.closing and live.host_id == host.id:
        await until_over(live)
    try:
        row = await core.jobs.get(job_id)
    except UnknownJob:
        raise NotYourLease from None
    if row.state != JobState.COMPLETED or row.host_id != host.id:
        raise NotYourLease
    # As posted then: the fee's setting may have changed since.
    earned_uusd = sum(attempt.paid_uusd for attempt in await core.jobs.attempts(job_id) if attempt.host_id == host.id)
    return wire.Completed(public("job", row.id), "completed", row.completion_tokens, to_credits(earned_uusd))


async def fail_job(core: Core, request: Request) -> wire.Failed:
    """Give a job back: it goes to another host if nothing was delivered, else it ends and the rest is released."""
    body: wire.InfrintiaFail = request.body
    host = await _caller(core, request, body.host_id)
    job = await leased_to(core, host, job_named(request.params["id"]))
    failed = partial(
        fail,
        core,
        job,
        code="host_error",
        message=body.error,
        fault=FAULTS.get(body.fault, Fault.HOST),
        status=422 if body.fault == "buyer" else 502,
    )
    await retry_when_db_returns(core, job, failed)
    if job.over or job.closing:
        await until_over(job)
    return wire.Failed(public("job", job.id), "failed" if job.over else "queued")


# -- shared --------------------------------------------------------------------------------------------------------


async def _caller(core: Core, request: Request, host_id: str) -> Host:
    """Return the calling host; the id in the body has to be its own.

    Raises:
        UnknownHost: the id is not one of ours. NotAllowed: it belongs to another host.
    """
    named = parse("host", host_id)
    if named is None:
        raise UnknownHost(request.principal.id)
    return await host_of(core, request.principal, named)


def _pieces(token: str | None, tokens: list[str] | None) -> list[str] | None:
    if token is not None and tokens is not None:
        raise InvalidField("tokens", "must not come together with token")
    return [token] if token is not None else tokens
