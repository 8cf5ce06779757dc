"""The promises of webhooks, searched for a counterexample: two coordinators put, claim, send, report, die and stall in
any order on one database, and afterwards every event was sent, under one id, and first in the order of the numbers."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from comptoir.dispatch.outbox import _LaneCommand
from comptoir.dispatch.webhooks import WEBHOOK, _message, _WebhookTurn
from comptoir.events import TABLES as EVENTS_TABLES
from comptoir.events import CreditAdded, Events, JobEnded, NumberedEvent
from comptoir.kit.db import Tx, ddl, open_database
from comptoir.outbox import TABLES as OUTBOX_TABLES
from comptoir.outbox import Attempt, AttemptOutcome, Claimed, IntentState, Outbox
from comptoir.webhooks import TABLES as WEBHOOKS_TABLES
from comptoir.webhooks import Webhook, Webhooks, WebhookState
from tests.machines import LoopMachine, check

ANN, HOOK = b"a" * 16, b"w" * 16
NODES = (b"1" * 16, b"2" * 16)
CLAIM_MS = 1_000

webhook = Webhook(
    id=HOOK, owner_id=ANN, url="http://a.example/", types=("money.added",), note="", parallel=1,
    state=WebhookState.ACTIVE, why="", cursor=0, failing_since_ms=None, old_secret_until_ms=None, created_ms=0,
)  # fmt: skip


class _TurnsOnly:
    """As much of an actor as a command takes."""

    def turn(self, tx: Tx, lane: bytes) -> _WebhookTurn | None:
        found = Webhooks.load(tx, lane)
        return _WebhookTurn(found) if found is not None else None


class WebhookMachine(LoopMachine):
    """Steps of two coordinators, and what the far side got."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.db = self.wait(_opened(Path(self.folder.name) / "outbox.db"))
        self.outbox = Outbox(self.db)
        self.now = 0
        self.events = 0
        self.wanted: list[int] = []
        """Numbers of the events that the webhook wants."""
        self.held: dict[bytes, list[Claimed]] = {node: [] for node in NODES}
        """What each coordinator has claimed and not sent yet,"""
        self.sent: dict[bytes, list[Claimed]] = {node: [] for node in NODES}
        """and what it has sent and not reported yet."""
        self.got: list[tuple[int, bytes]] = []
        """What the far side got: number and id."""
        self.done: set[bytes] = set()
        """What is known to be delivered."""

    def run(self, command: Any) -> Any:
        async def ran() -> Any:
            return await self.db.run(command)

        return self.wait(ran())

    def lane(
        self, node: bytes, claimed: Claimed | None = None, outcome: AttemptOutcome | None = None, *, room: int = 1
    ) -> bool:
        step = self.run(
            _LaneCommand(
                _TurnsOnly(), HOOK, claimed, outcome, room=room, wait_ms=500, at_ms=self.now,  # type: ignore[arg-type]
                until_ms=self.now + CLAIM_MS, node_id=node,
            )
        )  # fmt: skip
        self.take(node, step.claimed)
        return bool(step.held)

    def take(self, node: bytes, claimed: list[Claimed]) -> None:
        assert not self.done.intersection(one.id for one in claimed), "what is delivered is not sent again"
        self.held[node] += claimed

    @rule()
    def happen(self) -> None:
        """An event, of a type that is wanted or, every third, of one that is not."""
        self.events += 1
        number, subject = self.events, self.events.to_bytes(16, "big")
        event: NumberedEvent = CreditAdded(ANN, self.now, number, subject, 1, "deposit")
        if number % 3:
            self.wanted.append(number)
        else:
            event = JobEnded(ANN, self.now, number, subject, "completed", 1)
        self.run(lambda tx: Events.insert_rows(tx, [event]))

    @rule(node=st.sampled_from(NODES), room=st.integers(1, 3))
    def put(self, node: bytes, room: int) -> None:
        """Coordinators are stirred by what they heard, late or twice."""
        self.lane(node, room=room)

    @precondition(lambda self: any(self.held.values()))
    @rule(node=st.sampled_from(NODES), data=st.data())
    def send(self, node: bytes, data: st.DataObject) -> None:
        if self.held[node]:
            claimed = self.held[node].pop(data.draw(st.integers(0, len(self.held[node]) - 1)))
            self.got.append((claimed.number, claimed.id))
            self.sent[node].append(claimed)

    @precondition(lambda self: any(self.sent.values()))
    @rule(node=st.sampled_from(NODES), done=st.booleans())
    def report(self, node: bytes, done: bool) -> None:
        if self.sent[node]:
            claimed = self.sent[node].pop(0)
            if self.lane(node, claimed, AttemptOutcome(Attempt(self.now, 1), done=done)) and done:
                self.done.add(claimed.id)

    @rule(node=st.sampled_from(NODES), ms=st.sampled_from((0, 500, 1_000)))
    def claim(self, node: bytes, ms: int) -> None:
        """Time passes: back-offs end, and claims lapse while their holders still believe in them."""
        self.now += ms
        ids = [one.id for one in self.wait(self.outbox.due(WEBHOOK, at_ms=self.now))]
        until_ms = self.now + CLAIM_MS
        self.take(node, self.run(lambda tx: Outbox.claim(tx, ids, node_id=node, at_ms=self.now, until_ms=until_ms)))

    @rule(node=st.sampled_from(NODES))
    def die(self, node: bytes) -> None:
        """What it held lapses."""
        self.held[node], self.sent[node] = [], []

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.wait(self.db.close())
            self.folder.cleanup()
            super().teardown()

    def finish(self) -> None:
        """Let one coordinator do what is left, and compare."""
        self.die(NODES[1])
        node = NODES[0]
        for _ in range(4 * self.events + 8):
            for claimed in self.held[node]:
                self.got.append((claimed.number, claimed.id))
                self.sent[node].append(claimed)
            self.held[node] = []
            while self.sent[node]:
                self.report(node, True)
            self.put(node, 1)
            self.claim(node, CLAIM_MS)
        stored = self.wait(self.outbox.page(HOOK, limit=200))
        firsts = list(dict.fromkeys(number for number, _ in self.got))

        assert {one.state for one in stored} <= {IntentState.DONE}
        assert firsts == self.wanted, "each is sent, the first time in order"
        assert len(set(self.got)) == len(self.wanted), "whenever it is sent, under the same id"


def test_a_number_that_comes_again_for_something_else_has_another_id() -> None:
    """As after lost commits: a receiver that remembers ids would drop it."""
    first, other = (CreditAdded(ANN, 5, 7, subject * 16, 1, "deposit") for subject in (b"1", b"2"))

    assert _message(webhook, first).id == _message(webhook, first).id != _message(webhook, other).id


async def _opened(path: Path) -> Any:
    db = open_database(str(path))
    for table in (*EVENTS_TABLES, *OUTBOX_TABLES, *WEBHOOKS_TABLES):
        for statement in ddl(table, "sqlite"):
            await db.run(lambda tx, sql=statement: tx.execute(sql))
    await db.run(lambda tx: Webhooks.insert(tx, webhook, b"sealed", cursor=0, most=1))
    return db


def test_each_event_is_sent_in_order_under_one_id() -> None:
    check(WebhookMachine, examples=40, steps=30)
