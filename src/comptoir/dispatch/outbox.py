"""Outbox: claim intents that are due, act on them outside, and write what became of it. Load, decide, apply.

What a kind of intent does outside, and what follows in its lane, is its actor's matter. Here is what holds for all: one
command writes the report on an attempt together with the lane's next intents, already claimed, so that a lane that has
much to send costs one commit an intent; no transaction is open while something is done outside; and whatever dies at
whatever moment leaves rows from which the next look goes on.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Collection, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

from comptoir.dispatch.core import Core
from comptoir.kit.db import Rows, Tx
from comptoir.kit.errors import Refusal, Unavailable
from comptoir.outbox import AttemptOutcome, Claimed, Outbox, intent_rows, next_step, wait_ms

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often what is due is looked for; new intents of this coordinator don't wait for it."""

WALK_EVERY = 5
"""Looks between two pages of lanes that are searched for what nobody told us of."""

PAGES_MAX = 8
"""Pages of due intents that one look reads, to find some whose lanes are not busy."""

FORGET_EVERY = 10
"""Looks between two times at which intents that have been over for long, or are too many of a lane, are deleted."""

LANES_MAX = 500
"""Lanes whose limits are asked for at once."""

CLOSE_S = 2.0
"""How long attempts under way may take to end when the coordinator stops."""

REPORT_AGAIN_S = 0.5
"""Pause before a report is written again, when the database was unavailable."""

Limit = tuple[Hashable, int]
"""What is counted, and the most of it that may be under way at once at this coordinator."""


@dataclass(frozen=True)
class LaneLimits:
    """What the attempts of one lane count against."""

    first: tuple[Limit, ...]
    """For those that have not been tried. The last one is the lane's own; others are shared with other lanes."""
    again: tuple[Limit, ...]
    """The same for those that have."""


class LaneTurn(Protocol):
    """One lane inside a command, locked until the commit."""

    @property
    def open(self) -> bool:
        """Whether its intents may be acted on; else they are parked."""
        ...

    def note(self, tx: Tx, outcome: AttemptOutcome, *, at_ms: int) -> str:
        """Write what an outcome means for the lane. Return why it is to be closed, or nothing."""
        ...

    def next_ids(self, tx: Tx, *, room: int, at_ms: int) -> Sequence[bytes]:
        """Put up to *room* further intents of the lane; return their ids."""
        ...


class Actor(Protocol):
    """Acts outside on the intents of one kind."""

    kind: str
    claim_s: float
    """How long a claim holds: longer than an attempt can take."""

    async def limits(self, lanes: Collection[bytes]) -> Mapping[bytes, LaneLimits]:
        """Return the limits of those lanes that are open."""
        ...

    async def act(self, claimed: Claimed) -> AttemptOutcome:
        """Try it, within the time of the claim. Never raises what the far side can cause."""
        ...

    def lane_rows(self, lane: bytes) -> Rows:
        """Return the rows that `turn` locks."""
        ...

    def turn(self, tx: Tx, lane: bytes) -> LaneTurn | None:
        """Lock and load a lane; None: it is gone, with its intents."""
        ...

    async def close_lane(self, lane: bytes, why: str) -> None:
        """Park a lane."""
        ...

    async def behind(self) -> Collection[bytes]:
        """Return lanes, of the next page of them, that may have something to send."""
        ...


class UnderWay:
    """Counts what is under way, by whatever is limited."""

    def __init__(self) -> None:
        self._taken: dict[Hashable, int] = {}

    def take(self, limits: Sequence[Limit]) -> bool:
        """Take one slot of each of *limits*, or none at all."""
        if any(self.is_full(limit) for limit in limits):
            return False
        for what, _ in limits:
            self._taken[what] = self._taken.get(what, 0) + 1
        return True

    def is_full(self, limit: Limit) -> bool:
        """Tell whether no slot of *limit* is left."""
        what, most = limit
        return self._taken.get(what, 0) >= most

    def release(self, limits: Sequence[Limit]) -> None:
        """Give them back."""
        for what, _ in limits:
            left = self._taken[what] - 1
            if left:
                self._taken[what] = left
            else:
                del self._taken[what]


class _Step(NamedTuple):
    """What one command did."""

    held: bool
    """False: the claim had lapsed, so nothing of the report was written."""
    claimed: list[Claimed]
    """Further intents of the lane, claimed."""
    why_close: str


