"""Jobs: buying them singly or in a batch, and their status."""

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec

from comptoir.containers import RecordedStatuses
from comptoir.dialects.infernet import wire
from comptoir.dialects.infernet.buying import buy
from comptoir.dialects.infernet.callers import Caller, buyer_of, caller_of
from comptoir.dialects.infernet.delegated import delegate
from comptoir.dialects.infernet.errors import body_of
from comptoir.dialects.infernet.render import result_of
from comptoir.dialects.infernet.translate import asked_of, items_of, job_id_of, job_uuid
from comptoir.dispatch import Core
from comptoir.gateway import claim
from comptoir.idempotency import Claim
from comptoir.jobs import FINAL, JobRow, LiveJob
from comptoir.kit.errors import InvalidField, Refusal
from comptoir.kit.http import Reply, Request

encode = msgspec.json.Encoder().encode

TOGETHER_MAX = 256
"""Jobs of a batch that are submitted concurrently, so that they share commits."""

SPELLED_AT_ONCE = 1_000
"""Ids of a list that are rendered at once, in half a millisecond; other tasks run in between."""


async def create(core: Core, request: Request) -> wire.JobResponse:
    """Buy a job, which runs without a connected client; or accept a delegated subscription."""
    caller = await buyer_of(core, request)
    return await _one(core, caller, request.raw, bound=await claim(core, request, scope=caller.scope))


async def create_batch(core: Core, request: Request) -> list[wire.JobResponse]:
    """Buy several jobs; each has its own result, in the order of the list."""
    caller = await buyer_of(core, request)
    items = items_of(request.raw)
    if len(items) > wire.BATCH_MAX:
        raise InvalidField("body", f"must be at most {wire.BATCH_MAX} jobs, not {len(items)}")
    bound = await claim(core, request, scope=caller.scope)
    left = iter(enumerate(items))
    answers: list[wire.JobResponse] = []
    while some := list(islice(left, TOGETHER_MAX)):
        work = [_item(core, caller, item, bound=_part(bound, at)) for at, item in some]
        answers += await asyncio.gather(*work)
    return answers


async def _item(core: Core, caller: Caller, item: bytes, *, bound: Claim | None) -> wire.JobResponse:
    try:
        return await _one(core, caller, item, bound=bound)
    except Refusal as refusal:
        error = body_of(refusal)
        return wire.JobResponse(error=error.error, params=error.params)


async def _one(core: Core, caller: Caller, body: bytes, *, bound: Claim | None) -> wire.JobResponse:
    asked = asked_of(body)
    if asked.is_delegated:
        delegate(core, body)
        return wire.JobResponse()
    job = await buy(core, asked, caller, stream=False, bound=bound)
    return wire.JobResponse(job_uuid(job.id))


def _part(bound: Claim | None, at: int) -> Claim | None:
    """Return the claim for item *at* of a batch under one Idempotency-Key: ids that follow the key's own."""
    if bound is None:
        return None
    number = int.from_bytes(bound.resource_id, "big") + at
    return msgspec.structs.replace(bound, resource_id=(number % (1 << 128)).to_bytes(16, "big"))


async def look(core: Core, request: Request) -> Reply:
    """Return the named jobs of the caller; without names, list the ids of all."""
    caller = caller_of(core, request)
    query: wire.InfernetJobsQuery = request.query
    if query.id is None:
        return Reply(200, encode(await _list(core, caller, query)))
    found = await _named(core, caller, query.id)
    intermediate = query.intermediate is not None and query.intermediate.lower() == "true"
    answers = [
        one if intermediate else msgspec.structs.replace(one, intermediate_results=msgspec.UNSET) for one in found
    ]
    return Reply(200, encode(answers))


async def _list(core: Core, caller: Caller, query: wire.InfernetJobsQuery) -> list[str]:
    pending = {"true": True, "false": False}.get((query.pending or "").lower())
    before = job_id_of(query.before) if query.before is not None else None
    if query.before is not None and before is None:
        raise InvalidField("before", "must be the id of a job")
    over = None if pending is None else not pending
    ids = await core.jobs.staged_job_ids(
        owner_id=caller.owner_id, caller=caller.of, over=over, limit=query.limit, before=before
    )
    found: list[str] = []
    for at in range(0, len(ids), SPELLED_AT_ONCE):
        found += map(job_uuid, ids[at : at + SPELLED_AT_ONCE])
        await asyncio.sleep(0)
    if before is None and len(found) < query.limit:
        left = query.limit - len(found)
        found += await core.state(RecordedStatuses).names(caller.scope, running=pending, limit=left)
    return found


async def _named(core: Core, caller: Caller, names: Sequence[str]) -> list[wire.JobResult]:
    """Return the result of each of *names*, in order; jobs that are not the caller's are omitted.

    Raises:
        InvalidField: their results are too large for one answer; a single one is returned whatever its size.
    """
    wanted = {name: job_id for name in dict.fromkeys(names) if (job_id := job_id_of(name)) is not None}
    jobs: dict[bytes, LiveJob] = {}
    for job_id in wanted.values():
        live = core.jobs.live.seen(job_id)
        if live is not None and live.stages and _is_callers(caller, live):
            jobs[job_id] = live
    # Jobs that are over and no longer in memory, or only partly here, are read, all of them by three queries.
    asked = [job_id for job_id in wanted.values() if job_id not in jobs or _is_partial(jobs[job_id])]
    rows = await core.jobs.staged_jobs(asked, owner_id=caller.owner_id, caller=caller.of)
    sizes = {job_id: job.frame_bytes for job_id, job in jobs.items()} | await core.jobs.answer_bytes(list(rows))
    total = sum([sizes.get(wanted[name], 0) for name in names if name in wanted])
    if len(names) > 1 and total > wire.RESULTS_BYTES_MAX:
        raise InvalidField("id", f"must name results of at most {wire.RESULTS_BYTES_MAX} bytes together, not {total}")
    answers = await core.jobs.answers(list(rows))
    answers.update(await core.jobs.steps_done([row.id for row in rows.values() if row.state not in FINAL]))
    results: dict[str, wire.JobResult] = {}
    for name, job_id in wanted.items():
        row = rows.get(job_id)
        if row is not None:
            results[name] = _stored(core, row, answers)
        elif job_id in jobs:
            results[name] = result_of(jobs[job_id], jobs[job_id].frames, intermediate=True)
    reported = await core.state(RecordedStatuses).statuses(
        caller.scope, [name for name in dict.fromkeys(names) if name not in results]
    )
    for name, status in reported.items():
        results[name] = wire.JobResult(name, status, None, [])
    return [results[name] for name in names if name in results]


def _is_callers(caller: Caller, job: LiveJob) -> bool:
    return job.owner_id == caller.owner_id and caller.of in (None, job.caller)


def _is_partial(job: LiveJob) -> bool:
    """Tell whether only the database knows the state of *job*: it is remote, or its frames are not kept here."""
    return bool(job.owner_node) or (job.over and not job.frames)


def _stored(core: Core, row: JobRow, answers: dict[bytes, Any]) -> wire.JobResult:
    job = core.jobs.revived(row, now_s=core.clock.monotonic_s())
    return result_of(job, answers.get(row.id, ()), intermediate=True)
