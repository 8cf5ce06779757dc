"""Reads that may take long: lists, statements, reports. A few threads run them, each on a connection of its own.

Only the queue is in the event loop. Callers take turns, and one caller has one thread and only part of its time, so
that a slow list holds up nobody but the caller's own next one. Whoever hangs up (is cancelled) leaves the queue, or has
the statement interrupted that runs for it.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

from comptoir.kit.db.store import Reading
from comptoir.kit.errors import Unavailable

T = TypeVar("T")

READERS_MAX = 4
"""Reads that run at once: threads, and connections to the database."""

READERS_OF_NOBODY_MAX = 3
"""Of those, for reads on nobody's behalf; for one caller it is one."""

AUDITS_WAITING_MAX = 8
"""Reads of everything that may wait for the one that runs; more are refused."""

READS_WAITING_MAX = 2_000
"""Reads that may wait for a thread, all callers together; more are refused with `Unavailable`."""

READS_WAITING_OF_ONE_MAX = 64
"""Of those, for one caller."""

READ_S_MAX = 20.0
"""A read that takes longer is interrupted and refused."""

INTERRUPT_AGAIN_S = 0.1
"""How often a read that nobody needs any more is interrupted, until it ends."""

REST_FACTOR = 2
"""A caller's next read begins no sooner than so many times what its last one took, so that somebody who lists without
pause takes a third of one thread."""

REST_S_MAX = 2.0
"""Longest of these pauses."""

TOO_MANY = "too many lists are being read; try again in a moment"


class _Caller:
    """What one caller has here."""

    __slots__ = ("busy", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Read[Any]] = deque()
        self.busy = 0
        """Reads that run, or whose pause runs."""


class _Read(Generic[T]):
    """One read: its turn, and the connection that it uses."""

    __slots__ = ("_look", "began_s", "interrupting", "late", "of", "over", "reading", "stopped", "turn")

    def __init__(self, look: Callable[[Reading], T], of: bytes | None, turn: "asyncio.Future[None]") -> None:
        self._look = look
        self.of = of
        self.turn = turn
        """Resolved when it may have a thread."""
        self.began_s = 0.0
        """When it got one, on `time.monotonic`."""
        self.reading: Reading | None = None
        """Set in the thread."""
        self.stopped = False
        """Nobody needs its result any more."""
        self.late = False
        """It was stopped because it took too long."""
        self.over = False
        """Its thread is done."""
        self.interrupting: asyncio.Future[None] | None = None

    def work(self, take: Callable[[], Reading]) -> T:
        """Run it; in a thread."""
        try:
            if self.stopped:
                raise Unavailable(TOO_MANY)
            self.reading = take()
            return self._look(self.reading)
        finally:
            self.over = True

    def interrupt(self) -> None:
        """Interrupt its statement, if there is one; in another thread."""
        if self.reading is not None:
            self.reading.interrupt()


