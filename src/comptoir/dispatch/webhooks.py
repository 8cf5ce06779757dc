"""Webhooks: make and end them, turn an owner's events into messages in the outbox, and send those.

The events are rows already, written with what they report (`comptoir.events`), so a settlement writes nothing more for
a webhook. A webhook has a cursor: one command moves it past an event and writes the message about it, so each event
becomes one message, whatever dies in between. At most `parallel` messages of a webhook are untried at a time: what has
not been sent stays where it is, in the table of events, and costs nothing.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from comptoir.dispatch.core import Core, State
from comptoir.dispatch.outbox import LaneLimits, Limit, OutboxLoop
from comptoir.events import NUMBERED, ON_REQUEST, Events, NumberedEvent, UnknownEvent, WebhookPaused
from comptoir.kit.db import Fetch, Rows, Tx
from comptoir.kit.ids import new_id, public
from comptoir.kit.sealing import Seal
from comptoir.kit.urlguard import UrlGuard
from comptoir.ledger import Book, Ledger, account_rows
from comptoir.outbox import AttemptOutcome, Claimed, Intent, Outbox, OutboxFull
from comptoir.webhooks import (
    PAGES_OF,
    TEST,
    NewWebhook,
    UnknownWebhook,
    Webhook,
    WebhookNotActive,
    Webhooks,
    WebhookState,
    body_of,
    message_body,
    webhook_rows,
)

log = logging.getLogger(__name__)

WEBHOOK = "webhook"
"""Kind of these intents, and prefix of a webhook's public id."""

DELIVERY_S = 15.0
"""How long an address may take to answer."""

CLAIM_S = 2 * DELIVERY_S
"""How long a claim holds: an attempt, and a stall of this process."""

UNDER_WAY_MAX = 64
"""Deliveries under way at once at one coordinator."""

UNDER_WAY_PER_HOST_MAX = 8
"""Those to one host name."""

UNDER_WAY_PER_OWNER_MAX = 8
"""Those of one owner."""

WAITING_PER_WEBHOOK_MAX = 100
"""Messages of one webhook that may wait to be tried again. Then nothing new is sent to it until one is delivered or
given up; its events wait in their table."""

READ_MAX = 100
"""Events read at once while looking for some that a webhook wants."""

READS_MAX = 10
"""Such reads in one command."""

FAILING_MS_MAX = 3 * 24 * 3600 * 1000
"""How long a webhook may fail without any success before it is paused."""

GONE = 410
"""The status by which an address says that it wants nothing any more."""

EARLIER_MS = 10_000
"""A replay since a time begins this much earlier: events are in the order of their numbers, and the clocks of
coordinators differ by moments."""

SEALED_FOR = b"webhooks"

ALL = "all"
"""What every delivery counts against."""