class OutboxLoop:
    """Acts on the intents of one kind at this coordinator."""

    def __init__(self, core: Core, outbox: Outbox, actor: Actor, *, alone: bool) -> None:
        """Act for *core*; *alone*: no other coordinator works on the database, so old claims are those of the dead."""
        self._core = core
        self._outbox = outbox
        self._actor = actor
        self._slots = UnderWay()
        self._stirred: dict[bytes, LaneLimits | None] = {}
        """Lanes that may have something to put, in the order in which they were stirred; with their limits, once a lane
        has found no slot."""
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[bytes, Claimed] = {}
        """Claims of this coordinator, by intent."""
        self._used: set[bytes] = set()
        """Lanes with attempts since what is over was last deleted."""
        self._looks = 0
        self._look_now = False
        self._closing = False
        self._claims_of_the_dead = alone
        self._refused = ""
        """Why the last look was cut short; said once."""

    def stir(self, lane: bytes) -> None:
        """A lane may have something to put; never waits."""
        self._stirred.setdefault(lane)
        self._wake.set()

    def look_soon(self) -> None:
        """Something is due now; never waits."""
        self._look_now = True
        self._wake.set()

    # -- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            try:
                if not self._core.db.unavailable:
                    await self.look()
                    self._refused = ""
                await self._until_look()
            except Refusal as refusal:
                if refusal.message != self._refused:
                    log.warning("a look into the outbox was cut short: %s", refusal)
                self._refused = refusal.message
                await asyncio.sleep(LOOK_S)
            except Exception:  # The loop's edge: one failed look must not stop all later ones.
                log.exception("a look into the outbox failed")
                await asyncio.sleep(LOOK_S)

    async def _until_look(self) -> None:
        """Wait for the next look; meanwhile, put what stirred lanes have to send as soon as there are slots."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                while not self._look_now:
                    await self._wake.wait()
                    self._wake.clear()
                    if not self._core.db.unavailable:
                        await self._put_stirred()
        self._look_now = False

    async def look(self) -> None:
        """Claim what is due; every few times, search for lanes that nobody stirred."""
        if self._claims_of_the_dead:
            await self._outbox.free_claims(at_ms=self._core.common_ms())
            self._claims_of_the_dead = False
        if self._looks % WALK_EVERY == 0:
            for lane in await self._actor.behind():
                self._stirred.setdefault(lane)
        self._looks += 1
        await self._claim_due()
        await self._put_stirred()
        if self._looks % FORGET_EVERY == 0:
            used, self._used = self._used, set()
            await self._outbox.forget(at_ms=self._core.common_ms(), lanes=sorted(used))

    async def _claim_due(self) -> None:
        busy: set[bytes] = set()
        for _ in range(PAGES_MAX):
            found = await self._outbox.due(self._actor.kind, at_ms=self._core.common_ms(), but=busy)
            if not found:
                return
            limits = await self._actor.limits({one.lane for one in found})
            chosen: dict[bytes, tuple[Limit, ...]] = {}
            for one in found:
                lane = limits.get(one.lane)
                wanted = () if lane is None else lane.again if one.tried else lane.first
                if wanted and self._slots.take(wanted):
                    chosen[one.id] = wanted
                else:
                    busy.add(one.lane)
            if chosen:
                await self._claim(chosen)

    async def _claim(self, chosen: dict[bytes, tuple[Limit, ...]]) -> None:
        ids = sorted(chosen)
        now = self._core.common_ms()

        def command(tx: Tx) -> list[Claimed]:
            return Outbox.claim(tx, ids, node_id=self._core.node_id, at_ms=now, until_ms=now + self._claim_ms)

        try:
            for claimed in await self._core.db.run(command, locks=intent_rows(ids)):
                self._begin(claimed, chosen.pop(claimed.id))
        finally:
            for taken in chosen.values():
                self._slots.release(taken)

    @property
    def _claim_ms(self) -> int:
        return round(1000 * self._actor.claim_s)

    async def _put_stirred(self) -> None:
        unknown = [lane for lane, found in self._stirred.items() if found is None][:LANES_MAX]
        limits = await self._actor.limits(unknown) if unknown else {}
        for lane in unknown:
            if lane in limits:
                self._stirred[lane] = limits[lane]
            else:
                self._stirred.pop(lane, None)
        for lane, known in list(self._stirred.items()):
            if known is None:
                self._wake.set()  # It came meanwhile, or was one too many.
                continue
            room = 0
            while self._slots.take(known.first):
                room += 1
            if room:
                del self._stirred[lane]
                self._spawn(self._put(lane, known.first, room))

    async def _put(self, lane: bytes, taken: tuple[Limit, ...], room: int) -> None:
        used = 0
        try:
            step = await self._core.db.run(
                self._command(lane, None, None, room=room), locks=self._actor.lane_rows(lane)
            )
            for claimed in step.claimed:
                used += 1
                self._begin(claimed, taken)
        except Unavailable as refusal:
            log.warning("nothing could be put for a lane: %s", refusal)  # The walk comes by it again.
        finally:
            for _ in range(room - used):
                self._slots.release(taken)

    # -- one attempt ---------------------------------------------------------------------------------------------

    def _begin(self, claimed: Claimed, taken: tuple[Limit, ...]) -> None:
        self._held[claimed.id] = claimed
        self._used.add(claimed.lane)
        self._spawn(self._carry_out(claimed, taken))

    async def _carry_out(self, claimed: Claimed, taken: tuple[Limit, ...]) -> None:
        """Act on an intent, and on those of its lane that follow, as long as no other lane waits for slots."""
        lane = claimed.lane
        current: Claimed | None = claimed
        try:
            while current is not None:
                outcome = await self._actor.act(current)
                goes_on = current.first and not self._closing and not self._others_wait(lane, taken)
                step = await self._report(current, outcome, room=int(goes_on))
                self._held.pop(current.id, None)
                if step.why_close:
                    await self._actor.close_lane(lane, step.why_close)
                elif not goes_on:
                    self._stirred.setdefault(lane)
                current = step.claimed[0] if step.claimed else None
                if current is not None:
                    self._held[current.id] = current
        except (
            Exception
        ):  # The task's edge: the claim lapses, and what was acted on is acted on again, with the same id.
            log.exception("what became of an intent could not be written")
            if current is not None:
                self._held.pop(current.id, None)
        finally:
            self._slots.release(taken)
            if self._stirred:
                self._wake.set()

    def _others_wait(self, lane: bytes, taken: tuple[Limit, ...]) -> bool:
        """Tell whether another lane may be waiting for the slots that this one has *taken*: they take turns."""
        others = len(self._stirred) > (lane in self._stirred)
        return others and any(self._slots.is_full(limit) for limit in taken[:-1])

    async def _report(self, claimed: Claimed, outcome: AttemptOutcome, *, room: int) -> _Step:
        wait = wait_ms(
            claimed.attempt,
            of_attempts=claimed.attempts_end,
            retry_after_s=outcome.retry_after_s,
            luck=random.random(),
        )
        locks = [*intent_rows([claimed.id]), *self._actor.lane_rows(claimed.lane)]
        until_ms = self._core.common_ms() + self._claim_ms
        while True:
            command = self._command(claimed.lane, claimed, outcome, room=room, wait_ms=wait)
            try:
                return await self._core.db.run(command, locks=locks)
            except Unavailable:
                if self._core.common_ms() >= until_ms:
                    raise
                await asyncio.sleep(REPORT_AGAIN_S)

    def _command(
        self, lane: bytes, claimed: Claimed | None, outcome: AttemptOutcome | None, *, room: int, wait_ms: int = 0
    ) -> "_LaneCommand":
        now = self._core.common_ms()
        return _LaneCommand(
            self._actor, lane, claimed, outcome, room=room, wait_ms=wait_ms, at_ms=now, until_ms=now + self._claim_ms,
            node_id=self._core.node_id,
        )  # fmt: skip

    # -- the end -------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("acting on an intent failed", exc_info=task.exception())

    async def close(self) -> None:
        """Wait a moment for what is under way, then cut it off and give the claims back."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        now = self._core.common_ms()
        held, self._held = list(self._held.values()), {}
        with contextlib.suppress(Unavailable):  # They lapse.
            for claimed in held:
                await self._core.db.run(partial(Outbox.give_back, claimed=claimed, due_ms=now))