class Readers:
    """The queue and its threads; for the event loop that makes it, except `close`."""

    def __init__(
        self,
        connect: Callable[[], Reading],
        *,
        name: str,
        threads: int = READERS_MAX,
        waiting_max: int = READS_WAITING_MAX,
        read_s_max: float | None = READ_S_MAX,
    ) -> None:
        """Read over connections that *connect* opens, at most *threads* at once.

        Args:
            name: the threads' name.
            read_s_max: a read that takes longer is interrupted and refused; None: however long it takes.
        """
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._threads, self._waiting_max, self._read_s_max = threads, waiting_max, read_s_max
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._idle: list[Reading] = []
        self._callers: dict[bytes | None, _Caller] = {}
        """In the order of their turns; those with reads that wait, run or pause."""
        self._running: set[_Read[Any]] = set()
        self._closed = False
        self.waiting = 0
        """Reads that wait for their turn."""

    @property
    def running(self) -> int:
        """Number of reads that have a thread."""
        return len(self._running)

    @property
    def since_s(self) -> float:
        """When the oldest of those that run began, on `time.monotonic`; infinite if none runs."""
        return min([read.began_s for read in self._running if read.began_s], default=math.inf)

    async def run(self, look: Callable[[Reading], T], *, of: bytes | None) -> T:
        """Run *look* in a thread, with a connection of its own.

        Args:
            of: for whom: the owner of what is read. None: for nobody in particular.

        Raises:
            Unavailable: too many reads wait, or this one took too long.
        """
        read = _Read(look, of, self._loop.create_future())
        await self._enter(read)
        if self._closed:
            self._leave(read, pause_s=0.0)
            raise Unavailable("the coordinator is stopping")
        read.began_s = time.monotonic()
        work = self._loop.run_in_executor(self._pool, read.work, self._take)
        work.add_done_callback(partial(self._ended, read))
        timer = self._loop.call_later(self._read_s_max, self._stop, read, True) if self._read_s_max else None
        try:
            # The thread is taken until it is done, whether or not somebody still waits.
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._stop(read, False)
            raise
        except Exception as error:
            if read.late:
                words = f"reading this took longer than {self._read_s_max:g} s; ask for less at once, or by key"
                raise Unavailable(words) from error
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Interrupt what runs, wait for the threads and close the connections; in any thread."""
        self._closed = True
        running = self._running.copy()
        for read in running:
            read.stopped = True
        while left := [read for read in running if read.began_s and not read.over]:
            for read in left:  # Again and again, as in `_interrupt`.
                read.interrupt()
            time.sleep(INTERRUPT_AGAIN_S / 10)
        self._pool.shutdown()
        for reading in {*self._idle, *(read.reading for read in running if read.reading is not None)}:
            reading.close()

    # -- turns ---------------------------------------------------------------------------------------------------

    async def _enter(self, read: _Read[Any]) -> None:
        """Wait until *read* may have a thread; when this returns it is counted as running."""
        caller = self._callers.setdefault(read.of, _Caller())
        if self.waiting >= self._waiting_max or (
            read.of is not None and len(caller.waiting) >= READS_WAITING_OF_ONE_MAX
        ):
            raise Unavailable(TOO_MANY)
        caller.waiting.append(read)
        self.waiting += 1
        self._give_turns()
        if read.turn.done():
            return
        try:
            await read.turn
        except asyncio.CancelledError:
            if read.turn.cancelled():
                caller.waiting.remove(read)
                self.waiting -= 1
                self._forget_idle(read.of)
            else:  # Its turn came in the same moment, and goes to the next.
                self._leave(read, pause_s=0.0)
            raise

    def _give_turns(self) -> None:
        while self.waiting and len(self._running) < self._threads:
            for of, caller in self._callers.items():
                if caller.waiting and caller.busy < (1 if of is not None else READERS_OF_NOBODY_MAX):
                    break
            else:
                return
            # Last in the order from now on.
            self._callers[of] = self._callers.pop(of)
            read = caller.waiting.popleft()
            self.waiting -= 1
            caller.busy += 1
            self._running.add(read)
            read.turn.set_result(None)

    def _leave(self, read: _Read[Any], *, pause_s: float) -> None:
        """Give the thread of *read* to the next; its caller's next one after a pause."""
        self._running.discard(read)
        if read.reading is not None:
            self._idle.append(read.reading)
        if pause_s and read.of is not None:
            self._loop.call_later(pause_s, self._paused, read.of)
            self._give_turns()
        else:
            self._paused(read.of)

    def _paused(self, of: bytes | None) -> None:
        self._callers[of].busy -= 1
        self._forget_idle(of)
        self._give_turns()

    def _forget_idle(self, of: bytes | None) -> None:
        caller = self._callers[of]
        if not caller.busy and not caller.waiting:
            del self._callers[of]

    # -- threads -------------------------------------------------------------------------------------------------

    def _take(self) -> Reading:
        """Return an idle connection, else a new one; in a thread."""
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        return self._connect()

    def _stop(self, read: _Read[Any], late: bool) -> None:
        if read in self._running and not read.stopped:
            read.stopped, read.late = True, late
            self._interrupt(read)

    def _interrupt(self, read: _Read[Any]) -> None:
        """Interrupt what runs for *read*, in a thread, because PostgreSQL is told over a connection of its own; again
        and again, because what comes just before a statement begins stops nothing."""
        if read.over:
            return
        if read.interrupting is None or read.interrupting.done():
            read.interrupting = self._loop.run_in_executor(None, read.interrupt)
        self._loop.call_later(INTERRUPT_AGAIN_S, self._interrupt, read)

    def _ended(self, read: _Read[Any], work: "asyncio.Future[Any]") -> None:
        if not work.cancelled():
            work.exception()  # Whoever waited for it may be gone.
        pause_s = min((time.monotonic() - read.began_s) * REST_FACTOR, REST_S_MAX)
        if read.interrupting is None or read.interrupting.done():
            self._leave(read, pause_s=pause_s)
        else:
            # What is still on its way to the server must not hit the next read of this connection.
            read.interrupting.add_done_callback(lambda _: self._leave(read, pause_s=pause_s))
