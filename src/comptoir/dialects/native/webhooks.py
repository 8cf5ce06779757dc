"""Webhooks of the caller: make, list, pause, resume, delete; give a new secret; test, look at the log, replay."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from comptoir.dispatch import Core
from comptoir.dispatch.webhooks import (
    WEBHOOK,
    Outgoing,
    add_webhook,
    delete_webhook,
    pause_webhook,
    replay_message,
    replay_since,
    resume_webhook,
    send_test,
)
from comptoir.gateway import claim, once
from comptoir.idempotency import IdempotencyMismatch
from comptoir.kit.errors import InvalidField
from comptoir.kit.http import Access, Endpoint, Reply, Request
from comptoir.kit.ids import parse, public
from comptoir.outbox import Attempt, IntentState, OutboxFull, StoredIntent, UnknownIntent
from comptoir.webhooks import (
    MESSAGE,
    NewWebhook,
    TooManyWebhooks,
    UnknownWebhook,
    Webhook,
    WebhookNotActive,
    event_types,
)

STATES = {"waiting": IntentState.WAITING, "delivered": IntentState.DONE, "dead": IntentState.DEAD}
"""State of a message, as it is called here."""

NAMES = {state: name for name, state in STATES.items()}


class WebhookBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /house/webhooks``."""

    url: Annotated[str, Meta(min_length=1, max_length=2048, description="Where messages are posted; public.")]
    types: Annotated[
        list[Annotated[str, Meta(max_length=64)]],
        Meta(max_length=32, description=f"Types of events that it gets: {', '.join(event_types())}; without: all."),
    ] = []
    note: Annotated[str, Meta(max_length=200, description="For you to know it by.")] = ""
    parallel: Annotated[
        int, Meta(ge=1, le=16, description="Messages under way at once; 1 keeps them in the order of the events.")
    ] = 1


class WebhookView(msgspec.Struct, kw_only=True):
    """A webhook, without its secret."""

    id: str
    url: str
    types: list[str]
    """Types of events that it gets; empty: all."""
    note: str
    parallel: int
    state: str
    """``active`` or ``paused``."""
    why: str
    """Why it is paused."""
    number: int
    """Number of the last event that was sent or passed over; a replay sets it back."""
    failing_since_ms: int | None
    """The first failure since it last accepted anything."""
    old_secret_until_ms: int | None
    """Until when messages are signed with the secret before, too."""
    created_ms: int


class WebhookMade(WebhookView, kw_only=True):
    """Answer of ``POST /house/webhooks`` and of ``POST /house/webhooks/{id}/rotate``."""

    secret: str
    """What signatures are verified with, ``whsec_…``; shown once."""


class WebhooksView(msgspec.Struct):
    """The caller's webhooks, oldest first."""

    webhooks: list[WebhookView]


class DeliveryAttempt(msgspec.Struct):
    """One attempt at a message."""

    at_ms: int
    took_ms: int
    status: int | None
    """What the address answered; null: it did not."""
    error: str
    """Why there was no answer, or why it counts as none."""
    answer: str
    """The first bytes of the answer."""


class MessageView(msgspec.Struct):
    """One message, with its last 16 attempts."""

    id: str
    """``webhook-id``: the same with every attempt and replay."""
    type: str
    number: int
    """Number of the event; 0 for a test."""
    state: str
    """``waiting``, ``delivered`` or ``dead``: given up."""
    created_ms: int
    next_ms: int | None
    """When it is tried next; null: it is over, or the webhook is paused."""
    attempts: list[DeliveryAttempt]
    payload: msgspec.Raw
    """The body as it is sent."""


class LogQuery(msgspec.Struct):
    """Page of a webhook's messages."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    before: Annotated[str, Meta(pattern=f"^({MESSAGE}_[0-9a-f]{{32}})?$", description="Id of the last one seen.")] = ""
    state: Annotated[Literal["waiting", "delivered", "dead"] | None, Meta(description="Only these.")] = None


class LogView(msgspec.Struct):
    """A page of messages, newest first."""

    messages: list[MessageView]
    next: str | None
    """Give it as *before* for the next page."""


class ReplayBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /house/webhooks/{id}/replay``: one of the two."""

    message: Annotated[str, Meta(pattern=f"^{MESSAGE}_[0-9a-f]{{32}}$")] | None = None
    """This message."""
    since_ms: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    """Every event since then that is kept."""