class Outgoing(State):
    """The rooms of what goes out, and the active webhooks as far as this coordinator knows them."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.outbox = Outbox(core.db)
        self.webhooks = Webhooks(core.db, core.clock, Seal(core.receipts.derive(SEALED_FOR)))
        self.guard = UrlGuard(allow_private=core.settings.allow_private_endpoint_urls)
        self._by_owner: dict[bytes, dict[bytes, Webhook]] = {}
        self._loop: OutboxLoop | None = None
        self._ends: list[Callable[[], None]] = []

    def begin(self, loop: OutboxLoop) -> None:
        """Have *loop* send what is put from now on."""
        self._loop = loop

    def stir(self, webhook_id: bytes) -> None:
        """A webhook may have something to send."""
        if self._loop is not None:
            self._loop.stir(webhook_id)

    def look_soon(self) -> None:
        """A message is due now."""
        if self._loop is not None:
            self._loop.look_soon()

    @property
    def listens(self) -> bool:
        """Whether events are listened to here; only while a webhook is active."""
        return bool(self._ends)

    def know(self, webhook: Webhook) -> None:
        """Remember a webhook as it is now. While none is active, nobody here listens to events."""
        if webhook.state is not WebhookState.ACTIVE:
            self.forget(webhook)
            return
        self._by_owner.setdefault(webhook.owner_id, {})[webhook.id] = webhook
        if not self._ends:
            self._ends = [self._core.events.subscribe(kind, self._heard) for kind in NUMBERED]

    def forget(self, webhook: Webhook) -> None:
        """A webhook is paused or deleted."""
        of_owner = self._by_owner.get(webhook.owner_id, {})
        of_owner.pop(webhook.id, None)
        if not of_owner:
            self._by_owner.pop(webhook.owner_id, None)
        if not self._by_owner:
            for end in self._ends:
                end()
            self._ends = []

    def _heard(self, event: NumberedEvent) -> None:
        for webhook in self._by_owner.get(event.owner_id, {}).values():
            if webhook.wants(event):
                self.stir(webhook.id)


# -- for owners ----------------------------------------------------------------------------------------------------


async def add_webhook(
    core: Core,
    *,
    owner_id: bytes,
    url: str,
    types: Sequence[str] = (),
    note: str = "",
    parallel: int = 1,
    webhook_id: bytes | None = None,
    secret: bytes | None = None,
) -> NewWebhook:
    """Make a webhook that gets its owner's events from now on. Idempotent by *webhook_id*.

    Args:
        url: http or https, and not inside (`kit.urlguard`).
        types: tags of events; empty: all.
        parallel: messages that may be under way at once; 1 keeps them in order.
        secret: 32 bytes; with an Idempotency-Key, they are the same for a repeat.

    Raises (nothing is written):
        InvalidField: *url*, *types*, *note* or *parallel*.
        TooManyWebhooks: the owner has ``webhooks_per_owner``.
    """
    out = core.state(Outgoing)
    out.guard.check("url", url)
    new, sealed = out.webhooks.draft(
        webhook_id=webhook_id or new_id(), owner_id=owner_id, url=url, types=types, note=note, parallel=parallel,
        secret=secret,
    )  # fmt: skip
    most = core.settings.webhooks_per_owner

    def command(tx: Tx) -> Webhook:
        Book.load(tx, (owner_id,))
        cursor = Events.newest_number(tx.fetch, owner_id)
        made = Webhooks.insert(tx, new.webhook, sealed, cursor=cursor, most=most)
        Ledger.ask_for_events(tx, owner_id, Webhooks.asked_events(tx, owner_id))
        return made

    stored = await core.db.run(command, locks=[account_rows((owner_id,))])
    out.know(stored)
    return NewWebhook(stored, new.secret)


async def delete_webhook(core: Core, webhook_id: bytes, *, owner_id: bytes) -> None:
    """Delete a webhook with all its messages; one under way may still arrive.

    Raises:
        UnknownWebhook: there is none, or it is another's.
    """

    def command(tx: Tx) -> Webhook:
        Book.load(tx, (owner_id,))
        webhook = _owned(tx, webhook_id, owner_id)
        Outbox.drop_lane(tx, webhook_id)
        Webhooks.delete(tx, webhook_id)
        Ledger.ask_for_events(tx, owner_id, Webhooks.asked_events(tx, owner_id))
        return webhook

    locks = [account_rows((owner_id,)), webhook_rows(webhook_id)]
    core.state(Outgoing).forget(await core.db.run(command, locks=locks))


async def pause_webhook(core: Core, webhook_id: bytes, *, owner_id: bytes) -> Webhook:
    """Send nothing to a webhook until it is resumed; again changes nothing.

    Raises:
        UnknownWebhook: there is none, or it is another's.
    """

    def command(tx: Tx) -> None:
        if _owned(tx, webhook_id, owner_id).state is WebhookState.ACTIVE:
            Webhooks.set_state(tx, webhook_id, WebhookState.PAUSED, why="by its owner")
            Outbox.park(tx, owner_id, webhook_id)

    await core.db.run(command, locks=[webhook_rows(webhook_id)])
    return await _as_it_is(core, webhook_id, owner_id=owner_id)


async def resume_webhook(core: Core, webhook_id: bytes, *, owner_id: bytes) -> Webhook:
    """Go on sending to a webhook: what waits, with all its attempts again, then the events since.

    Again changes nothing.

    Raises:
        UnknownWebhook: there is none, or it is another's.
    """
    now = core.common_ms()

    def command(tx: Tx) -> None:
        if _owned(tx, webhook_id, owner_id).state is WebhookState.PAUSED:
            Webhooks.set_state(tx, webhook_id, WebhookState.ACTIVE, why="")
            Outbox.unpark(tx, owner_id, webhook_id, at_ms=now)

    await core.db.run(command, locks=[webhook_rows(webhook_id)])
    webhook = await _as_it_is(core, webhook_id, owner_id=owner_id)
    core.state(Outgoing).stir(webhook_id)
    core.state(Outgoing).look_soon()
    return webhook


async def send_test(core: Core, webhook_id: bytes, *, owner_id: bytes, test_id: bytes | None = None) -> bytes:
    """Send a message of type ``webhook.test``, out of order, and return its id. Idempotent by *test_id*.

    Raises:
        UnknownWebhook: there is none, or it is another's.
        WebhookNotActive: it is paused.
        OutboxFull: too many messages to it wait.
    """
    now = core.common_ms()
    facts = {"webhook": public(WEBHOOK, webhook_id)}
    body = message_body(TEST, at_ms=now, number=0, facts=facts)
    intent = Intent(
        kind=WEBHOOK,
        key=f"{webhook_id.hex()}:test:{(test_id or new_id()).hex()}",
        owner_id=owner_id,
        lane=webhook_id,
        payload=body,
    )

    def command(tx: Tx) -> None:
        webhook = _owned(tx, webhook_id, owner_id)
        if webhook.state is not WebhookState.ACTIVE:
            raise WebhookNotActive(webhook.why)
        if Outbox.counts(tx, owner_id, webhook_id)[1] >= WAITING_PER_WEBHOOK_MAX:
            raise OutboxFull(WAITING_PER_WEBHOOK_MAX)
        Outbox.put(tx, [intent], at_ms=now)

    await core.db.run(command, locks=[webhook_rows(webhook_id)])
    core.state(Outgoing).look_soon()
    return intent.id


async def replay_message(core: Core, webhook_id: bytes, message_id: bytes, *, owner_id: bytes) -> bool:
    """Send a message again that was delivered or given up, with the same id and body; False: it waits anyway.

    Raises:
        UnknownWebhook: there is none, or it is another's.
        WebhookNotActive: it is paused.
        UnknownIntent: it has no such message (any more).
    """
    out = core.state(Outgoing)
    now = core.common_ms()
    webhook = await out.webhooks.get(webhook_id, owner_id=owner_id)
    if webhook.state is not WebhookState.ACTIVE:
        raise WebhookNotActive(webhook.why)
    await out.outbox.get(webhook_id, message_id)
    revived = await core.db.run(
        partial(Outbox.revive, intent_id=message_id, at_ms=now), locks=[webhook_rows(webhook_id)]
    )
    out.look_soon()
    return revived


async def replay_since(core: Core, webhook_id: bytes, *, since_ms: int, owner_id: bytes) -> int:
    """Send all events since a time again, as far as they are kept; return how many of any type there are.

    They are sent in order, before what happens from now on, with the ids and bodies that they had.

    Raises:
        UnknownWebhook: there is none, or it is another's.
        WebhookNotActive: it is paused.
    """

    def command(tx: Tx) -> int:
        webhook = _owned(tx, webhook_id, owner_id)
        if webhook.state is not WebhookState.ACTIVE:
            raise WebhookNotActive(webhook.why)
        cursor = Events.number_before(tx.fetch, owner_id, at_ms=since_ms - EARLIER_MS)
        if cursor >= webhook.cursor:
            return 0
        Webhooks.move(tx, webhook_id, cursor=cursor)
        return webhook.cursor - cursor

    again = await core.db.run(command, locks=[webhook_rows(webhook_id)])
    core.state(Outgoing).stir(webhook_id)
    return again


def _owned(tx: Tx, webhook_id: bytes, owner_id: bytes) -> Webhook:
    webhook = Webhooks.load(tx, webhook_id)
    if webhook is None or webhook.owner_id != owner_id:
        raise UnknownWebhook
    return webhook


async def _as_it_is(core: Core, webhook_id: bytes, *, owner_id: bytes) -> Webhook:
    webhook = await core.state(Outgoing).webhooks.get(webhook_id, owner_id=owner_id)
    core.state(Outgoing).know(webhook)
    return webhook


# -- sending -------------------------------------------------------------------------------------------------------


class _WebhookTurn:
    """A webhook inside a command."""

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook

    @property
    def open(self) -> bool:
        return self._webhook.state is WebhookState.ACTIVE

    def note(self, tx: Tx, outcome: AttemptOutcome, *, at_ms: int) -> str:
        webhook = self._webhook
        Webhooks.note_attempt(tx, webhook, done=outcome.done, at_ms=at_ms)
        if outcome.done or not self.open:
            return ""
        if outcome.attempt.status == GONE:
            return f"it answered {GONE} Gone"
        since_ms = webhook.failing_since_ms
        if since_ms is not None and at_ms - since_ms >= FAILING_MS_MAX:
            return f"it has accepted nothing for {(at_ms - since_ms) // 3_600_000} hours"
        return ""

    def next_ids(self, tx: Tx, *, room: int, at_ms: int) -> Sequence[bytes]:
        """Make the next events messages, in order, until *room* are to be sent or none is left."""
        webhook = self._webhook
        untried, waiting = Outbox.counts(tx, webhook.owner_id, webhook.id)
        room = min(room, webhook.parallel - untried, WAITING_PER_WEBHOOK_MAX - waiting)
        if room <= 0:
            return []
        cursor, made = _next(tx, webhook, room)
        if cursor != webhook.cursor:
            Webhooks.move(tx, webhook.id, cursor=cursor)
        if made:
            # Only a replay moves the cursor back, so what is over and comes again is meant to be sent again.
            Outbox.put_again(tx, made, at_ms=at_ms)
        return [one.id for one in made]


def _next(tx: Tx, webhook: Webhook, room: int) -> tuple[int, list[Intent]]:
    """Return up to *room* messages about the next events, and the number that these end at."""
    cursor, made = webhook.cursor, list[Intent]()
    for _ in range(READS_MAX):
        found = Events.next_events(tx.fetch, webhook.owner_id, after=cursor, limit=READ_MAX)
        for event in found:
            if isinstance(event, UnknownEvent) or len(made) == room:
                # What a newer coordinator wrote, a newer one sends.
                return cursor, made
            cursor = event.number
            if webhook.wants(event):
                made.append(_message(webhook, event))
        if len(found) < READ_MAX:
            break
    return cursor, made


def _message(webhook: Webhook, event: NumberedEvent) -> Intent:
    # The subject is part of the key: after commits that a database lost, a number can come again for something else.
    key, body = f"{webhook.id.hex()}:{event.number}:{event.about.hex()}", body_of(event)
    if type(event) in ON_REQUEST:  # Several of them, and the end, have the same subject.
        key += f":{hashlib.sha256(body).hexdigest()}"
    return Intent(
        kind=WEBHOOK, key=key, owner_id=webhook.owner_id, lane=webhook.id, payload=body, number=event.number,
        in_order=True,
    )  # fmt: skip


class WebhookActor:
    """Sends messages to webhooks; how a request is made is *post*'s matter."""

    kind = WEBHOOK

    def __init__(
        self, core: Core, post: Callable[[Claimed, Webhook], Awaitable[AttemptOutcome]], *, claim_s: float = CLAIM_S
    ) -> None:
        self._core = core
        self._out = core.state(Outgoing)
        self._post = post
        self._known: dict[bytes, Webhook] = {}
        """The webhooks of the last question for limits."""
        self._walked = b""
        self._walked_all = False
        self.claim_s = claim_s

    async def limits(self, lanes: Collection[bytes]) -> Mapping[bytes, LaneLimits]:
        found = await self._out.webhooks.named(list(lanes))
        for webhook in found.values():
            self._out.know(webhook)
        return {webhook.id: _limits(webhook) for webhook in found.values() if webhook.state is WebhookState.ACTIVE}

    async def act(self, claimed: Claimed) -> AttemptOutcome:
        found = await self._out.webhooks.named([claimed.lane])
        return await self._post(claimed, found[claimed.lane])

    def lane_rows(self, lane: bytes) -> Rows:
        return [webhook_rows(lane)]

    def turn(self, tx: Tx, lane: bytes) -> _WebhookTurn | None:
        webhook = Webhooks.load(tx, lane)
        return _WebhookTurn(webhook) if webhook is not None else None

    async def close_lane(self, lane: bytes, why: str) -> None:
        """Pause a webhook, and say so in its owner's events."""
        found = (await self._out.webhooks.named([lane])).get(lane)
        if found is None:
            return
        now = self._core.common_ms()

        def command(tx: Tx) -> WebhookPaused | None:
            book = Book.load(tx, (found.owner_id,))
            webhook = Webhooks.load(tx, lane)
            if webhook is None or webhook.state is not WebhookState.ACTIVE:
                return None
            Webhooks.set_state(tx, lane, WebhookState.PAUSED, why=why)
            Outbox.park(tx, webhook.owner_id, lane)
            paused = WebhookPaused(webhook.owner_id, now, book.number(webhook.owner_id), lane, why)
            book.apply(tx)
            Events.insert_rows(tx, [paused])
            return paused

        paused = await self._core.db.run(command, locks=[account_rows((found.owner_id,)), webhook_rows(lane)])
        if paused is not None:
            log.info("%s is paused: %s", public(WEBHOOK, lane), why)
            self._out.forget(found)
            self._core.events.publish(paused)

    async def behind(self) -> Collection[bytes]:
        """Return the webhooks, of the next page, whose owners have events after their cursor.

        An event is told at once only to the coordinator that wrote it; what was lost by a crash, or came before this
        one knew of the webhook, is found here.
        """
        page = await self._out.webhooks.active(self._walked)
        self._walked = page[-1].id if len(page) == PAGES_OF else b""
        for webhook in page:
            self._out.know(webhook)

        def look(fetch: Fetch) -> list[bytes]:
            return [one.id for one in page if Events.newest_number(fetch, one.owner_id) > one.cursor]

        return await self._core.db.fetch_snapshot(look) if page else []


def _limits(webhook: Webhook) -> LaneLimits:
    every: tuple[Limit, ...] = (
        (ALL, UNDER_WAY_MAX),
        (("host", urlsplit(webhook.url).hostname), UNDER_WAY_PER_HOST_MAX),
        (("owner", webhook.owner_id), UNDER_WAY_PER_OWNER_MAX),
    )
    return LaneLimits(
        first=(*every, (("first", webhook.id), webhook.parallel)), again=(*every, (("again", webhook.id), 1))
    )
