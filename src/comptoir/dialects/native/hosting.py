"""Hosts of the native shape: registration, heartbeats, requesting work and delivering answers.

Jobs are the link's messages in JSON (`transports.native`). A push host that answers ``202`` delivers its frames here
too.
"""

from functools import partial
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from comptoir.dispatch import Core
from comptoir.dispatch.assign import assign_waiting
from comptoir.dispatch.deferred_settlements import retry_when_db_returns
from comptoir.dispatch.errors import AnswerTooLarge, BadFrame, BadSegment, FramesOutOfOrder
from comptoir.dispatch.moderate import ignored_offers
from comptoir.dispatch.onboard import host_of
from comptoir.dispatch.stream import complete, fail_as_reported
from comptoir.gateway import (
    Hex,
    Machine,
    RegisteredOffer,
    accept_frames,
    job_named,
    leased_to,
    owner_of,
    register_once,
    until_over,
)
from comptoir.hosts import SLOTS_MAX, Host, NewHost, UnknownHost, check_offer
from comptoir.idempotency import IdempotencyMismatch
from comptoir.identity import InvitationRefused
from comptoir.jobs import AttemptState, NotYourLease, UnknownJob
from comptoir.kinds import Chat, Completion
from comptoir.kit.errors import InvalidField, NotAllowed
from comptoir.kit.http import Access, Endpoint, Reply, Request
from comptoir.kit.ids import public
from comptoir.ledger import BondNotCovered
from comptoir.link import Pulse
from comptoir.receipts import KeyTaken
from comptoir.transports.job_message import job_message
from comptoir.transports.native import (
    NATIVE,
    NativeDone,
    NativeFail,
    NativeFrames,
    NativeJob,
    lease_name,
    lease_named,
    spell,
)
from comptoir.transports.poll import wait_for_job

Slots = Annotated[int, Meta(ge=1, le=SLOTS_MAX)]
Offers = Annotated[list[RegisteredOffer], Meta(max_length=256)]


class HostingBody(Machine, kw_only=True):
    """Body of ``POST /house/hosts``."""

    transport: Literal["poll", "push"]
    """Whether it requests work, or is called at *endpoint_url*."""
    models: Annotated[list[RegisteredOffer], Meta(min_length=1, max_length=256)]
    endpoint_url: Annotated[str, Meta(max_length=2048)] | None = None
    tier: Annotated[str, Meta(max_length=64)] = ""
    public_key: Hex | None = None
    """Key of a host that signs what it delivers."""


class HostingMade(msgspec.Struct):
    """Answer of ``POST /house/hosts``."""

    host_id: str
    api_key: str
    """Shown once."""
    bond_uusd: int = 0
    """What was moved from the owner's account into a bond for this host."""


class HostPulseBody(msgspec.Struct, kw_only=True):
    """Body of ``POST /house/host/pulse``."""

    gpu_utilization: Annotated[float, Meta(ge=0, le=1)] = 0.0
    models: Offers | None = None
    """The whole new offer; an empty list means that the host takes no new jobs for now."""
    slots: Slots | None = None
    """Given with *models*."""


class HostPulsed(msgspec.Struct, omit_defaults=True):
    """Answer of ``POST /house/host/pulse``."""

    status: str
    """``active``, or ``draining`` while it takes no new jobs."""
    ignored: dict[str, str] = {}
    """Models of this host that nobody is offered, in quarantine, and the operator's reason."""


class NextJobBody(msgspec.Struct):
    """Body of ``POST /house/host/jobs/next``."""

    wait_s: Annotated[float, Meta(ge=0, le=300)] | None = None
    """Wait at most this long; never longer than the setting ``next_job_wait_s``."""


class FramesTaken(msgspec.Struct):
    """Answer of ``POST /house/host/jobs/{id}/frames``."""

    next_seq: int


class LeaseEnded(msgspec.Struct):
    """Answer of ``POST /house/host/jobs/{id}/done``."""

    lease: str
    job_id: str
    tokens: int
    earned_uusd: int
    """0 also for a container of an unfinished chain: it is paid when the chain is over."""


