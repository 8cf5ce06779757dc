"""The waiting queue: jobs that no free host could take yet, oldest first per model.

A million entries must not slow down the next claim: one deque per model; entries removed from the middle are marked and
skipped.
"""

from collections import deque
from collections.abc import Callable, Iterable

SCAN_MAX = 64
"""Waiting jobs of one model examined for one host; if it may take none of so many, it gets none."""

SCAN_GONE_MAX = 1024
"""Entries examined in all, including removed ones."""


class Waiting:
    """One waiting job."""

    __slots__ = ("job_id", "model", "ticket", "number", "gone", "terms")

    def __init__(self, *, job_id: bytes, model: str, ticket: int, number: int, terms: object) -> None:
        self.job_id = job_id
        self.model = model
        self.ticket = ticket
        """Order over all models."""
        self.number = number
        """Order within the model."""
        self.gone = False
        self.terms = terms
        """What a host must meet (routing's spec); the queue only passes it to *accept*."""


class _ModelQueue:
    __slots__ = ("entries", "left", "next_number", "alive")

    def __init__(self) -> None:
        self.entries: deque[Waiting] = deque()
        self.left = 0
        """How many entries ever left this queue."""
        self.next_number = 0
        self.alive = 0


class Queue:
    """First come, first served, per model; O(1) push, pop and remove."""

    def __init__(self) -> None:
        self._queues: dict[str, _ModelQueue] = {}
        self._entries: dict[bytes, Waiting] = {}
        self._tickets = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, job_id: bytes) -> bool:
        return job_id in self._entries

    def push(self, *, job_id: bytes, model: str, terms: object, first: bool = False) -> int:
        """Enqueue a job (at the head if *first*: it has had its turn before); return how many are before it."""
        assert job_id not in self._entries
        line = self._queues.setdefault(model, _ModelQueue())
        self._tickets += 1
        entry = Waiting(job_id=job_id, model=model, ticket=self._tickets, number=line.next_number, terms=terms)
        line.next_number += 1
        before = 0 if first else line.alive
        line.alive += 1
        if first:
            entry.ticket = line.entries[0].ticket if line.entries else entry.ticket
            entry.number = line.entries[0].number if line.entries else entry.number
            line.entries.appendleft(entry)
        else:
            line.entries.append(entry)
        self._entries[job_id] = entry
        return before

    def find(self, job_id: bytes) -> Waiting | None:
        """Return the entry of a waiting job, or None."""
        return self._entries.get(job_id)

    def before(self, job_id: bytes) -> int | None:
        """Return about how many jobs are before *job_id*; too low by at most those cancelled behind it."""
        entry = self._entries.get(job_id)
        if entry is None:
            return None
        return max(0, entry.number - self._queues[entry.model].left)

    def remove(self, job_id: bytes) -> bool:
        """Remove a job from the queue; False if it was not in it."""
        entry = self._entries.pop(job_id, None)
        if entry is None:
            return False
        self._leave(entry)
        return True

    def take(self, models: Iterable[str], accept: Callable[[Waiting], bool]) -> Waiting | None:
        """Remove and return the oldest waiting job of *models* for which *accept* is true, or None."""
        best: Waiting | None = None
        for model in models:
            line = self._queues.get(model)
            if line is None:
                continue
            entries = line.entries
            while entries and entries[0].gone:
                entries.popleft()
            if not entries:
                if not line.alive:
                    del self._queues[model]
                continue
            if best is not None and entries[0].ticket > best.ticket:
                continue
            for entry in _first(entries, SCAN_MAX):
                if not entry.gone and (best is None or entry.ticket < best.ticket) and accept(entry):
                    best = entry
                    break
        if best is None:
            return None
        del self._entries[best.job_id]
        self._leave(best)
        line = self._queues[best.model]
        while line.entries and line.entries[0].gone:
            line.entries.popleft()
        return best

    def heads(self) -> dict[str, bytes]:
        """Return the longest-waiting job of each model; costs nothing per waiting job."""
        found = {}
        for model, line in self._queues.items():
            entries = line.entries
            while entries and entries[0].gone:
                entries.popleft()
            if entries:
                found[model] = entries[0].job_id
        return found

    def waiting(self, model: str) -> list[Waiting]:
        """Return the waiting jobs of *model*, first come first; visits each of them."""
        line = self._queues.get(model)
        return [entry for entry in line.entries if not entry.gone] if line is not None else []

    def models(self) -> dict[str, int]:
        """Return the number of waiting jobs by model."""
        return {model: line.alive for model, line in self._queues.items() if line.alive}

    def _leave(self, entry: Waiting) -> None:
        entry.gone = True
        line = self._queues[entry.model]
        line.alive -= 1
        line.left += 1


def _first(entries: "deque[Waiting]", most: int) -> Iterable[Waiting]:
    alive = 0
    for index in range(min(SCAN_GONE_MAX, len(entries))):
        entry = entries[index]
        if not entry.gone:
            yield entry
            alive += 1
            if alive == most:
                return
