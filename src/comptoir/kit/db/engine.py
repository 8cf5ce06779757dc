"""The writer thread with group commit, and the database interface for everything else."""

import asyncio
import contextlib
import importlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from comptoir.kit.db.group import Command, GroupRunner, Outcomes
from comptoir.kit.db.heads import CommitsLost, HeadMismatch
from comptoir.kit.db.locks import Rows
from comptoir.kit.db.points import few_query, keys_query, point_query
from comptoir.kit.db.readers import AUDITS_WAITING_MAX, Readers
from comptoir.kit.db.record import CommitRecord
from comptoir.kit.db.schema import Table
from comptoir.kit.db.sqlite import SqliteStore
from comptoir.kit.db.store import OUT_OF_REACH, Look, Reading, Store
from comptoir.kit.db.tx import Row, Tx
from comptoir.kit.errors import Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741


COMMANDS_WAITING_MAX = 20_000
"""Commands that may wait for the writer; more are refused with `Unavailable`. At 10,000 a second, 2 s of work."""

BATCH_MAX = 512
"""Most commands in one transaction: enough to amortise the fsync, few enough to keep the first one's wait short."""

RETRIES_MAX = 3
"""Times a batch runs again after a deadlock or a lost connection."""

AGAIN_S = 0.2
"""Pause between two attempts to reach an unavailable database."""

ANSWER_S = 5.0
"""If a group or read takes longer, the server is checked for an answer; until it ends, commands are refused."""

FEW_ROWS_MAX = 16
"""Rows that are read like a point: about 30 us on SQLite."""

WATCH_S = 0.5
"""How often the event loop checks how long the writer has been busy with one group."""


_despite_loss: ContextVar[bool] = ContextVar("despite_loss", default=False)


@contextlib.contextmanager
def despite_loss() -> Iterator[None]:
    """Have commands that are submitted in this block run although commits are missing: heartbeats, and what repairs.

    Their notes are not part of the record; the epoch that ends the loss sums them up.
    """
    token = _despite_loss.set(True)
    try:
        yield
    finally:
        _despite_loss.reset(token)


@dataclass(slots=True)
class WriterStats:
    """The writer's counters, for metrics and benchmarks."""

    commits: int = 0
    commands: int = 0
    cpu_s: float = 0.0
    """CPU seconds of the writer thread."""
    commit_s: float = 0.0
    """Wall seconds spent in COMMIT (the fsync)."""
    by_verb: dict[str, int] = field(default_factory=dict)


