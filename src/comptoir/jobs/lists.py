"""Pages of an owner's jobs, newest first, and how many there are: read off the event loop, and nothing counted twice.

A page begins at a key: at the newest job, below the one that the caller names (`before`), or at the key that an offset
leads to, which is looked for in the index from wherever is nearest: the newest job, the oldest, or where an earlier
page began. Jobs are never deleted, so a place counted from the oldest one stays.

Totals are kept in memory. The jobs of an owner that are over are counted once; from then on the owner's numbered events
tell which ended since (`comptoir.events.Events.ended_jobs`), whichever coordinator ended them, and the few unfinished
ones are looked up. Nothing is written for it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from comptoir.events import Events
from comptoir.jobs.store import LIGHT, job_row
from comptoir.jobs.types import FINAL, JobRow, JobState
from comptoir.kit.db import Database, Fetch

PAGE_MAX = 1000
"""Most rows of one page."""

TOTALS_KEPT_MAX = 10_000
"""Owners whose totals are kept; those least recently asked about are counted again. About 1 KB each."""

PLACES_KEPT_MAX = 8
"""Places of pages kept for each of them."""

PLACE_STEPS_MIN = 1_000
"""A place is kept if finding it took so many steps in the index (some 40 us)."""

UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
_UNFINISHED = ",".join([f"'{state}'" for state in UNFINISHED])


class JobPage(msgspec.Struct, frozen=True):
    """One page."""

    rows: list[JobRow]
    """Newest first, without bodies."""
    total: int
    """Jobs of this owner, in these states, on all pages."""
    next: bytes | None
    """What the next page begins below; None: this is the last."""


class _Totals(msgspec.Struct, frozen=True, gc=False):
    """What is known of one owner's jobs, as of one of the owner's numbered events."""

    number: int
    over: dict[str, int]
    """Jobs that are over, by state."""
    unfinished: dict[bytes, str]
    """The others' states, by id."""
    places: tuple[tuple[int, bytes], ...] = ()
    """Where pages began: how many older jobs there are, and the id."""

    def count(self, states: Sequence[str]) -> int:
        """Return how many are in *states*; none named: in any."""
        if not states:
            return sum(self.over.values()) + len(self.unfinished)
        over = sum([self.over.get(state, 0) for state in states])
        return over + sum([state in states for state in self.unfinished.values()])


