"""Reads over stored jobs: one job, a buyer's list, stored answers, and what a restart or takeover resumes."""

import asyncio
from collections.abc import Sequence
from functools import partial

from comptoir.jobs.answer import StoredAnswer, decode_frames
from comptoir.jobs.errors import UnknownJob
from comptoir.jobs.lease import Lease
from comptoir.jobs.lists import PAGE_MAX, UNFINISHED, JobLists
from comptoir.jobs.live import LiveJob
from comptoir.jobs.live_jobs import LiveJobs
from comptoir.jobs.queue import Queue
from comptoir.jobs.store import (
    LIGHT,
    LIGHT_NAMES,
    claim_leases,
    claim_row,
    claim_rows,
    claim_waiting_rows,
    forget_contents,
    insert_loser,
    job_row,
)
from comptoir.jobs.tables import ATTEMPTS, JOB_EVENTS, JOBS
from comptoir.jobs.types import FINAL, AttemptRow, JobRow
from comptoir.kinds import Kinds
from comptoir.kit.db import Database
from comptoir.kit.ids import oldest_id
from comptoir.link import Frame

SMALL_ANSWER_BYTES = 256 << 10
"""A stored answer above this is read alone, once there is room for it; it is decoded in a thread."""

TAKE_OVER_MAX = 500
"""Jobs taken over by one command."""

ATTEMPT_COLUMNS = tuple(
    [f"{name}_uusd_per_mtok" if name.startswith("price_") else name for name in AttemptRow.__struct_fields__]
)