class ReplayView(msgspec.Struct):
    """Answer of ``POST /house/webhooks/{id}/replay``."""

    again: int
    """Events that are gone through again, of any type; 0 if there is nothing, or if the message waits anyway."""


class TestSent(msgspec.Struct):
    """Answer of ``POST /house/webhooks/{id}/test``."""

    message: str
    """Its id; the log shows what becomes of it."""


def _fields(webhook: Webhook) -> dict[str, Any]:
    stored = msgspec.structs.asdict(webhook)
    stored["number"] = stored.pop("cursor")
    del stored["owner_id"]
    return stored | {"id": public(WEBHOOK, webhook.id), "types": list(webhook.types)}


def _webhook_id(request: Request) -> bytes:
    found = parse(WEBHOOK, request.params["id"])
    if found is None:
        raise UnknownWebhook
    return found


async def make(core: Core, request: Request) -> WebhookMade:
    """Make a webhook; a repeat under the same Idempotency-Key gets the same one, with its secret."""
    body: WebhookBody = request.body
    bound = await claim(core, request)

    async def add() -> NewWebhook:
        return await add_webhook(
            core, owner_id=request.principal.id, url=body.url, types=body.types, note=body.note,
            parallel=body.parallel, webhook_id=bound.resource_id if bound else None,
            secret=bound.secret if bound else None,
        )  # fmt: skip

    async def find() -> NewWebhook | None:
        assert bound is not None
        webhooks = core.state(Outgoing).webhooks
        try:
            found = await webhooks.get(bound.resource_id, owner_id=request.principal.id)
        except UnknownWebhook:
            return None
        return NewWebhook(found, await webhooks.secret_text(found.id))

    made = await once(core, bound, find=find, make=add)
    return WebhookMade(**_fields(made.webhook), secret=made.secret)


async def webhooks(core: Core, request: Request) -> WebhooksView:
    """Return the caller's webhooks."""
    found = await core.state(Outgoing).webhooks.of_owner(request.principal.id)
    return WebhooksView([WebhookView(**_fields(one)) for one in found])


async def delete(core: Core, request: Request) -> Reply:
    """Delete a webhook with its messages."""
    await delete_webhook(core, _webhook_id(request), owner_id=request.principal.id)
    return Reply(204)


async def pause(core: Core, request: Request) -> WebhookView:
    """Send nothing until it is resumed."""
    return WebhookView(**_fields(await pause_webhook(core, _webhook_id(request), owner_id=request.principal.id)))


async def resume(core: Core, request: Request) -> WebhookView:
    """Go on with what waits, and with the events since."""
    return WebhookView(**_fields(await resume_webhook(core, _webhook_id(request), owner_id=request.principal.id)))


async def rotate(core: Core, request: Request) -> WebhookMade:
    """Give it a new secret; the old one signs too for 24 hours."""
    made = await core.state(Outgoing).webhooks.rotate(_webhook_id(request), owner_id=request.principal.id)
    return WebhookMade(**_fields(made.webhook), secret=made.secret)


async def test(core: Core, request: Request) -> TestSent:
    """Send a message of type webhook.test; a repeat under the same Idempotency-Key sends no other."""
    webhook_id, bound = _webhook_id(request), await claim(core, request)
    test_id = bound.resource_id if bound is not None else None
    sent = await send_test(core, webhook_id, owner_id=request.principal.id, test_id=test_id)
    return TestSent(public(MESSAGE, sent))


async def replay(core: Core, request: Request) -> ReplayView:
    """Send one message again, or all events since a time."""
    body: ReplayBody = request.body
    if (body.message is None) == (body.since_ms is None):
        raise InvalidField("message", "give either 'message' or 'since_ms'")
    webhook_id, owner_id = _webhook_id(request), request.principal.id
    if body.since_ms is not None:
        return ReplayView(await replay_since(core, webhook_id, since_ms=body.since_ms, owner_id=owner_id))
    message_id = parse(MESSAGE, body.message or "")
    if message_id is None:
        raise UnknownIntent
    return ReplayView(int(await replay_message(core, webhook_id, message_id, owner_id=owner_id)))


