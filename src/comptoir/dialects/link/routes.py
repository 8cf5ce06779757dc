"""Endpoints of the link: register, pulse, and the WebSocket."""

from starlette.websockets import WebSocket

from comptoir.dialects.link.wire import LinkRegistered, RegisterBody
from comptoir.dispatch.core import Core
from comptoir.dispatch.moderate import ignored_offers
from comptoir.dispatch.onboard import host_of
from comptoir.gateway import PlainBody, owner_of, render_plain_error, status_of
from comptoir.gateway import register as register_host
from comptoir.hosts import LINK, NewHost, UnknownHost
from comptoir.identity import InvitationRefused
from comptoir.kit.errors import NotAllowed
from comptoir.kit.http import Access, Dialect, Endpoint, Request, Socket
from comptoir.kit.ids import public
from comptoir.ledger import BondNotCovered
from comptoir.link import Pulse, PulseAnswer
from comptoir.receipts import KeyTaken
from comptoir.transports.link import Session


async def register(core: Core, request: Request) -> LinkRegistered:
    """Register a worker's machine; the worker keeps the key and uses it from then on."""
    body: RegisterBody = request.body
    new = NewHost(
        gpu=body.gpu,
        models=tuple(offer.offer() for offer in body.models),
        slots=body.slots,
        backend=body.backend,
        region=body.region,
        vram_mib=body.vram_mib,
        transport=LINK,
        public_key=bytes.fromhex(body.public_key),
        capacity=body.capacity(),
        owner_id=owner_of(request),
    )
    made = await register_host(core, request, new, invitation=body.invitation)
    return LinkRegistered(public("host", made.host_id), made.key, core.settings.pulse_s, made.bond_uusd)


async def pulse(core: Core, request: Request) -> PulseAnswer:
    """Note that a worker is alive, on a path of its own that frames can't delay.

    Behind a balancer, the pulse may arrive here while the link is at another coordinator.
    """
    host = await host_of(core, request.principal, None)
    core.fleet.seen(host.id, request.body)
    elsewhere = bool(host.node_id) and core.peers.is_alive(host.node_id)
    return PulseAnswer(linked=host.id in core.channels or elsewhere, ignored=ignored_offers(core, host))


async def link(core: Core, request: Request, socket: WebSocket) -> None:
    """Serve one worker's connection until it ends."""
    try:
        host = await host_of(core, request.principal, None)
    except UnknownHost:
        await socket.close(1008, "this host has been retired")
        return
    await Session(core, host, socket).run()


ENDPOINTS = (
    Endpoint(
        "POST", "/link/register", register, Access.OPTIONAL, "Register a worker's machine and its models.",
        request=RegisterBody, response=LinkRegistered, status=201, errors=(BondNotCovered, InvitationRefused, NotAllowed, KeyTaken),
    ),
    Endpoint(
        "POST", "/link/pulse", pulse, Access.HOST, "Report that the worker is alive.", request=Pulse, response=PulseAnswer,
        errors=(UnknownHost,),
    ),
)  # fmt: skip

DIALECT = Dialect(
    name="link",
    title="Comptoir link",
    prefix="/comptoir",
    endpoints=ENDPOINTS,
    render_error=render_plain_error,
    sockets=(Socket("/link", link, Access.HOST, "The worker's link: msgpack batches, see comptoir.link."),),
    description="How Comptoir's own worker registers and stays in touch.",
    owns=("/link",),
    error_statuses=status_of,
    error_body=PlainBody,
)