class JobLists:
    """Pages and totals; keeps the totals of `TOTALS_KEPT_MAX` owners."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._totals: dict[bytes, _Totals] = {}
        """Those asked about last at the end."""

    async def page(
        self,
        owner_id: bytes,
        *,
        states: tuple[str, ...] = (),
        limit: int = 20,
        offset: int = 0,
        before: bytes | None = None,
    ) -> JobPage:
        """Return a page of an owner's jobs, newest first.

        With *before* it stays the same while new jobs arrive; what an *offset* leads to moves with every new job.

        Args:
            states: only jobs in one of these; empty: in any.
            limit: most rows, at most 1,000.
            offset: rows to skip; with *before*, among those below it.
            before: only jobs older than this one.

        Raises:
            Unavailable: the database is unavailable, or the owner has too many lists read already.
        """
        look = _Look(self._db.dialect, owner_id, states, limit=min(limit, PAGE_MAX), offset=offset, before=before)
        kept = self._totals.get(owner_id)
        page, totals = await self._db.fetch_snapshot(lambda fetch: look.page(fetch, kept), of=owner_id)
        self._keep(owner_id, totals)
        return page

    def _keep(self, owner_id: bytes, totals: _Totals) -> None:
        self._totals.pop(owner_id, None)
        self._totals[owner_id] = totals
        if len(self._totals) > TOTALS_KEPT_MAX:
            del self._totals[next(iter(self._totals))]


class _Look:
    """The queries of one page; for the thread that reads, over one snapshot."""

    def __init__(
        self,
        dialect: str,
        owner_id: bytes,
        states: tuple[str, ...],
        *,
        limit: int,
        offset: int,
        before: bytes | None,
    ) -> None:
        self._owner_id, self._states = owner_id, states
        self._limit, self._offset, self._before = limit, offset, before
        # Unfinished jobs are few compared with all that an owner bought; SQLite would look through the latter.
        self._hint = " INDEXED BY ix_jobs_id_partial" if dialect == "sqlite" else ""

    def page(self, fetch: Fetch, kept: _Totals | None) -> tuple[JobPage, _Totals]:
        totals = self._brought_up(fetch, kept)
        total = totals.count(self._states)
        if self._states and not FINAL.intersection(self._states):
            return self._unfinished_page(fetch, totals), totals
        if self._before is not None or self._states or not self._offset:
            rows = self._rows_below(fetch, total)
        elif self._offset >= total:
            rows = []
        else:
            key, totals = self._found(fetch, totals, total - 1 - self._offset)
            rows = self._rows(fetch, "id <= ?", [key], self._limit + 1)
        return self._made(rows, total), totals

    def _made(self, rows: list[JobRow], total: int) -> JobPage:
        more = len(rows) > self._limit
        rows = rows[: self._limit]
        return JobPage(rows, total, rows[-1].id if more and rows else None)

    # -- totals --------------------------------------------------------------------------------------------------

    def _brought_up(self, fetch: Fetch, kept: _Totals | None) -> _Totals:
        """Return the totals of this moment."""
        sql = f"SELECT id, state FROM jobs{self._hint} WHERE owner_id = ? AND state IN ({_UNFINISHED})"
        unfinished = {bytes(row[0]): str(row[1]) for row in fetch(sql, [self._owner_id])}
        ended = Events.ended_jobs(fetch, self._owner_id, after=kept.number) if kept is not None else None
        if kept is None or ended is None:
            number = Events.newest_number(fetch, self._owner_id)
            sql = f"SELECT state, count(*) FROM jobs WHERE owner_id = ? AND state NOT IN ({_UNFINISHED}) GROUP BY state"
            return _Totals(number, {row[0]: int(row[1]) for row in fetch(sql, [self._owner_id])}, unfinished)
        number, jobs = ended
        over = dict(kept.over)
        for _, state in jobs:
            over[state] = over.get(state, 0) + 1
        # A job may be younger than its id: one bought again under an old Idempotency-Key, or where a clock is behind.
        oldest = min(
            [one for one in (*unfinished, *(job_id for job_id, _ in jobs)) if one not in kept.unfinished], default=None
        )
        places = kept.places if oldest is None else tuple([place for place in kept.places if place[1] < oldest])
        return _Totals(number, over, unfinished, places)

    # -- where a page begins -------------------------------------------------------------------------------------

    def _found(self, fetch: Fetch, totals: _Totals, older: int) -> tuple[bytes, _Totals]:
        """Return the id of the job that has so many *older* ones, and the totals with its place."""
        steps, where, order, params = self._offset, "", "DESC", list[Any]()
        if older < steps:
            steps, order = older, ""
        for place, key in totals.places:
            if abs(older - place) < steps:
                up = older >= place
                steps, where, params = abs(older - place), f" AND id {'>=' if up else '<='} ?", [key]
                order = "" if up else "DESC"
        sql = f"SELECT id FROM jobs WHERE owner_id = ?{where} ORDER BY id {order} LIMIT 1 OFFSET {steps:d}"
        key = bytes(fetch(sql, [self._owner_id, *params])[0][0])
        if steps >= PLACE_STEPS_MIN:
            places = ((older, key), *totals.places)[:PLACES_KEPT_MAX]
            totals = msgspec.structs.replace(totals, places=places)
        return key, totals

    # -- rows ----------------------------------------------------------------------------------------------------

    def _rows_below(self, fetch: Fetch, total: int) -> list[JobRow]:
        """Return the rows from the offset on, below the key, in the states, and one more."""
        where, params = ("id < ?", [self._before]) if self._before is not None else ("id > ?", [b""])
        # Knowing how many there are, the walk ends with the last of them.
        left = self._limit + 1 if self._before is not None else min(self._limit + 1, total - self._offset)
        if left <= 0:
            return []
        if self._offset:
            # Rows are skipped by their ids, and read from the first one on.
            sql = f"SELECT id FROM jobs WHERE owner_id = ? AND {where}{self._in_states()} ORDER BY id DESC LIMIT 1 OFFSET ?"
            found = fetch(sql, [self._owner_id, *params, *self._states, self._offset])
            if not found:
                return []
            where, params = "id <= ?", [bytes(found[0][0])]
        return self._rows(fetch, where, params, left)

    def _unfinished_page(self, fetch: Fetch, totals: _Totals) -> JobPage:
        below = [
            job_id
            for job_id, state in totals.unfinished.items()
            if state in self._states and (self._before is None or job_id < self._before)
        ]
        ids = sorted(below, reverse=True)[self._offset : self._offset + self._limit + 1]
        if not ids:
            return JobPage([], totals.count(self._states), None)
        sql = f"SELECT {LIGHT} FROM jobs WHERE id IN ({','.join('?' * len(ids))}) ORDER BY id DESC"
        return self._made([job_row(row) for row in fetch(sql, ids)], totals.count(self._states))

    def _rows(self, fetch: Fetch, where: str, params: Sequence[Any], limit: int) -> list[JobRow]:
        sql = (
            f"SELECT {LIGHT} FROM jobs WHERE owner_id = ? AND {where}{self._in_states()} "
            f"ORDER BY id DESC LIMIT {limit:d}"
        )
        return [job_row(row) for row in fetch(sql, [self._owner_id, *params, *self._states])]

    def _in_states(self) -> str:
        return f" AND state IN ({','.join('?' * len(self._states))})" if self._states else ""
