"""Webhooks against a real receiver: what arrives and how it is signed, what failures lead to, and what is promised of
order and of one receiver beside another."""

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from standardwebhooks import Webhook as StandardWebhook
from standardwebhooks import WebhookVerificationError

from comptoir.app import open_core
from comptoir.dispatch import Core
from comptoir.dispatch.onboard import add_user
from comptoir.dispatch.webhooks import (
    FAILING_MS_MAX,
    Outgoing,
    add_webhook,
    delete_webhook,
    pause_webhook,
    replay_message,
    replay_since,
    resume_webhook,
    send_test,
)
from comptoir.events import WebhookPaused
from comptoir.kit.clock import FakeClock
from comptoir.kit.errors import InvalidField
from comptoir.kit.ids import parse, public
from comptoir.outbox import ATTEMPTS_MAX, IntentState, StoredIntent
from comptoir.settings import Settings
from comptoir.transports.webhook import ANSWER_BYTES_KEPT, delivering
from comptoir.webhooks import Webhook, WebhookNotActive, WebhookState, secret_text
from tests.post import QUICK
from tests.webhook_receiver import BOUND_S, Got, WebhookReceiver, receiving, status


class _Shop:
    """A trading post without hosts, one user, and the address that hears of what happens to her account."""

    def __init__(self, core: Core, clock: FakeClock, owner_id: bytes, receiver: WebhookReceiver) -> None:
        self.core = core
        self.clock = clock
        self.owner_id = owner_id
        self.receiver = receiver
        self.out = core.state(Outgoing)

    async def webhook(self, path: str = "/", **options: Any) -> Webhook:
        made = await add_webhook(self.core, owner_id=self.owner_id, url=self.receiver.url + path, **options)
        return made.webhook

    async def happen(self, count: int = 1) -> None:
        """Have *count* events happen."""
        for _ in range(count):
            await self.core.ledger.deposit(owner_id=self.owner_id, amount_uusd=1)

    async def log_until(
        self, webhook: Webhook, *, state: IntentState | None = None, count: int = 1, attempts: int = 1
    ) -> list[StoredIntent]:
        """Wait until *count* messages in *state* have had *attempts*; return them, oldest first."""
        async with asyncio.timeout(BOUND_S):
            while True:
                found = await self.out.outbox.page(webhook.id, state=state, limit=200)
                ready = [one for one in found if len(one.history) >= attempts]
                if len(ready) >= count:
                    return ready[::-1]
                await asyncio.sleep(0.002)

    async def state_until(self, webhook: Webhook, held: Callable[[Webhook], bool]) -> Webhook:
        """Wait until the webhook is as *held* wants it."""
        async with asyncio.timeout(BOUND_S):
            while not held(found := await self.out.webhooks.get(webhook.id, owner_id=self.owner_id)):
                await asyncio.sleep(0.002)
        return found


@contextlib.asynccontextmanager
async def open_shop(folder: Path, **settings: Any) -> AsyncIterator[_Shop]:
    clock = FakeClock()
    known = {**QUICK, "allow_private_endpoint_urls": True, **settings}
    async with open_core(Settings(data=str(folder), port=0, **known), clock=clock) as core, receiving() as receiver:
        user = await add_user(
            core, username="ada", email="ada@example.org", password="correct-horse", of_the_house=True
        )
        yield _Shop(core, clock, user.user.id, receiver)


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[_Shop]:
    monkeypatch.setattr("comptoir.dispatch.outbox.LOOK_S", 0.01)
    async with open_shop(tmp_path) as opened:
        yield opened


