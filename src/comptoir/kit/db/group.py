"""One group of commands in an open transaction: locks first, then each command, so that a bad one affects no other."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from comptoir.kit.db.locks import Rows, rows_of_item
from comptoir.kit.db.schema import Table
from comptoir.kit.db.store import Store
from comptoir.kit.db.tx import Tx

log = logging.getLogger(__name__)


class Command(msgspec.Struct, eq=False):
    """A submitted command, and the future of its result."""

    run: Callable[..., Any]
    item: Any
    batched: bool
    turn: int
    future: "asyncio.Future[Any]"
    locks: Rows = ()
    despite_loss: bool = False
    """Whether it runs although commits are missing."""

    def rows(self) -> Rows:
        """The rows that it will lock."""
        return rows_of_item(self.run, self.item) if self.batched else self.locks


Outcomes = list[tuple[Command, Any, Exception | None]]


class GroupRunner:
    """Runs groups over *store*; counts items by verb in *by_verb*. For the writer thread."""

    def __init__(self, store: Store, by_verb: dict[str, int]) -> None:
        self._store = store
        self._by_verb = by_verb

    def run(self, group: list[Command]) -> Outcomes:
        """Run *group* in the open transaction; raises errors of the connection, and those that allow a retry."""
        verbs: dict[Callable[..., Any], list[Command]] = {}
        plain: list[Command] = []
        for command in group:
            if command.batched:
                verbs.setdefault(command.run, []).append(command)
            else:
                plain.append(command)
        for verb, commands in verbs.items():
            name = verb.__qualname__
            self._by_verb[name] = self._by_verb.get(name, 0) + len(commands)
        if len(plain) + len(verbs) == 1:
            return self._alone(group)
        self._lock(group)
        outcomes = [self._run_one(command, command.run) for command in plain]
        for verb, commands in sorted(verbs.items(), key=_turn):
            outcomes += self._run_verb(verb, commands)
        return outcomes

    def _alone(self, group: list[Command]) -> Outcomes:
        """Run one verb or command alone in its transaction: no savepoint, and no locks but those of its own queries.

        On PostgreSQL that saves two of the 11 to 15 messages of a small group.
        """
        try:
            if group[0].batched:
                return self._together(group[0].run, group)
            return [(group[0], group[0].run(self._store.tx), None)]
        except Exception as error:  # Passed to the callers; a new transaction undoes it.
            if self._store.retryable(error) or self._store.is_outage(error):
                raise
            self._store.rollback()
            self._store.begin()
            if len(group) == 1:
                return [(group[0], None, error)]
            return self._one_by_one(group, error)

    def _lock(self, group: list[Command]) -> None:
        """Lock the rows that the commands of *group* declared, in the common order."""
        if not self._store.remote:
            return
        wanted: dict[Table, set[bytes]] = {}
        for command in group:
            for table, keys in command.rows():
                wanted.setdefault(table, set()).update(keys)
        for table in sorted(wanted, key=_name):
            self._store.tx.select(table, table.key[:1], sorted(wanted[table]), lock=True)

    def _run_verb(self, verb: Callable[..., Any], commands: list[Command]) -> Outcomes:
        self._store.savepoint()
        try:
            outcomes = self._together(verb, commands)
            self._store.release()
            return outcomes
        except Exception as error:  # One bad item: undo the verb, then run each item alone to find it.
            if self._store.retryable(error) or self._store.is_outage(error):
                raise
            self._store.rollback_to()
            return self._one_by_one(commands, error)

    def _together(self, verb: Callable[..., Any], commands: list[Command]) -> Outcomes:
        results = verb(self._store.tx, [command.item for command in commands])
        assert len(results) == len(commands), "a batch verb returns one outcome per item"
        return [
            (command, None, result) if isinstance(result, Exception) else (command, result, None)
            for command, result in zip(commands, results, strict=True)
        ]

    def _one_by_one(self, commands: list[Command], error: Exception) -> Outcomes:
        verb = commands[0].run
        log.warning("batch of %d %s failed, running one by one: %s", len(commands), verb.__qualname__, error)
        # The rollback released the verb's locks.
        self._lock(commands)
        return [self._run_one(command, partial(_single, verb, command.item)) for command in commands]

    def _run_one(self, command: Command, run: Callable[[Tx], Any]) -> tuple[Command, Any, Exception | None]:
        self._store.savepoint()
        try:
            result = run(self._store.tx)
            self._store.release()
            return command, result, None
        except Exception as error:  # Passed to the caller through its future; the savepoint undoes the command.
            if self._store.retryable(error) or self._store.is_outage(error):
                raise
            self._store.rollback_to()
            return command, None, error


def _turn(verb: tuple[Callable[..., Any], list[Command]]) -> int:
    return verb[1][0].turn


def _name(table: Table) -> str:
    return table.name


def _single(verb: Callable[..., Any], item: Any, tx: Tx) -> Any:
    (result,) = verb(tx, [item])
    if isinstance(result, Exception):
        raise result
    return result
