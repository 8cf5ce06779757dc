"""Changes: what a transition did to a job in memory while the database has not confirmed, and how to undo it."""

import operator
from collections.abc import Callable
from typing import Any

Values = tuple[Any, ...]


class Touches:
    """The slots that a kind of transition touches."""

    __slots__ = ("names", "values", "relied_on")

    def __init__(self, *restored: str, relied_on: tuple[str, ...]) -> None:
        """Name what is restored on undo, and what must still be as the transition left it, or nothing is undone."""
        self.names = restored
        self.values = _reader(restored)
        """Gives the values of what is restored."""
        self.relied_on = _reader(relied_on)
        """Gives the values of what is relied on."""


def _reader(names: tuple[str, ...]) -> Callable[[object], Values]:
    # Of one name alone it would give no tuple.
    return operator.attrgetter(*names, *names[:1])


class Change:
    """One transition of one job, made in memory and being written; verbs revert it with `undo`."""

    __slots__ = ("_job", "_touches", "_before", "_after", "_tables")

    def __init__(self, job: object, touches: Touches, before: Values, tables: Callable[[], None] | None = None) -> None:
        """Remember a transition that was just made.

        Args:
            before: what `Touches.values` gave before it.
            tables: undoes what it did to the tables of `LiveJobs`.
        """
        self._job = job
        self._touches = touches
        self._before = before
        self._after = touches.relied_on(job)
        self._tables = tables

    def undo(self) -> bool:
        """Restore every slot exactly; False, and nothing is touched, where the job has gone on from here meanwhile."""
        job, touches = self._job, self._touches
        if not all(map(operator.is_, touches.relied_on(job), self._after)):
            return False
        for name, value in zip(touches.names, self._before, strict=False):
            setattr(job, name, value)
        if self._tables is not None:
            self._tables()
        return True
