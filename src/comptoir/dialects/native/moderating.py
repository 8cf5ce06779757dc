"""What operators decide about hosts, users and names of models: one path per verb, and the record of it all."""

from collections.abc import Awaitable, Callable
from functools import partial

from comptoir.dialects.native.wire import ActsQuery, ActsView, ActView, ModelReasonBody, ReasonBody
from comptoir.dispatch import Core
from comptoir.dispatch.moderate import act_on_host, act_on_model, act_on_user
from comptoir.gateway import claim, once
from comptoir.hosts import UnknownHost
from comptoir.idempotency import IdempotencyMismatch
from comptoir.identity import UnknownUser
from comptoir.kit.errors import InvalidField
from comptoir.kit.http import Access, Endpoint, Request
from comptoir.kit.ids import parse
from comptoir.moderation import Act, AlreadyRetired, Author, LastOperator, NothingToLift, Verb

EXAMPLE = {"reason": "answers in the name of a model that it does not have; report of 1 December"}


def _view(act: Act) -> ActView:
    return ActView(act.number, act.at_ms, act.operator, act.verb, act.subject, act.reason)


async def act_once(core: Core, request: Request, make: Callable[[bytes | None], Awaitable[Act]]) -> ActView:
    """Record an act; a repeat under the same Idempotency-Key gets the first one, whatever was decided since."""
    bound = await claim(core, request)

    async def made() -> Act:
        return await make(bound.resource_id if bound is not None else None)

    async def find() -> Act | None:
        assert bound is not None
        return await core.moderation.find(bound.resource_id)

    return _view(await once(core, bound, find=find, make=made))


def _author(request: Request) -> Author:
    return Author(request.principal.id, request.principal.name)


async def on_host(verb: Verb, core: Core, request: Request) -> ActView:
    """Suspend, resume or retire a host."""
    body: ReasonBody = request.body
    host_id = parse("host", request.params["id"])
    if host_id is None:
        raise UnknownHost(b"")
    deciding = partial(act_on_host, core, verb, host_id, author=_author(request), reason=body.reason)
    return await act_once(core, request, lambda act_id: deciding(act_id=act_id))


async def on_user(verb: Verb, core: Core, request: Request) -> ActView:
    """Suspend or resume a user, by username or id."""
    body: ReasonBody = request.body
    name = request.params["name"]
    user_id = parse("usr", name)
    if user_id is None:
        user = await core.identity.find_user(name)
        if user is None:
            raise UnknownUser(b"")
        user_id = user.id
    deciding = partial(act_on_user, core, verb, user_id, author=_author(request), reason=body.reason)
    return await act_once(core, request, lambda act_id: deciding(act_id=act_id))


async def on_model(verb: Verb, core: Core, request: Request) -> ActView:
    """Quarantine or release a model's name."""
    body: ModelReasonBody = request.body
    deciding = partial(act_on_model, core, verb, body.model, author=_author(request), reason=body.reason)
    return await act_once(core, request, lambda act_id: deciding(act_id=act_id))


async def acts(core: Core, request: Request) -> ActsView:
    """Return a page of the record, newest first."""
    query: ActsQuery = request.query
    found = await core.moderation.page(limit=query.limit + 1, before=query.before)
    shown = [_view(act) for act in found[: query.limit]]
    return ActsView(shown, shown[-1].number if len(found) > query.limit else None)


def _endpoint(
    path: str, handler: Callable[..., Awaitable[ActView]], verb: Verb, summary: str, *errors: type[Exception]
) -> Endpoint:
    named = handler is on_model
    return Endpoint(
        "POST",
        path,
        partial(handler, verb),
        Access.OPERATOR,
        summary,
        request=ModelReasonBody if named else ReasonBody,
        response=ActView,
        errors=(InvalidField, IdempotencyMismatch, *errors),
        idempotent=True,
        example={"model": "llama-3-8b", **EXAMPLE} if named else EXAMPLE,
    )


_HOST = (UnknownHost, AlreadyRetired)

MODERATING = (
    _endpoint("/hosts/{id}/suspend", on_host, Verb.HOST_SUSPEND, "Suspend a host until it is resumed.", *_HOST),
    _endpoint("/hosts/{id}/resume", on_host, Verb.HOST_RESUME, "Resume a suspended host.", *_HOST, NothingToLift),
    _endpoint("/hosts/{id}/retire", on_host, Verb.HOST_RETIRE, "Retire a host for good.", *_HOST),
    _endpoint(
        "/users/{name}/suspend", on_user, Verb.USER_SUSPEND, "Suspend a user, with all hosts of theirs.",
        UnknownUser, LastOperator,
    ),
    _endpoint("/users/{name}/resume", on_user, Verb.USER_RESUME, "Resume a suspended user.", UnknownUser, NothingToLift),
    _endpoint("/models/quarantine", on_model, Verb.MODEL_QUARANTINE, "Let nobody offer or buy a model's name."),
    _endpoint("/models/release", on_model, Verb.MODEL_RELEASE, "Release a model's name from quarantine.", NothingToLift),
    Endpoint(
        "GET", "/acts", acts, Access.OPERATOR, "List what operators decided, newest first.", query=ActsQuery,
        response=ActsView,
    ),
)  # fmt: skip
"""Endpoints of operators who act."""