class _LaneCommand:
    """The command of one lane: report on an attempt, if there was one, then put and claim what follows."""

    def __init__(
        self,
        actor: Actor,
        lane: bytes,
        claimed: Claimed | None,
        outcome: AttemptOutcome | None,
        *,
        room: int,
        wait_ms: int,
        at_ms: int,
        until_ms: int,
        node_id: bytes,
    ) -> None:
        self._actor = actor
        self._lane = lane
        self._claimed = claimed
        self._outcome = outcome
        self._room = room
        self._wait_ms = wait_ms
        self._at_ms = at_ms
        self._until_ms = until_ms
        self._node_id = node_id

    def __call__(self, tx: Tx) -> _Step:
        turn = self._actor.turn(tx, self._lane)
        if turn is None:
            return _Step(False, [], "")
        why = ""
        if self._claimed is not None and self._outcome is not None:
            state, due_ms = next_step(self._claimed, self._outcome, now_ms=self._at_ms, wait_ms=self._wait_ms)
            if not turn.open:
                due_ms = None
            held = Outbox.report(
                tx, self._claimed, self._outcome.attempt, state=state, due_ms=due_ms, at_ms=self._at_ms
            )
            if not held:
                return _Step(False, [], "")
            why = turn.note(tx, self._outcome, at_ms=self._at_ms)
        if why or not turn.open or not self._room:
            return _Step(True, [], why)
        ids = turn.next_ids(tx, room=self._room, at_ms=self._at_ms)
        return _Step(True, Outbox.claim(tx, ids, node_id=self._node_id, at_ms=self._at_ms, until_ms=self._until_ms), "")