async def deliveries(core: Core, request: Request) -> LogView:
    """Return a page of a webhook's messages, newest first."""
    query: LogQuery = request.query
    out, webhook_id = core.state(Outgoing), _webhook_id(request)
    await out.webhooks.get(webhook_id, owner_id=request.principal.id)
    state = STATES[query.state] if query.state is not None else None
    before = parse(MESSAGE, query.before) if query.before else None
    # One more than requested shows whether there is a next page.
    found = await out.outbox.page(webhook_id, state=state, before=before, limit=query.limit + 1)
    shown = [_message(one) for one in found[: query.limit]]
    return LogView(shown, shown[-1].id if len(found) > query.limit else None)


class _TypeOnly(msgspec.Struct):
    type: str


_type = msgspec.json.Decoder(_TypeOnly).decode


def _message(one: StoredIntent) -> MessageView:
    return MessageView(
        public(MESSAGE, one.id), _type(one.payload).type, one.number, NAMES[one.state], one.created_ms, one.due_ms,
        [_attempt(each) for each in one.history], msgspec.Raw(one.payload),
    )  # fmt: skip


def _attempt(one: Attempt) -> DeliveryAttempt:
    return DeliveryAttempt(one.at_ms, one.took_ms, one.status or None, one.error, one.answer)


WEBHOOKS = (
    Endpoint(
        "POST", "/webhooks", make, Access.BUYER, "Make a webhook: your events are posted to an address.",
        request=WebhookBody, response=WebhookMade, status=201, idempotent=True,
        errors=(IdempotencyMismatch, InvalidField, TooManyWebhooks),
        example={"url": "https://shop.example/comptoir", "types": ["job.ended"]},
        description="Messages and signatures are those of Standard Webhooks (standardwebhooks.com): any of its libraries "
        "verifies them with the secret, which is shown once.",
    ),
    Endpoint(
        "GET", "/webhooks", webhooks, Access.BUYER, "List your webhooks.", response=WebhooksView, reads=True,
    ),
    Endpoint(
        "DELETE", "/webhooks/{id}", delete, Access.BUYER, "Delete a webhook with its messages.", status=204,
        errors=(UnknownWebhook,),
    ),
    Endpoint(
        "POST", "/webhooks/{id}/pause", pause, Access.BUYER, "Send nothing to a webhook until it is resumed.",
        response=WebhookView, errors=(UnknownWebhook,),
    ),
    Endpoint(
        "POST", "/webhooks/{id}/resume", resume, Access.BUYER, "Go on sending to a webhook, where it was left.",
        response=WebhookView, errors=(UnknownWebhook,),
    ),
    Endpoint(
        "POST", "/webhooks/{id}/rotate", rotate, Access.BUYER, "Give a webhook a new secret.", response=WebhookMade,
        errors=(UnknownWebhook,),
        description="For 24 hours each message carries two signatures, one with the secret before.",
    ),
    Endpoint(
        "POST", "/webhooks/{id}/test", test, Access.BUYER, "Send a message of type webhook.test.", response=TestSent,
        status=202, idempotent=True, errors=(UnknownWebhook, IdempotencyMismatch, WebhookNotActive, OutboxFull),
    ),
    Endpoint(
        "POST", "/webhooks/{id}/replay", replay, Access.BUYER, "Send one message again, or all events since a time.",
        request=ReplayBody, response=ReplayView,
        errors=(InvalidField, UnknownWebhook, WebhookNotActive, UnknownIntent),
        example={"since_ms": 1_764_590_000_000},
        description="A message keeps its webhook-id and body, so a receiver that remembers ids does nothing twice.",
    ),
    Endpoint(
        "GET", "/webhooks/{id}/log", deliveries, Access.BUYER, "List a webhook's messages with every attempt.",
        query=LogQuery, response=LogView, errors=(UnknownWebhook,), reads=True,
    ),
)  # fmt: skip
"""Endpoints of webhooks."""