def verified(got: Got, secret: str) -> dict[str, Any] | None:
    """Return what the service's own library makes of a message when it comes; None: it refuses it."""
    at_s = int(got.headers["webhook-timestamp"])

    class Then(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Then":
            return cls.fromtimestamp(at_s, tz)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("standardwebhooks.webhooks.datetime", Then)
        try:
            message: dict[str, Any] = StandardWebhook(secret).verify(got.body, dict(got.headers))
        except WebhookVerificationError:
            return None
    return message


def numbers(got: list[Got]) -> list[int]:
    return [one.number for one in got]


class TestMessages:
    async def test_the_services_own_library_accepts_them(self, shop: _Shop) -> None:
        """Standard Webhooks' client for Python, with the secret as it was shown."""
        made = await add_webhook(shop.core, owner_id=shop.owner_id, url=shop.receiver.url)
        await shop.happen()
        (got,) = await shop.receiver.until(1)
        message = verified(got, made.secret)

        assert verified(got, secret_text(bytes(32))) is None
        assert message is not None and message["type"] == "money.added"
        assert message["data"] == {"transfer": message["data"]["transfer"], "amount_uusd": 1, "kind": "deposit"}
        assert (message["number"], got.headers["content-type"]) == (2, "application/json")  # 1 is the sign-up credit.

    async def test_for_a_day_the_old_secret_verifies_too(self, shop: _Shop) -> None:
        old = await add_webhook(shop.core, owner_id=shop.owner_id, url=shop.receiver.url)
        new = await shop.out.webhooks.rotate(old.webhook.id, owner_id=shop.owner_id)
        await shop.happen()
        await shop.receiver.until(1)
        shop.clock.advance(seconds=24 * 3600)
        await shop.happen()
        within, after = await shop.receiver.until(2)

        assert [verified(within, made.secret) is not None for made in (old, new)] == [True, True]
        assert [verified(after, made.secret) is not None for made in (old, new)] == [False, True]

    async def test_only_the_types_that_are_wanted(self, shop: _Shop) -> None:
        jobs = await shop.webhook("/jobs", types=["job.ended"])
        money = await shop.webhook("/money", types=["money.added"])
        await shop.happen(2)
        await shop.log_until(money, state=IntentState.DONE, count=2)
        moved = await shop.state_until(jobs, lambda found: found.cursor == 3)

        assert [one.path for one in shop.receiver.got] == ["/money", "/money"]
        assert (moved.state, await shop.out.outbox.page(jobs.id)) == (WebhookState.ACTIVE, [])

    async def test_one_event_later_than_the_webhook(self, shop: _Shop) -> None:
        await shop.happen()
        await shop.webhook()
        await shop.happen()

        assert numbers(await shop.receiver.until(1)) == [3]

    async def test_a_test_message_goes_out_of_order(self, shop: _Shop) -> None:
        webhook = await shop.webhook()
        sent = await send_test(shop.core, webhook.id, owner_id=shop.owner_id)
        (got,) = await shop.receiver.until(1)

        assert (got.id, got.message["type"], got.number) == (public("msg", sent), "webhook.test", 0)


class TestFailures:
    @pytest.mark.parametrize(
        ("answer", "state", "wait_s"),
        [
            (status(200, "thanks"), IntentState.DONE, None),
            (status(299), IntentState.DONE, None),
            (status(500, "later"), IntentState.WAITING, (4.0, 6.0)),
            (status(404), IntentState.WAITING, (4.0, 6.0)),
            (status(302, location="http://169.254.169.254/latest"), IntentState.WAITING, (4.0, 6.0)),
            (status(429, retry_after="0"), IntentState.WAITING, (4.0, 6.0)),
            (status(503, retry_after="60"), IntentState.WAITING, (60.0, 60.0)),
            (status(503, retry_after="1000000000"), IntentState.WAITING, (4.0, 6.0)),  # Ten digits are no time.
            (status(503, retry_after="999999999"), IntentState.WAITING, (3600.0, 3600.0)),
            (status(503, retry_after="soon"), IntentState.WAITING, (4.0, 6.0)),
            (status(410), IntentState.DEAD, None),
        ],
    )
    async def test_an_answer_means(
        self, shop: _Shop, answer: Any, state: IntentState, wait_s: tuple[float, float] | None
    ) -> None:
        shop.receiver.usual = answer
        webhook = await shop.webhook()
        await shop.happen()
        (found,) = await shop.log_until(webhook)

        assert found.state is state
        waits_ms = None if found.due_ms is None else found.due_ms - shop.clock.now_ms()
        assert (waits_ms is None) is (wait_s is None)
        assert wait_s is None or wait_s[0] * 1000 <= (waits_ms or 0) <= wait_s[1] * 1000

    async def test_every_attempt_has_the_same_id_and_body(self, shop: _Shop) -> None:
        """And its own time and signature, or the receiver's library would refuse it as too old."""
        shop.receiver.answers = [status(500)]
        webhook = await shop.webhook()
        await shop.happen()
        await shop.log_until(webhook)
        shop.clock.advance(seconds=7)
        first, second = await shop.receiver.until(2)

        assert (first.id, first.body) == (second.id, second.body)
        assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 7
        assert first.headers["webhook-signature"] != second.headers["webhook-signature"]

    async def test_the_log_keeps_status_and_first_bytes(self, shop: _Shop) -> None:
        shop.receiver.answers = [status(500, "é" * 10_000)]
        webhook = await shop.webhook()
        await shop.happen()
        (found,) = await shop.log_until(webhook)
        (attempt,) = found.history

        assert (attempt.status, len(attempt.answer), attempt.answer[:3]) == (500, ANSWER_BYTES_KEPT // 2, "ééé")

    async def test_one_who_does_not_answer_is_given_a_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("comptoir.app.delivering", partial(delivering, timeout_s=0.05))
        async with open_shop(tmp_path) as shop:
            shop.receiver.usual = shop.receiver.never
            webhook = await shop.webhook()
            await shop.happen()
            (found,) = await shop.log_until(webhook)

        assert (found.state, found.history[0].error) == (IntentState.WAITING, "no answer within 0.05 s")

    async def test_one_that_nobody_listens_at(self, shop: _Shop) -> None:
        webhook = (await add_webhook(shop.core, owner_id=shop.owner_id, url="http://127.0.0.1:1/")).webhook
        await shop.happen()
        (found,) = await shop.log_until(webhook)

        assert found.history[0].error.startswith("no connection")

    async def test_after_all_attempts_it_is_dead_and_can_be_sent_again(self, shop: _Shop) -> None:
        shop.receiver.usual = status(500)
        webhook = await shop.webhook()
        await shop.happen()
        for attempt in range(1, ATTEMPTS_MAX):
            await shop.log_until(webhook, attempts=attempt)
            await shop.core.db.run(lambda tx: tx.execute("UPDATE outbox SET due_ms = 0 WHERE state = 'waiting'"))
        (dead,) = await shop.log_until(webhook, state=IntentState.DEAD, attempts=ATTEMPTS_MAX)
        shop.receiver.usual = status(200)
        again = await replay_message(shop.core, webhook.id, dead.id, owner_id=shop.owner_id)
        (done,) = await shop.log_until(webhook, state=IntentState.DONE)

        assert (again, done.id, done.attempts) == (True, dead.id, ATTEMPTS_MAX + 1)
        assert len({(one.id, one.body) for one in shop.receiver.got}) == 1


class TestPausing:
    async def test_gone_pauses_it_and_the_owners_events_say_so(self, shop: _Shop) -> None:
        shop.receiver.by_path["/gone"] = status(410)
        gone, other = await shop.webhook("/gone"), await shop.webhook("/other")
        await shop.happen()
        paused = await shop.state_until(gone, lambda found: found.state is WebhookState.PAUSED)
        await shop.receiver.until(2, path="/other")
        told = await shop.core.events.after(shop.owner_id, 2)

        assert paused.why == "it answered 410 Gone"
        assert [(type(event), event.number) for event in told] == [(WebhookPaused, 3)]
        assert shop.receiver.got[-1].message["data"] == {"webhook": public("webhook", gone.id), "why": paused.why}
        assert (other.id, len([one for one in shop.receiver.got if one.path == "/gone"])) == (other.id, 1)

    async def test_failing_for_days_pauses_it_and_resuming_loses_nothing(self, shop: _Shop) -> None:
        shop.receiver.usual = status(500)
        webhook = await shop.webhook()
        await shop.happen()
        await shop.log_until(webhook)
        shop.clock.advance(seconds=FAILING_MS_MAX / 1000)
        paused = await shop.state_until(webhook, lambda found: found.state is WebhookState.PAUSED)
        await shop.happen()
        with pytest.raises(WebhookNotActive):
            await send_test(shop.core, webhook.id, owner_id=shop.owner_id)
        tried = len(shop.receiver.got)
        shop.receiver.usual = status(200)
        await resume_webhook(shop.core, webhook.id, owner_id=shop.owner_id)
        done = await shop.log_until(webhook, state=IntentState.DONE, count=3)

        assert paused.why == "it has accepted nothing for 72 hours"
        assert sorted(one.number for one in done) == [2, 3, 4]  # Its own pause is 3.
        assert tried == 2

    async def test_one_success_begins_the_days_anew(self, shop: _Shop) -> None:
        shop.receiver.answers = [status(500), status(200), status(500)]
        webhook = await shop.webhook()
        await shop.happen()
        await shop.log_until(webhook)
        failing = await shop.state_until(webhook, lambda found: found.failing_since_ms is not None)
        shop.clock.advance(seconds=7)
        healthy = await shop.state_until(webhook, lambda found: found.failing_since_ms is None)

        assert (failing.failing_since_ms, healthy.state) == (shop.clock.now_ms() - 7_000, WebhookState.ACTIVE)

    async def test_while_paused_nothing_is_sent(self, shop: _Shop) -> None:
        webhook = await shop.webhook()
        await pause_webhook(shop.core, webhook.id, owner_id=shop.owner_id)
        other = await shop.webhook("/other")
        await shop.happen(3)
        await shop.log_until(other, state=IntentState.DONE, count=3)
        before = [one.path for one in shop.receiver.got]
        await resume_webhook(shop.core, webhook.id, owner_id=shop.owner_id)
        got = await shop.receiver.until(3, path="/")

        assert (set(before), numbers(got)) == ({"/other"}, [2, 3, 4])

    async def test_deleted_it_is_gone_with_its_messages(self, shop: _Shop) -> None:
        webhook = await shop.webhook()
        await shop.happen()
        await shop.log_until(webhook, state=IntentState.DONE)
        await delete_webhook(shop.core, webhook.id, owner_id=shop.owner_id)

        assert await shop.out.webhooks.of_owner(shop.owner_id) == []
        assert await shop.out.outbox.page(webhook.id) == []


class TestCost:
    async def test_without_a_webhook_nobody_listens_to_events(self, shop: _Shop) -> None:
        """So that an event costs nothing more than before there were webhooks."""
        before = shop.out.listens
        webhook = await shop.webhook()
        with_one = shop.out.listens
        await pause_webhook(shop.core, webhook.id, owner_id=shop.owner_id)
        paused = shop.out.listens
        await resume_webhook(shop.core, webhook.id, owner_id=shop.owner_id)
        resumed = shop.out.listens
        await delete_webhook(shop.core, webhook.id, owner_id=shop.owner_id)

        assert (before, with_one, paused, resumed, shop.out.listens) == (False, True, False, True, False)


class TestOrder:
    async def test_events_arrive_in_the_order_of_their_numbers(self, shop: _Shop) -> None:
        await shop.webhook()
        await asyncio.gather(*(shop.happen() for _ in range(40)))

        assert numbers(await shop.receiver.until(40)) == list(range(2, 42))

    async def test_one_that_fails_holds_up_no_later_one(self, shop: _Shop) -> None:
        shop.receiver.answers = [status(500)]
        await shop.webhook()
        await shop.happen(3)
        await shop.receiver.until(3)
        shop.clock.advance(seconds=7)

        assert numbers(await shop.receiver.until(4)) == [2, 3, 4, 2]

    async def test_one_at_a_time_unless_it_wants_more(self, shop: _Shop) -> None:
        """With more they begin in order."""
        for path, parallel in (("/one", 1), ("/three", 3)):
            shop.receiver.by_path[path] = shop.receiver.never
            await shop.webhook(path, parallel=parallel)
        await shop.happen(5)
        await shop.receiver.until(1, path="/one")
        three = await shop.receiver.until(3, path="/three")
        await asyncio.sleep(0.05)  # Long enough for what must not happen: a look takes 0.01 s.

        assert [one.path for one in shop.receiver.got].count("/one") == 1
        assert sorted(numbers(three)) == [2, 3, 4]
        assert len(await shop.receiver.until(3, path="/three")) == 3

    async def test_a_slow_receiver_keeps_no_other_waiting(self, shop: _Shop) -> None:
        shop.receiver.by_path["/slow"] = shop.receiver.never
        await shop.webhook("/slow")
        await shop.webhook("/fast")
        await shop.happen(50)

        assert numbers(await shop.receiver.until(50, path="/fast")) == list(range(2, 52))
        assert len([one for one in shop.receiver.got if one.path == "/slow"]) == 1

    async def test_what_one_owner_has_under_way_is_bounded(self, shop: _Shop) -> None:
        shop.receiver.usual = shop.receiver.never
        for number in range(10):
            await shop.webhook(f"/{number}")
        await shop.happen()
        await shop.receiver.until(8)
        await asyncio.sleep(0.05)

        assert len(shop.receiver.got) == 8

    async def test_a_replay_since_a_time_sends_the_same_again_in_order(self, shop: _Shop) -> None:
        webhook = await shop.webhook()
        await shop.happen()
        shop.clock.advance(seconds=60)
        since_ms = shop.clock.now_ms()
        await shop.happen(3)
        await shop.log_until(webhook, state=IntentState.DONE, count=4)
        again = await replay_since(shop.core, webhook.id, since_ms=since_ms, owner_id=shop.owner_id)
        got = await shop.receiver.until(7)
        after_all = await shop.log_until(webhook, state=IntentState.DONE, count=4)

        assert (again, numbers(got)) == (3, [2, 3, 4, 5, 3, 4, 5])
        assert [(one.id, one.body) for one in got[4:]] == [(one.id, one.body) for one in got[1:4]]
        assert len(after_all) == 4
        assert {parse("msg", one.id) for one in got} == {one.id for one in after_all}


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1:9/",
            "http://169.254.169.254/latest",
            "ftp://example.org/",
            "http://[::1]/",
            "http://x.local/",
        ],
    )
    async def test_inside_ones_are_refused(self, tmp_path: Path, url: str) -> None:
        async with open_shop(tmp_path, allow_private_endpoint_urls=False) as shop:
            with pytest.raises(InvalidField, match="url"):
                await add_webhook(shop.core, owner_id=shop.owner_id, url=url)

            assert await shop.out.webhooks.of_owner(shop.owner_id) == []

    async def test_one_that_resolves_inside_is_not_called(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A name that looked well when it was registered."""

        async def inside(*_: object, **__: object) -> list[dict[str, Any]]:
            return [{"hostname": "hook.example", "host": "10.0.0.1", "port": 80, "family": 2, "proto": 6, "flags": 0}]

        monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", inside)
        async with open_shop(tmp_path, allow_private_endpoint_urls=False) as shop:
            webhook = (await add_webhook(shop.core, owner_id=shop.owner_id, url="http://hook.example/")).webhook
            await shop.happen()
            (found,) = await shop.log_until(webhook)

        assert found.history[0].error == "not sent: hook.example resolves into a private network"


class TestStopping:
    async def test_what_a_stop_cuts_off_is_given_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Otherwise the next coordinator would wait until the claim lapses."""
        monkeypatch.setattr("comptoir.dispatch.outbox.CLOSE_S", 0.01)
        settings = Settings(data=str(tmp_path), port=0, allow_private_endpoint_urls=True, **QUICK)
        clock = FakeClock()
        async with receiving() as receiver:
            receiver.answers = [receiver.never]
            async with open_core(settings, clock=clock) as core:
                owner_id = (await add_user(core, username="ada", email=None, password=None)).user.id
                webhook = (await add_webhook(core, owner_id=owner_id, url=receiver.url)).webhook
                await core.ledger.deposit(owner_id=owner_id, amount_uusd=1)
                await receiver.until(1)
                rows = partial(core.db.fetch, "SELECT node_id, due_ms, attempts FROM outbox")
                ((claimed_by, lapses_ms, _),) = await rows()
            monkeypatch.setattr("comptoir.outbox.Outbox.free_claims", _nobody)
            async with open_core(settings, clock=clock) as core:
                first, second = await receiver.until(2)
                shop = _Shop(core, clock, owner_id, receiver)
                (done,) = await shop.log_until(webhook, state=IntentState.DONE)

        assert claimed_by is not None and lapses_ms > clock.now_ms()
        assert (first.id, done.attempts) == (second.id, 2)


async def _nobody(outbox: object, *, at_ms: int) -> int:
    """In place of what a lone coordinator does at its start."""
    return 0
