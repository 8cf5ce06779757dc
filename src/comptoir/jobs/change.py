"""Changes: what a transition did to a job in memory while the database has yet to say yes, and how it is undone if it says no."""

from collections.abc import Callable
from typing import Any


class Touches:
    """The slots that a kind of transition touches."""

    __slots__ = ("restored", "relied_on")

    def __init__(self, *restored: str, relied_on: tuple[str, ...] = ()) -> None:
        """Name what is restored when the transition is undone.

        Args:
            relied_on: slots that have to be as the transition left them, or it is not undone.
        """
        self.restored = restored
        self.relied_on = relied_on


class Change:
    """One transition of one job, made in memory and being written: every verb that has to take one back does it with `undo`."""

    __slots__ = ("_job", "_touches", "_before", "_after", "_tables")

    def __init__(self, job: object, touches: Touches) -> None:
        """Note how *job* stands before the transition."""
        self._job = job
        self._touches = touches
        self._before = [getattr(job, name) for name in touches.restored]
        self._after: list[Any] = []
        self._tables: Callable[[], None] | None = None

    def made(self, tables: Callable[[], None] | None = None) -> "Change":
        """Note how the job stands after it; *tables* undoes what the transition did to the tables of `LiveJobs`."""
        job = self._job
        self._after = [getattr(job, name) for name in self._touches.relied_on]
        self._tables = tables
        return self

    def undo(self) -> bool:
        """Restore every slot exactly; False, and nothing is touched, where the job has gone on from here meanwhile."""
        job, touches = self._job, self._touches
        for name, value in zip(touches.relied_on, self._after, strict=True):
            if getattr(job, name) is not value:
                return False
        for name, value in zip(touches.restored, self._before, strict=True):
            setattr(job, name, value)
        if self._tables is not None:
            self._tables()
        return True
