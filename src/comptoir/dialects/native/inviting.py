"""Invitations, for operators: make one, list them, revoke one."""

from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import Meta

from comptoir.dispatch import Core
from comptoir.gateway import claim, once
from comptoir.idempotency import IdempotencyMismatch
from comptoir.identity import Invitation, InvitedAs, NewInvitation, UnknownInvitation
from comptoir.kit.errors import InvalidField
from comptoir.kit.http import Access, Endpoint, Request
from comptoir.kit.ids import parse, public
from comptoir.kit.money import from_credits

ID = "invitation"
"""Prefix of an invitation's public id; the invitation itself begins with ``inv_``."""


class InviteBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /house/invitations``."""

    invited_as: Annotated[InvitedAs, Meta(description="host: to register hosts; user: to sign up.")]
    uses: Annotated[int, Meta(ge=1, le=1_000_000, description="How many may come with it.")] = 1
    days: Annotated[int, Meta(ge=1, le=3_650, description="Until it expires.")] = 7
    credits: (
        Annotated[
            Decimal,
            Meta(
                description="What a user who comes with it gets, at most four decimals; without: what everybody gets.",
                extra_json_schema={"type": ["number", "string"]},
            ),
        ]
        | None
    ) = None
    note: Annotated[str, Meta(max_length=200, description="For you to know it by.")] = ""


class InvitationView(msgspec.Struct, kw_only=True):
    """An invitation, without its text."""

    id: str
    invited_as: InvitedAs
    state: str
    """``open``, ``used up``, ``expired`` or ``revoked``."""
    uses: int
    """How many came with it."""
    uses_max: int
    credit_uusd: int | None
    """What a user who comes with it gets; null: what everybody gets."""
    note: str
    made_by: str
    created_ms: int
    expires_ms: int
    revoked_ms: int | None


class InvitationMade(InvitationView, kw_only=True):
    """Answer of ``POST /house/invitations``."""

    invitation: str
    """The invitation to give away; shown once."""


class InvitationsQuery(msgspec.Struct):
    """Page of the invitations."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    before: Annotated[str, Meta(pattern=f"^({ID}_[0-9a-f]{{32}})?$", description="Id of the last invitation seen.")] = (
        ""
    )


class InvitationsView(msgspec.Struct):
    """A page of invitations, newest first."""

    invitations: list[InvitationView]
    next: str | None
    """Give it as *before* for the next page."""


def _fields(core: Core, one: Invitation) -> dict[str, object]:
    stored = msgspec.structs.asdict(one)
    return stored | {
        "id": public(ID, one.id),
        "made_by": public("usr", one.made_by),
        "state": one.state(core.clock.now_ms()),
    }


async def invite(core: Core, request: Request) -> InvitationMade:
    """Make an invitation; a repeat under the same Idempotency-Key gets the same one."""
    body: InviteBody = request.body
    credit_uusd = None
    if body.credits is not None:
        try:
            credit_uusd = from_credits(body.credits) if body.credits else 0
        except ValueError as error:
            raise InvalidField("credits", str(error)) from error
    bound = await claim(core, request)

    async def make() -> NewInvitation:
        return await core.identity.invitations.make(
            invited_as=body.invited_as,
            uses=body.uses,
            days=body.days,
            made_by=request.principal.id,
            credit_uusd=credit_uusd,
            note=body.note,
            invitation_id=bound.resource_id if bound else None,
            secret=bound.secret if bound else None,
        )

    async def find() -> NewInvitation | None:
        assert bound is not None
        return await core.identity.invitations.made_from(bound.secret)

    made = await once(core, bound, find=find, make=make)
    return InvitationMade(**_fields(core, made.invitation), invitation=made.text)  # type: ignore[arg-type]


async def invitations(core: Core, request: Request) -> InvitationsView:
    """Return a page of invitations, newest first."""
    query: InvitationsQuery = request.query
    before = parse(ID, query.before) if query.before else None
    # One more than requested shows whether there is a next page.
    found = await core.identity.invitations.newest(limit=query.limit + 1, before=before)
    shown = [InvitationView(**_fields(core, one)) for one in found[: query.limit]]  # type: ignore[arg-type]
    return InvitationsView(shown, shown[-1].id if len(found) > query.limit else None)


async def revoke(core: Core, request: Request) -> InvitationView:
    """Revoke an invitation; revoking it again changes nothing."""
    invitation_id = parse(ID, request.params["id"])
    if invitation_id is None:
        raise UnknownInvitation(b"")
    return InvitationView(**_fields(core, await core.identity.invitations.revoke(invitation_id)))  # type: ignore[arg-type]


INVITING = (
    Endpoint(
        "POST", "/invitations", invite, Access.OPERATOR, "Make an invitation to sign up or to register hosts.",
        request=InviteBody, response=InvitationMade, status=201, idempotent=True, errors=(IdempotencyMismatch, InvalidField),
        example={"invited_as": "host", "uses": 1, "days": 7, "note": "for Ada's two machines"},
        description="Shown once, stored as a hash. Whoever has it can use it: as 'invitation' in POST /house/hosts, "
        "/hosts/register or /users, or with 'comptoir host --invitation'.",
    ),
    Endpoint(
        "GET", "/invitations", invitations, Access.OPERATOR, "List invitations, newest first.", query=InvitationsQuery,
        response=InvitationsView,
    ),
    Endpoint(
        "POST", "/invitations/{id}/revoke", revoke, Access.OPERATOR, "Revoke an invitation; who came with it stays.",
        response=InvitationView, errors=(UnknownInvitation,),
    ),
)  # fmt: skip
"""Endpoints of invitations."""