class LeaseGivenBack(msgspec.Struct):
    """Answer of ``POST /house/host/jobs/{id}/fail``."""

    lease: str
    job_id: str
    state: str
    """``failed`` if the job is over, ``queued`` if another host continues it."""


async def register(core: Core, request: Request) -> HostingMade:
    """Register a machine; with a user's key it belongs to that user, without one to the holder of the host's key."""
    body: HostingBody = request.body
    new = NewHost(
        gpu=body.gpu,
        models=tuple([offer.offer() for offer in body.models]),
        slots=body.slots,
        backend=body.backend,
        region=body.region,
        tier=body.tier,
        vram_mib=body.vram_mib,
        capacity=body.capacity(),
        transport=body.transport,
        endpoint_url=body.endpoint_url,
        owner_id=owner_of(request),
        speaks=NATIVE,
        public_key=bytes.fromhex(body.public_key) if body.public_key is not None else None,
    )
    made = await register_once(core, request, new, invitation=body.invitation)
    return HostingMade(public("host", made.host_id), made.key, made.bond_uusd)


async def pulse(core: Core, request: Request) -> HostPulsed:
    """Note that a host is alive, how busy it is, and what it offers now."""
    body: HostPulseBody = request.body
    host = await _caller(core, request)
    if body.models:
        models, slots = tuple([offer.offer() for offer in body.models]), body.slots or host.row.slots
        check_offer(models, slots, core.jobs.kinds)
        core.fleet.seen(host.id, Pulse(gpu_utilization=body.gpu_utilization))
        core.fleet.replace_offer(host.id, models, slots)
        core.fleet.resume(host.id)
        assign_waiting(core, host.id)
    else:
        core.fleet.seen(host.id, Pulse(gpu_utilization=body.gpu_utilization))
        if body.models is not None:
            core.fleet.drain(host.id)
    return HostPulsed(host.status, ignored_offers(core, host))


async def next_job(core: Core, request: Request) -> NativeJob | Reply:
    """Wait for a job; 204 if none came in time. The lease is durable when the answer is sent."""
    body: NextJobBody = request.body
    host = await host_of(core, request.principal, None)
    answer = await wait_for_job(core, host, speaks=NATIVE, wait_s=body.wait_s, watch=request.when_gone)
    if answer is None:
        return Reply(204)
    job, lease = answer
    return spell(job_message(job, lease, now_ms=core.common_ms()))


async def frames(core: Core, request: Request) -> FramesTaken:
    """Append frames to a job, in order; those that it already has are skipped."""
    body: NativeFrames = request.body
    host = await _caller(core, request)
    job = await leased_to(core, host, job_named(request.params["id"]), lease=_lease(body.lease))
    return FramesTaken(await accept_frames(core, job, body.frames(), seq=body.seq))


async def done(core: Core, request: Request) -> LeaseEnded:
    """End a job as answered. A repeat gets the same answer."""
    body: NativeDone = request.body
    host = await _caller(core, request)
    job_id, lease = job_named(request.params["id"]), _lease(body.lease)
    try:
        job = await leased_to(core, host, job_id, lease=lease)
    except NotYourLease:
        return await _ended(core, host, job_id, lease)
    core.fleet.seen(host.id)
    if body.end_seq != len(job.frames):
        raise FramesOutOfOrder(expected=len(job.frames), got=body.end_seq)
    await complete(
        core,
        job,
        finish_reason=body.finish_reason,
        usage=body.counted(),
        signature=body.signature,
        running_hash=body.chain,
    )
    return await _ended(core, host, job_id, lease)


async def _ended(core: Core, host: Host, job_id: bytes, lease: bytes) -> LeaseEnded:
    """Return how a closed lease ended, as stored.

    Raises:
        NotYourLease: this host never had it, or did not end it as done.
    """
    live = core.jobs.live.get(job_id)
    if live is not None and live.closing:
        await until_over(live)
    for attempt in await core.jobs.attempts(job_id):
        if attempt.id == lease and attempt.host_id == host.id and attempt.state == AttemptState.DONE:
            return LeaseEnded(lease_name(lease), public("job", job_id), attempt.tokens, attempt.paid_uusd)
    raise NotYourLease