class Jobs:
    """Stored jobs, with the live ones (`live`) and the queue (`queue`) beside them."""

    def __init__(self, db: Database, kinds: Kinds | None = None) -> None:
        self._db = db
        self.kinds = kinds or Kinds()
        """Kinds sold here; by default the built-in ones."""
        self.live = LiveJobs()
        self.queue = Queue()
        self.lists = JobLists(db)

    async def get(self, job_id: bytes, *, owner_id: bytes | None = None, light: bool = True) -> JobRow:
        """Return a stored job; with *owner_id*, only if it is that owner's; *light* leaves the body empty.

        Raises:
            UnknownJob: there is none, or it belongs to another owner.
        """
        names = LIGHT_NAMES if light else JOBS.names
        found = await self._db.fetch_point(JOBS, names, (job_id,))
        if found is None:
            raise UnknownJob
        row = job_row(found, names)
        if owner_id is not None and row.owner_id != owner_id:
            raise UnknownJob
        return row

    def revived(self, row: JobRow, *, now_s: float) -> LiveJob:
        """Return the job of a stored row, see `LiveJob.revived`."""
        return LiveJob.revived(row, kinds=self.kinds, now_s=now_s)

    async def staged_jobs(
        self, job_ids: Sequence[bytes], *, owner_id: bytes, caller: str | None
    ) -> dict[bytes, JobRow]:
        """Return those of *job_ids* (at most 1,000) that are this owner's chains of containers, without bodies.

        Args:
            caller: only those requested from this address; None: from any.
        """
        found = await self._db.fetch_keys(JOBS, LIGHT_NAMES, job_ids, of=owner_id)
        rows = [job_row(columns, LIGHT_NAMES) for columns in found]
        return {
            row.id: row
            for row in rows
            if row.owner_id == owner_id and row.caller is not None and caller in (None, row.caller)
        }

    async def staged_job_ids(
        self, *, owner_id: bytes, caller: str | None, over: bool | None, limit: int, before: bytes | None
    ) -> list[bytes]:
        """Return the ids of an owner's chains of containers, newest first, below *before*.

        Args:
            over: True or False: only those that are over, or only the others.
        """
        where, params = (
            "owner_id = ? AND caller IS NOT NULL AND id < ?",
            list[object]([owner_id, before or b"\xff" * 16]),
        )
        if caller is not None:
            where += " AND caller = ?"
            params.append(caller)
        if over is not None:
            where += f" AND state {'NOT ' if over else ''}IN ('queued', 'running')"
        # Unfinished jobs are few compared with all that an owner bought; SQLite would scan the latter.
        hint = " INDEXED BY ix_jobs_id_partial" if over is False and self._db.dialect == "sqlite" else ""
        sql = f"SELECT id FROM jobs{hint} WHERE {where} ORDER BY id DESC LIMIT {limit:d}"
        return [bytes(row[0]) for row in await self._db.fetch(sql, params, of=owner_id)]

    async def newest(
        self, *, owner_id: bytes | None, state: str | None = None, limit: int = 20, before: bytes | None = None
    ) -> list[JobRow]:
        """Return jobs, newest first, below *before*; *owner_id* None: everybody's. Unlike `lists` it counts nothing."""
        where, params = "id < ?", list[object]([before or b"\xff" * 16])
        if owner_id is not None:
            where += " AND owner_id = ?"
            params.append(owner_id)
        if state is not None:
            where += " AND state = ?"
            params.append(state)
        hint = ""
        if state in UNFINISHED and self._db.dialect == "sqlite":
            # As in `staged_job_ids`; the index is used for the condition that it was made with.
            hint, where = " INDEXED BY ix_jobs_id_partial", f"{where} AND state IN ('queued', 'running')"
        sql = f"SELECT {LIGHT} FROM jobs{hint} WHERE {where} ORDER BY id DESC LIMIT {min(limit, PAGE_MAX)}"
        return [job_row(row) for row in await self._db.fetch(sql, params, of=owner_id)]

    async def attempts(self, job_id: bytes) -> list[AttemptRow]:
        """Return all attempts at a job, oldest first."""
        rows = await self._db.fetch_few(ATTEMPTS, ATTEMPT_COLUMNS, (job_id,), by=("job_id",))
        return [AttemptRow(*row) for row in rows]

    async def journal(self, job_ids: Sequence[bytes]) -> dict[bytes, list[bytes]]:
        """Return the closed segments' frames, encoded and in frame order, of those jobs that have any."""
        marks = ",".join("?" * len(job_ids))
        sql = f"SELECT job_id, frames FROM journal WHERE job_id IN ({marks}) ORDER BY job_id, first_frame"
        found: dict[bytes, list[bytes]] = {}
        for job_id, frames in await self._db.fetch(sql, list(job_ids)) if job_ids else []:
            found.setdefault(bytes(job_id), []).append(bytes(frames))
        return found

    async def record_losing_attempt(self, job_id: bytes, lease: Lease, *, at_ms: int) -> None:
        """Write the attempt of a second host that was not the first to deliver: closed, unpaid, without fault."""
        await self._db.run(partial(insert_loser, job_id=job_id, lease=lease, at_ms=at_ms))

    async def answer(self, job_id: bytes) -> tuple[list[Frame], bytes]:
        """Return a finished job's frames and its engine's usage JSON; empty when nothing was delivered."""
        found = await self.small_answer(job_id) or await self.large_answer(job_id)
        return found.frames, found.details

    async def small_answer(self, job_id: bytes) -> StoredAnswer | None:
        """Return a finished job's answer; None: it is larger than `SMALL_ANSWER_BYTES`."""
        # SQLite copies the whole row, whatever is asked of it, so this is no read for the event loop.
        small = f"CASE WHEN length(frames) <= {SMALL_ANSWER_BYTES} THEN"
        rows = await self._db.fetch(
            f"SELECT {small} frames END, {small} usage END FROM answers WHERE job_id = ?", [job_id]
        )
        if not rows:
            return StoredAnswer([], b"")
        frames, details = rows[0]
        return None if frames is None else StoredAnswer.of(frames, bytes(details))

    async def large_answer(self, job_id: bytes) -> StoredAnswer:
        """Return a finished job's answer of any size, read and decoded in a thread: 28 MB take 150 ms."""
        rows = await self._db.fetch("SELECT frames, usage FROM answers WHERE job_id = ?", [job_id])
        if not rows:
            return StoredAnswer([], b"")
        return await asyncio.to_thread(StoredAnswer.of, rows[0][0], bytes(rows[0][1]))

    async def answer_bytes(self, job_ids: Sequence[bytes]) -> dict[bytes, int]:
        """Return how many bytes `answers` or `steps_done` would read for each of *job_ids* (at most 1,000), if any."""
        if not job_ids:
            return {}
        found: dict[bytes, int] = {}
        marks = ",".join("?" * len(job_ids))
        sizes = [
            f"SELECT job_id, length(frames) FROM {table} WHERE job_id IN ({marks})" for table in ("answers", "journal")
        ]
        for row in await self._db.fetch(" UNION ALL ".join(sizes), [*job_ids, *job_ids]):
            found[bytes(row[0])] = found.get(bytes(row[0]), 0) + int(row[1])
        return found

    async def answers(self, job_ids: Sequence[bytes]) -> dict[bytes, list[Frame]]:
        """Return the frames of finished jobs (at most 1,000), of those that have any."""
        if not job_ids:
            return {}
        sql = f"SELECT job_id, frames FROM answers WHERE job_id IN ({','.join('?' * len(job_ids))})"
        rows = await self._db.fetch(sql, list(job_ids))
        return {bytes(row[0]): decode_frames(row[1]) for row in rows}

    async def steps_done(self, job_ids: Sequence[bytes]) -> dict[bytes, list[Frame]]:
        """Return the outputs so far of unfinished chains of containers (at most 1,000) that are past their first."""
        pieces = await self.journal(job_ids)
        return {job_id: [frame for piece in of for frame in decode_frames(piece)] for job_id, of in pieces.items()}

    async def is_forgotten(self, job_id: bytes) -> bool:
        """Tell whether prompt and answer of a job were deleted (`forget`)."""
        row = await self._db.fetch_point(JOBS, ("length(body)",), (job_id,))
        return row is not None and row[0] == 0

    async def owners(self) -> set[bytes | None]:
        """Return the coordinators that own unfinished jobs; None: jobs of versions that knew only one coordinator."""
        sql = "SELECT DISTINCT node_id FROM jobs WHERE state IN ('queued', 'running')"
        return {row[0] for row in await self._db.fetch(sql)}

    async def claim_orphans(
        self, *, node_id: bytes, of: Sequence[bytes | None], limit: int = TAKE_OVER_MAX
    ) -> list[JobRow]:
        """Make *node_id* the owner of the oldest unfinished jobs of the dead coordinators *of*; return those jobs.

        Jobs that another coordinator is claiming right now are skipped, so that several may take over concurrently.
        Call it until it returns none.
        """
        return await self._db.run(partial(claim_rows, node_id=node_id, of=of, limit=limit))

    async def claim(self, job_id: bytes, *, node_id: bytes, from_id: bytes) -> JobRow | None:
        """Make *node_id* the owner of one waiting job of *from_id*; None: it has another owner, or no longer waits."""
        return await self._db.run(partial(claim_row, job_id=job_id, node_id=node_id, from_id=from_id))

    async def claim_waiting(self, *, node_id: bytes, models: Sequence[str], limit: int) -> list[JobRow]:
        """Make *node_id* the owner of the jobs that wait longest elsewhere for one of *models*; return them."""
        return await self._db.run(partial(claim_waiting_rows, node_id=node_id, models=models, limit=limit))

    async def claim_leases(self, leases: Sequence[bytes], *, node_id: bytes, host_id: bytes) -> list[JobRow]:
        """Make *node_id* the owner of the jobs that *host_id* has open *leases* on, whoever owned them; return them."""
        return await self._db.run(partial(claim_leases, leases=leases, node_id=node_id, host_id=host_id))

    async def whereabouts(self, job_ids: Sequence[bytes]) -> dict[bytes, tuple[str, bytes | None]]:
        """Return state and owner of each job that exists."""
        found = await self._db.fetch_keys(JOBS, ("id", "state", "node_id"), job_ids)
        return {bytes(row[0]): (row[1], row[2]) for row in found}

    async def forget(self, *, older_than_ms: int, after: bytes, limit: int = 500) -> tuple[int, bytes | None]:
        """Among the next *limit* jobs after *after*, delete prompts and answers of those ended before *older_than_ms*.

        Rows, transfers and receipts are kept. Returns how many jobs had something deleted, and the id to pass next
        (start with ``b""``); None: the end was reached.
        """
        states = ",".join(f"'{state}'" for state in sorted(FINAL))
        sql = f"SELECT id, finished_ms FROM jobs WHERE id > ? AND id < ? AND state IN ({states}) ORDER BY id LIMIT {limit}"
        rows = await self._db.fetch(sql, [after, oldest_id(older_than_ms)])
        old = [row[0] for row in rows if row[1] is not None and row[1] < older_than_ms]
        touched = await self._db.run(partial(forget_contents, job_ids=old)) if old else 0
        return touched, rows[-1][0] if len(rows) == limit else None

    async def forget_contents(self, job_ids: Sequence[bytes]) -> int:
        """Delete prompts and answers of *job_ids* (at most 1,000), which are over, as `forget`; return how many had
        any."""
        return await self._db.run(partial(forget_contents, job_ids=job_ids))

    async def events_count(self, job_id: bytes) -> int:
        """Return how many state changes of a job are stored."""
        return len(await self._db.fetch_few(JOB_EVENTS, ("seq",), (job_id,), by=("job_id",)))

    async def events(self, job_id: bytes) -> list[tuple[str, int, str | None]]:
        """Return a job's state changes in order: (state, at_ms, detail)."""
        rows = await self._db.fetch_few(JOB_EVENTS, ("state", "at_ms", "detail"), (job_id,), by=("job_id",))
        return [(row[0], row[1], row[2]) for row in rows]

    async def count_by_owner(self, owner_ids: list[bytes]) -> dict[bytes, int]:
        """Return how many jobs each owner ever submitted (at most 1,000 owners)."""
        if not owner_ids:
            return {}
        marks = ",".join("?" * len(owner_ids))
        sql = f"SELECT owner_id, count(*) FROM jobs WHERE owner_id IN ({marks}) GROUP BY owner_id"
        return {bytes(row[0]): int(row[1]) for row in await self._db.fetch(sql, owner_ids)}

    async def ended_counts(self, *, before_ms: int) -> dict[str, int]:
        """Return how many jobs ended before *before_ms*, by final state; reads the whole table, in a thread."""
        sql = f"SELECT state, count(*) FROM jobs WHERE finished_ms < {before_ms:d} GROUP BY state"
        rows = await self._db.read_snapshot(lambda fetch: fetch(sql))
        return {row[0]: int(row[1]) for row in rows}
