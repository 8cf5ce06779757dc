"""Changes: transitions made in memory before the database confirms them, and how they are undone if it refuses."""

import operator
from collections.abc import Callable
from typing import Any

Values = tuple[Any, ...]


class Touches:
    """The slots that a kind of transition touches."""

    __slots__ = ("names", "values", "relied_on")

    def __init__(self, *restored: str, relied_on: tuple[str, ...]) -> None:
        """Name the slots to restore on undo, and those that must be as the transition left them for an undo."""
        self.names = restored
        self.values = _reader(restored)
        """Reads the values to restore."""
        self.relied_on = _reader(relied_on)
        """Reads the values that must be unchanged."""


def _reader(names: tuple[str, ...]) -> Callable[[object], Values]:
    # With a single name it would not return a tuple.
    return operator.attrgetter(*names, *names[:1])


class Change:
    """One transition of one job, made in memory and being written; verbs take it back with `undo`."""

    __slots__ = ("_job", "_touches", "_before", "_after", "_tables")

    def __init__(self, job: object, touches: Touches, before: Values, tables: Callable[[], None] | None = None) -> None:
        """Remember a transition that was just made.

        Args:
            before: what `Touches.values` returned before it.
            tables: undoes its changes to the tables of `LiveJobs`.
        """
        self._job = job
        self._touches = touches
        self._before = before
        self._after = touches.relied_on(job)
        self._tables = tables

    def undo(self) -> bool:
        """Restore every slot exactly; False, and nothing is changed, if the job has moved on since the transition."""
        job, touches = self._job, self._touches
        if not all(map(operator.is_, touches.relied_on(job), self._after)):
            return False
        for name, value in zip(touches.names, self._before, strict=False):
            setattr(job, name, value)
        if self._tables is not None:
            self._tables()
        return True