class Database:
    """One writer, one reader of points, several of lists. All methods are for the event loop that opened it."""

    def __init__(self, store: Store) -> None:
        self.dialect = store.dialect
        self.stats = WriterStats()
        self._store = store
        self._group = GroupRunner(store, self.stats.by_verb)
        self._queue: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self.record: CommitRecord | None = None
        """What this process confirmed, and whether the database still has it; set by `attach`."""
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="comptoir-reader") if store.remote else None
        """For point reads of a server."""
        self._lists = Readers(store.open_reading, name="comptoir-lists")
        self._audits = Readers(
            store.open_reading, name="comptoir-audit", threads=1, waiting_max=AUDITS_WAITING_MAX, read_s_max=None
        )
        self._out = False
        """Set and cleared by the writer: it can't reach the database, and keeps retrying."""
        self._slow = False
        """Set and cleared by `_watch`: the current group or read takes too long."""
        self._writing_s = self._reading_s = 0.0
        """When each thread's current group or statement began; 0 if it is idle."""
        self._asking: threading.Thread | None = None
        self._timer = self._loop.call_later(WATCH_S, self._watch) if store.remote else None
        self._refused_s = -math.inf
        """When the store last refused to write a group that had begun, on `time.monotonic`."""
        self._thread = threading.Thread(target=self._work, name="comptoir-writer", daemon=True)
        self._thread.start()

    async def attach(self, record: CommitRecord) -> None:
        """Compare *record* with the database, and keep it from now on. Call it once, before anything is noted.

        While commits are missing (`lost`), commands are refused with `CommitsLost`, but for those of `despite_loss`.
        """

        def command(tx: Tx) -> None:
            self.record = record
            record.compare(tx)

        await self.run(command)
        record.attached = True

    async def compare(self) -> None:
        """Compare the record with the database now.

        Raises:
            Unavailable: the database is unavailable.
        """
        record = self.record
        assert record is not None
        with despite_loss():
            await self.run(record.compare)

    @property
    def lost(self) -> bool:
        """Whether commits that were confirmed are missing from the database."""
        return self.record is not None and self.record.lost

    def run(self, command: Callable[[Tx], T], *, locks: Rows = ()) -> "asyncio.Future[T]":
        """Run *command* in a savepoint of the next group; the future resolves after the commit.

        *locks* are the rows that it selects with ``lock``: declaring them beforehand keeps groups from deadlocking.

        Raises (in the future): whatever *command* raised, with nothing of it written; `Unavailable` if the database is
        unavailable (then at once), too many commands wait, or the coordinator is stopping.
        """
        return self._put(Command(command, None, False, 0, self._loop.create_future(), locks))

    def batch(
        self, verb: Callable[[Tx, list[I]], list[T | Exception]], item: I, *, turn: int = 0
    ) -> "asyncio.Future[T]":
        """Run *item* together with all other waiting items of *verb* (load, decide, apply once for all).

        Verbs in one group run in the order of *turn*: a step that may follow another before that one is known to be
        written (a settlement after a start) has the higher number. A verb that decides on rows which other coordinators
        may change too declares them with `locking`.

        *verb* returns one outcome per item in order; an exception in the list is raised for that item
        alone. If *verb* itself raises, each item runs alone, so one bad item never poisons the others.
        """
        return self._put(Command(verb, item, True, turn, self._loop.create_future()))

    async def fetch(self, sql: str, params: Sequence[Any] = (), *, of: bytes | None = None) -> list[Row]:
        """Run one query in a thread, off the event loop: whatever is no point read (`fetch_point`, `fetch_few`).

        Args:
            of: for whom: the owner whose list it is, who may have one at a time (`comptoir.kit.db.readers`).

        Raises:
            Unavailable: the database is unavailable, too many reads wait, or this one took too long.
        """
        return await self._read_off(self._lists, lambda reading: reading.read(sql, params), of)

    async def fetch_snapshot(self, look: Look[T], *, of: bytes | None = None) -> T:
        """Run *look* in a thread like `fetch`; its queries see one moment, and it may compute for a few milliseconds.

        Raises:
            Unavailable: as `fetch`.
        """
        return await self._read_off(self._lists, lambda reading: reading.snapshot(look), of)

    async def read_snapshot(self, look: Look[T]) -> T:
        """Run *look* over one snapshot in a thread of its own, however long it takes: for an audit of everything.

        It blocks neither writers nor other reads, and does not see what is committed meanwhile. One at a time: others
        wait for it.

        Raises:
            Unavailable: the database is unavailable, or too many wait already.
        """
        return await self._read_off(self._audits, lambda reading: reading.snapshot(look), None)

    async def _read_off(self, readers: Readers, look: Callable[[Reading], T], of: bytes | None) -> T:
        if self._closing:
            raise Unavailable("the coordinator is stopping")
        self._require_available()
        try:
            return await readers.run(look, of=of)
        except Exception as error:
            raise self._refusal_of(error) from error

    async def fetch_point(
        self, table: Table, columns: tuple[str, ...], key: tuple[Any, ...], *, by: tuple[str, ...] = ()
    ) -> Row | None:
        """Return the row of *table* whose primary key (or unique columns *by*) is *key*; None: there is none.

        Inline on SQLite (5 us) unless the table is `Table.wide`, in a thread of its own on PostgreSQL.

        Args:
            columns: names, or ``length(name)`` for a text or bytes that may be large.

        Raises:
            Unavailable: the database is unavailable.
        """
        rows = await self._read_by_key(table, point_query(table, columns, by or table.key), key)
        return rows[0] if rows else None

    async def fetch_few(
        self, table: Table, columns: tuple[str, ...], key: tuple[Any, ...], *, by: tuple[str, ...]
    ) -> list[Row]:
        """Return the rows of *table* whose columns *by*, which begin its primary key or an index, are *key*.

        They come in the order of the primary key. As fast as `fetch_point`, if there are at most `FEW_ROWS_MAX`; more
        are read like a list.

        Raises:
            Unavailable: as `fetch`.
        """
        rows = await self._read_by_key(table, few_query(table, columns, by, FEW_ROWS_MAX + 1), key)
        return rows if len(rows) <= FEW_ROWS_MAX else await self.fetch(few_query(table, columns, by, None), key)

    async def fetch_keys(
        self, table: Table, columns: tuple[str, ...], keys: Sequence[Any], *, of: bytes | None = None
    ) -> list[Row]:
        """Return the rows of *table* whose key (its first column, if it has several) is one of *keys*, in no order.

        As fast as `fetch_point` for at most `FEW_ROWS_MAX` keys; more (at most 1,000) are read like a list.

        Raises:
            Unavailable: as `fetch`.
        """
        if not keys:
            return []
        if len(keys) > FEW_ROWS_MAX:
            return await self.fetch(keys_query(table, columns, len(keys)), keys, of=of)
        return await self._read_by_key(table, keys_query(table, columns, len(keys)), keys)

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an SQL expression that reads no table, such as the server's time.

        Raises:
            Unavailable: the database is unavailable.
        """
        assert "SELECT" not in expression.upper(), "an expression reads no table"
        ((value,),) = await self._read_point(f"SELECT {expression}", ())
        return value

    async def _read_by_key(self, table: Table, sql: str, params: Sequence[Any]) -> list[Row]:
        if table.wide and not self._store.remote:
            return await self.fetch(sql, params)
        return await self._read_point(sql, params)

    async def _read_point(self, sql: str, params: Sequence[Any]) -> list[Row]:
        try:
            if self._readers is None:
                return self._store.read(sql, params)
            return await self._loop.run_in_executor(self._readers, self._read, sql, params)
        except Exception as error:
            raise self._refusal_of(error) from error

    def _read(self, sql: str, params: Sequence[Any]) -> list[Row]:
        self._require_available()
        self._reading_s = time.monotonic()
        try:
            return self._store.read(sql, params)
        finally:
            self._reading_s = 0.0

    def _require_available(self) -> None:
        if self._store.remote and self.unavailable:
            raise Unavailable(OUT_OF_REACH)

    def _refusal_of(self, error: Exception) -> Unavailable:
        """Return what callers of a read get for an outage, and have the writer look for itself; raise anything else."""
        if not self._store.is_outage(error):
            raise error
        if not self.unavailable:
            # The writer may be idle and not have noticed the outage yet.
            self.run(_nothing).add_done_callback(_heard)
        return Unavailable(self._store.outage_words(error))

    @property
    def refused_within_s(self) -> float:
        """Seconds since the store last refused a write that had begun (a full disk); infinite if it never did."""
        return time.monotonic() - self._refused_s

    @property
    def unavailable(self) -> bool:
        """Whether the database is known to be unreachable or too slow: commands and reads are then refused at once."""
        return self._out or self._slow

    async def wait_available(self) -> None:
        """Wait until the database is available, and misses no commits."""
        while self.unavailable or self.lost:  # noqa: ASYNC110 (set by the writer, another thread; nothing here can be awaited)
            await asyncio.sleep(AGAIN_S)

    @property
    def waiting(self) -> int:
        """Number of commands that wait for the writer."""
        return self._queue.qsize()

    async def close(self) -> None:
        """Finish waiting commands, then close the connections; idempotent."""
        if self._closing:
            return
        self._closing = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._lists.close)
        await asyncio.to_thread(self._audits.close)
        if self._readers is not None:
            await asyncio.to_thread(self._readers.shutdown)
        if self._timer is not None:
            self._timer.cancel()
        self._store.close()

    def _put(self, command: Command) -> "asyncio.Future[Any]":
        future = command.future
        if self._closing:
            future.set_exception(Unavailable("the coordinator is stopping"))
        elif self.unavailable:
            future.set_exception(Unavailable(OUT_OF_REACH))
        elif self._queue.qsize() >= COMMANDS_WAITING_MAX:
            future.set_exception(Unavailable("too many commands wait for the database"))
        elif self.lost and not _despite_loss.get():
            future.set_exception(CommitsLost())
        else:
            command.despite_loss = _despite_loss.get()
            self._queue.put(command)
        return future

    def _refuse_waiting(self) -> None:
        """Refuse commands that were queued before the database was known to be unavailable."""
        last = False
        while True:
            try:
                command = self._queue.get_nowait()
            except queue.Empty:
                break
            if command is None:
                last = True
            elif not command.future.done():
                command.future.set_exception(Unavailable(OUT_OF_REACH))
        if last:
            self._queue.put(None)

    def _watch(self) -> None:
        """Check how long the threads have been busy, and if too long, whether the server still answers."""
        self._timer = self._loop.call_later(WATCH_S, self._watch)
        now = time.monotonic()
        writing, reading = ((now - since if since else 0.0) for since in (self._writing_s, self._reading_s))
        if writing > ANSWER_S and not self._slow:
            log.error("the database has not answered for %.0f s: commands are refused until it does", writing)
            self._slow = True
            self._refuse_waiting()
        elif writing <= ANSWER_S:
            self._slow = False
        listing = now - min(self._lists.since_s, self._audits.since_s)
        if max(writing, reading, listing) > ANSWER_S and (self._asking is None or not self._asking.is_alive()):
            self._asking = threading.Thread(target=self._ask, name="comptoir-asking", daemon=True)
            self._asking.start()

    def _ask(self) -> None:
        """Break the connections to a server that does not answer; one that answers is working or waiting for a lock."""
        if not self._store.answers():
            log.error("the database server does not answer: its connections are cut")
            self._store.cut()
        else:
            time.sleep(ANSWER_S)

    # -- the writer thread ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        last = False
        while not last:
            group: list[Command] = []
            command = self._queue.get()
            while True:
                if command is None:
                    last = True
                    break
                group.append(command)
                if len(group) == BATCH_MAX:
                    break
                try:
                    command = self._queue.get_nowait()
                except queue.Empty:
                    break
            if group:
                cpu = time.thread_time()
                self._writing_s = time.monotonic()
                outcomes = self._commit(group)
                self._writing_s = 0.0
                self.stats.cpu_s += time.thread_time() - cpu
                self._deliver(outcomes)
            if self._out:
                self._try_again()

    def _go_out(self, error: Exception) -> None:
        """Note that the database can't be reached, and have waiting commands refused in the event loop."""
        if not self._out:
            log.error("the database is out of reach, commands are refused: %s", error)
            self._out = True
            with contextlib.suppress(RuntimeError):  # The event loop is closed, and nobody waits any more.
                self._loop.call_soon_threadsafe(self._refuse_waiting)

    def _try_again(self) -> None:
        """Retry until the database can be reached or the coordinator stops."""
        began = time.monotonic()
        while not self._closing:
            self._writing_s = time.monotonic()
            try:
                self._store.begin()
                self._store.rollback()
            except Exception as error:  # A loop's edge: still unavailable, for whatever reason; logged and retried.
                log.debug("the database is still out of reach: %s", error, exc_info=True)
                self._writing_s = 0.0
                time.sleep(AGAIN_S)
                continue
            log.warning("the database is back after %.1f s", time.monotonic() - began)
            break
        self._writing_s = 0.0
        self._out = False

    def _deliver(self, outcomes: Outcomes) -> None:
        try:
            self._loop.call_soon_threadsafe(self._resolve, outcomes)
        except RuntimeError:
            log.warning("the event loop is gone; %d committed commands had nobody waiting", len(outcomes))

    def _resolve(self, outcomes: Outcomes) -> None:
        """Answer the callers, in the event loop."""
        if not self._writing_s:
            self._slow = False
        for command, result, error in outcomes:
            future = command.future
            if future.done():  # The caller was cancelled; what was written stays written.
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _commit(self, group: list[Command]) -> Outcomes:
        store, record = self._store, self.record
        refused: Outcomes = []
        for attempt in range(RETRIES_MAX + 1):
            outcomes, begun = None, False
            try:
                store.begin()
                begun = True
                if record is not None:
                    record.drop()
                    if store.reconnected:
                        record.compare(store.tx)
                        store.reconnected = False
                    if record.lost:
                        refused += [(command, None, CommitsLost()) for command in group if not command.despite_loss]
                        group = [command for command in group if command.despite_loss]
                outcomes = self._group.run(group) if group else []
                if record is not None and record.lost and not all(command.despite_loss for command in group):
                    raise HeadMismatch
                move = record.move(store.tx.notes) if record is not None else None
                before = time.perf_counter()
                store.commit(move)
                self.stats.commit_s += time.perf_counter() - before
                return refused + self._counted(outcomes)
            except HeadMismatch:  # The next attempt finds out what is missing, and refuses what may not be written.
                self._rollback()
                store.reconnected = True
            except Exception as error:  # The loop's edge: any database error must reach the callers.
                self._rollback()
                again = begun and store.retryable(error)
                if not begun and store.remote:
                    self._go_out(error)
                if again and outcomes is not None:
                    happened = self._happened()
                    if happened:
                        return refused + self._counted(outcomes)
                    again = happened is not None
                if attempt < RETRIES_MAX and again:
                    continue
                log.error("the group of %d commands was not written: %s", len(group), error, exc_info=error)
                if not store.is_outage(error):
                    return refused + [(command, None, error) for command in group]
                if not store.remote:
                    self._refused_s = time.monotonic()
                refusal = Unavailable(store.outage_words(error))
                return refused + [(command, None, refusal) for command in group]
        return refused + [(command, None, CommitsLost()) for command in group]

    def _counted(self, outcomes: Outcomes) -> Outcomes:
        if self.record is not None:
            self.record.confirm()
        self.stats.commits += 1
        self.stats.commands += len(outcomes)
        return outcomes

    def _happened(self) -> bool | None:
        """Find out whether an unanswered commit happened; None: the coordinator stopped before that could be known.

        Running the group again without knowing could pay twice, and refusing it could leave jobs that nobody knows of.
        New commands are refused meanwhile.
        """
        while not self._closing:
            self._writing_s = time.monotonic()
            try:
                happened = self._store.committed()
            except Exception as error:  # A loop's edge: the database is unavailable, and the check can wait.
                self._go_out(error)
                happened = None
            if happened is not None:
                self._out = False
                return happened
            time.sleep(AGAIN_S)
        return None

    def _rollback(self) -> None:
        try:
            self._store.rollback()
        except Exception:  # The connection is broken; begin() opens a new one.
            log.warning("rollback failed", exc_info=True)


def _nothing(tx: Tx) -> None:
    """Do nothing: makes the writer access the database."""


def _heard(future: "asyncio.Future[None]") -> None:
    """Retrieve the result of *future*, which nobody awaits: the writer has already noted it."""
    if not future.cancelled():
        future.exception()


def open_database(address: str, *, name: str = "comptoir") -> Database:
    """Open ``postgresql://…`` or a path to an SQLite file; call it on the running event loop.

    Args:
        name: name of our connections at the server (``application_name``, at most 63 characters).

    Raises:
        ModuleNotFoundError: PostgreSQL is configured without the extra ``comptoir[postgres]``.
        DatabaseUnusable: the SQLite file is damaged, or not writable.
    """
    if address.startswith(("postgresql://", "postgres://")):
        # Chosen by configuration: the driver is an extra and must not be imported needlessly.
        store: Store = importlib.import_module("comptoir.kit.db.postgres").PostgresStore(address, name=name)
        return Database(store)
    return Database(SqliteStore(Path(address)))
