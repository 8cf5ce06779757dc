"""Evidence against a host: what it signed and what arrived, where the two contradict each other; and what it costs."""

from functools import partial
from typing import Annotated

from msgspec import Meta

from comptoir.dialects.native.moderating import act_once
from comptoir.dialects.native.wire import ActView, ReasonBody
from comptoir.dispatch import Core
from comptoir.dispatch.forfeit import forfeit_bond
from comptoir.hosts import HostRow, UnknownHost
from comptoir.idempotency import IdempotencyMismatch
from comptoir.identity import Principal
from comptoir.kit.errors import InvalidField
from comptoir.kit.http import Access, Endpoint, Request
from comptoir.kit.ids import parse
from comptoir.ledger import NoBond
from comptoir.moderation import Author
from comptoir.receipts import ExhibitList, UnknownExhibit


class ForfeitBody(ReasonBody, kw_only=True):
    """Body of ``POST /house/hosts/{id}/forfeit``."""

    evidence: Annotated[str, Meta(pattern="^exhibit_[0-9a-f]{32}$", description="The exhibit, against this host.")]


async def evidence(core: Core, request: Request) -> ExhibitList:
    """Return the evidence against a host, retired or not; for operators, its owner, and the host itself."""
    row = await _host(core, request.params["id"])
    who: Principal = request.principal
    if not who.is_admin and who.id not in (row.id, row.owner_id):
        raise UnknownHost(row.id)
    return await core.receipts.evidence.of_host(row.id)


async def forfeit(core: Core, request: Request) -> ActView:
    """Forfeit a host's bond, for evidence against it."""
    body: ForfeitBody = request.body
    row = await _host(core, request.params["id"])
    author = Author(request.principal.id, request.principal.name)
    forfeiting = partial(forfeit_bond, core, row.id, evidence=body.evidence, author=author, reason=body.reason)
    return await act_once(core, request, lambda act_id: forfeiting(act_id=act_id))


async def _host(core: Core, text: str) -> HostRow:
    host_id = parse("host", text)
    if host_id is None:
        raise UnknownHost(b"")
    return await core.hosts.read(host_id)


EVIDENCE = (
    Endpoint(
        "GET", "/hosts/{id}/evidence", evidence, Access.ANY, "List what a host signed that what arrived contradicts.",
        response=ExhibitList, errors=(UnknownHost,),
        description="Operators see every host's, owners that of their own, a host its own. Each exhibit holds two DSSE "
        "envelopes about the same frames, one signed by the host and one by the coordinator; verified with GET "
        "/house/keys alone.",
    ),
    Endpoint(
        "POST", "/hosts/{id}/forfeit", forfeit, Access.OPERATOR, "Forfeit a host's bond, for evidence against it.",
        request=ForfeitBody, response=ActView, idempotent=True,
        errors=(InvalidField, IdempotencyMismatch, UnknownHost, UnknownExhibit, NoBond),
        example={
            "evidence": "exhibit_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b",
            "reason": "signed frames that it never sent; its owner did not answer",
        },
        description="The whole bond moves to the operator's account forfeits, once, and the act is recorded. The host goes "
        "on as it was: suspending or retiring it is another act.",
    ),
)  # fmt: skip
"""Endpoints of evidence."""