async def give_back(core: Core, request: Request) -> LeaseGivenBack:
    """Give a job back: another host continues it after what was delivered, or it ends and the rest is released."""
    body: NativeFail = request.body
    host = await _caller(core, request)
    job = await leased_to(core, host, job_named(request.params["id"]), lease=_lease(body.lease))
    await retry_when_db_returns(core, job, partial(fail_as_reported, core, job, body))
    if job.over or job.closing:
        await until_over(job)
    return LeaseGivenBack(body.lease, public("job", job.id), "failed" if job.over else "queued")


async def _caller(core: Core, request: Request) -> Host:
    """Return the host that calls.

    Raises:
        UnknownHost: it has been retired. NotAllowed: it registered through another API and uses another shape.
    """
    host = await host_of(core, request.principal, None)
    if host.row.speaks != NATIVE:
        raise NotAllowed("this host did not register here, and speaks another shape")
    return host


def _lease(text: str) -> bytes:
    lease = lease_named(text)
    if lease is None:
        raise InvalidField("lease", "must be a lease's name (att_…)")
    return lease


OFFER_EXAMPLE = {
    "name": "qwen3-8b",
    "kinds": [Chat.name, Completion.name],
    "context_tokens": 32768,
    "price_in_uusd_per_mtok": 100_000,
    "price_out_uusd_per_mtok": 400_000,
    "can_continue": True,
}
LEASE_EXAMPLE = "att_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b"
HOST_ERRORS = (UnknownHost, NotAllowed, UnknownJob, NotYourLease, InvalidField)

HOSTING = (
    Endpoint(
        "POST", "/hosts", register, Access.OPTIONAL, "Register a host that polls or has jobs pushed to it, in the native shape.",
        request=HostingBody, response=HostingMade, status=201, idempotent=True,
        errors=(IdempotencyMismatch, BondNotCovered, InvitationRefused, NotAllowed, KeyTaken),
        example={"transport": "poll", "gpu": "NVIDIA L40S", "slots": 4, "models": [OFFER_EXAMPLE]},
    ),
    Endpoint(
        "POST", "/host/pulse", pulse, Access.HOST, "Report that a host is alive, and what it offers now.",
        request=HostPulseBody, response=HostPulsed, errors=(UnknownHost, NotAllowed, InvalidField),
        example={"gpu_utilization": 0.4}, description="At least once in 60 s; asking for work is a sign of life too.",
    ),
    Endpoint(
        "POST", "/host/jobs/next", next_job, Access.HOST, "Ask for a job.", request=NextJobBody, response=NativeJob,
        also=(204,), errors=(UnknownHost, NotAllowed), example={"wait_s": 20},
        description="Held until a job comes; 204 without a body when none came in time.",
    ),
    Endpoint(
        "POST", "/host/jobs/{id}/frames", frames, Access.HOST, "Deliver pieces of an answer.", request=NativeFrames,
        response=FramesTaken, errors=(*HOST_ERRORS, FramesOutOfOrder, AnswerTooLarge, BadFrame),
        example={"lease": LEASE_EXAMPLE, "seq": 0, "items": [{"text": "Quantum"}, {"text": " computing"}]},
    ),
    Endpoint(
        "POST", "/host/jobs/{id}/done", done, Access.HOST, "Complete a job.", request=NativeDone,
        response=LeaseEnded, errors=(*HOST_ERRORS, FramesOutOfOrder, BadSegment),
        example={"lease": LEASE_EXAMPLE, "end_seq": 2, "finish_reason": "stop", "usage": {"prompt_tokens": 5}},
    ),
    Endpoint(
        "POST", "/host/jobs/{id}/fail", give_back, Access.HOST, "Give a job back.", request=NativeFail,
        response=LeaseGivenBack, errors=HOST_ERRORS,
        example={"lease": LEASE_EXAMPLE, "code": "engine_error", "message": "CUDA out of memory", "fault": "host"},
    ),
)  # fmt: skip
"""Endpoints of hosts without a link."""
