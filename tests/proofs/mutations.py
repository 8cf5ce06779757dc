"""Bugs of the kind that people make, wherever money, promises or walls are, each with the tests that find it.

``python -m tests.proofs.mutations`` plants them one by one, two at a time, and prints what caught each; ``--only N``
plants the first, second, … alone. `make proofs` runs them as well (tests/proofs/test_mutations.py).
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.proofs.planting import CHAINS, CLAIMS, MACHINE, Bug, caught_by

LEDGER = (
    "tests/rooms/ledger/test_ledger.py",
    "tests/rooms/ledger/test_ledger_model.py::TestLedger::test_it_agrees_with_the_model_on_sqlite",
)

RECORD = ("tests/kit/test_commit_record.py",)
LOST = ("tests/dispatch/test_lost_commits.py",)
OUTBOX = ("tests/rooms/outbox/test_outbox.py", "tests/dispatch/test_webhook_machine.py")
WEBHOOKS = ("tests/dispatch/test_webhook_machine.py", "tests/transports/test_webhook.py")
BLOBS = tuple(f"tests/rooms/blobs/test_{name}.py" for name in ("blobs", "made_for", "blobs_model"))
ESCAPES = ("tests/worker/sandbox/test_escapes.py",)
BOMBS = ("tests/worker/sandbox/test_bombs.py",)
PYTHON = ("tests/worker/engines/python/test_programs.py",)
PACKAGES = ("tests/worker/engines/python/test_requirements.py",)


def dispatch(*names: str) -> tuple[str, ...]:
    """Return files of tests/dispatch."""
    return tuple(f"tests/dispatch/test_{name}.py" for name in names)


def jobs(*names: str) -> tuple[str, ...]:
    """Return files of tests/rooms/jobs."""
    return tuple(f"tests/rooms/jobs/test_{name}.py" for name in names)


MUTATIONS = {
    # ledger
    "credit that is held is spent again": Bug(
        "ledger/book.py", "if amount_uusd > free:", "if amount_uusd > line.balance:", LEDGER
    ),
    "more than the hold is paid": Bug("ledger/book.py", "if total > amount:", "if total > amount + 1:", LEDGER),
    "the rest of a hold is kept": Bug(
        "ledger/book.py", "line.set_aside -= amount\n        done", "line.set_aside -= total\n        done", LEDGER
    ),
    "an event number is skipped": Bug("ledger/book.py", "line.last_event += 1", "line.last_event += 2", LEDGER),
    "what is held is paid back": Bug(
        "ledger/book.py", "free = giver.balance - giver.held", "free = giver.balance", LEDGER
    ),
    "promotional credit leaves": Bug(
        "ledger/book.py", "if not own_money and taker.kind != PAYMENTS_IN_KIND:", "if not own_money:", LEDGER
    ),
    "a hold counts promotional credit as the buyer's own": Bug(
        "ledger/book.py", "covered = amount_uusd <= free - line.promo", "covered = amount_uusd <= free", LEDGER
    ),
    "a hold grows beyond credit": Bug(
        "ledger/book.py", "return amount + max(0, free)", "return amount + line.balance", dispatch("extend")
    ),
    "a hold grows by what others hold": Bug(
        "ledger/book.py", "        if more > free:", "        if more > line.balance:", LEDGER[1:]
    ),
    "a hold that grew on promotions counts as the buyer's own": Bug(
        "ledger/book.py", "(not more or more <= free - line.promo)", "True", LEDGER[1:]
    ),
    "what a hold grew by is not held": Bug("ledger/book.py", "            line.set_aside += more\n", "", LEDGER[1:]),
    "a repeated deposit is posted twice": Bug(
        "ledger/service.py", "if transfer_id is not None and tx.select(", "if False and tx.select(", LEDGER
    ),
    "an allowance forgets what was spent": Bug(
        "ledger/service.py",
        "missing = most_uusd - int(spent) - book",
        "missing = most_uusd - book",
        ("tests/dialects/infernet/test_callers.py",),
    ),
    # dispatch: money
    "fees are rounded up": Bug(
        "dispatch/bill.py",
        "HostShare(cost, fee_of(cost, fee_bps))",
        "HostShare(cost, -(-cost * fee_bps // 10_000))",
        dispatch("bill"),
    ),
    "each host is paid for the prompt": Bug("dispatch/bill.py", "        input_count = 0\n", "", dispatch("bill")),
    "the bound of an answer is one of each part": Bug(
        "dispatch/bill.py", "        left -= billed\n", "", dispatch("bill")
    ),
    "a wrong signature is paid": Bug("dispatch/settle.py", "if not _holds(item):", "if False:", dispatch("signatures")),
    "broken answers are charged": Bug(
        "dispatch/settle.py",
        "and ending.fault != Fault.BUYER",
        "and ending.fault == Fault.BUYER",
        ("tests/kinds/test_sorts.py",),
    ),
    "what is claimed is paid": Bug(
        "kinds/kind.py",
        "return min(claimed, most)",
        "return claimed",
        dispatch("overclaims"),
    ),
    "nothing is paid like something": Bug(
        "kinds/kind.py",
        "return self.believed(claimed, output_bytes, passed_ms) if output_bytes else 0",
        "return self.believed(claimed, output_bytes, passed_ms)",
        dispatch("overclaims"),
    ),
    "time is the host's word": Bug(
        "kinds/kind.py",
        "most = most_in(passed_ms) if self.timed else",
        "most = claimed if self.timed else",
        ("tests/kinds/test_timed.py",),
    ),
    "time goes on after it was counted": Bug(
        "dispatch/stream.py",
        "if kind.timed and (read.claimed or kind.used(fresh)):",
        "if kind.timed:",
        ("tests/kinds/test_timed.py",),
    ),
    "a lease begins again with its coordinator": Bug(
        "dispatch/recover.py",
        "lease.begin(now_s - max(0, core.common_ms() - lease.started_ms) / 1000)",
        "lease.begin(now_s)",
        ("tests/kinds/test_timed.py",),
    ),
    "a lost host's time is paid": Bug(
        "dispatch/settle.py",
        "broken = (half and not job.stages) or not job.kind.pays_lost",
        "broken = half and not job.stages",
        ("tests/kinds/test_timed_ends.py",),
    ),
    "a lost host's time is what the next has not": Bug(
        "jobs/live.py",
        "count = self.segment_count if self.kind.pays_lost else 0",
        "count = self.segment_count",
        ("tests/kinds/test_timed_ends.py",),
    ),
    "cancelled work is free": Bug(
        "dispatch/settle.py",
        "claimed = max(claimed, job.kind.used(job.frames[lease.first_frame :]))",
        "pass",
        ("tests/kinds/test_timed_ends.py",),
    ),
    "cores are the host's word": Bug(
        "dispatch/settle.py",
        "cores = job.kind.cores(job.body) if job.kind.timed else 0",
        "cores = 0",
        ("tests/kinds/test_timed.py",),
    ),
    "a receipt's time is not verified": Bug(
        "receipts/verify.py",
        "kind.billable(count, entry.output_bytes, passed_ms)",
        "kind.billable(count, entry.output_bytes, count)",
        ("tests/kinds/test_timed.py",),
    ),
    "progress is no sign of life": Bug(
        "dispatch/stream.py",
        "if paced and not (_shows",
        "if not (_shows",
        ("tests/kinds/test_timed.py",),
    ),
    "the prompt of an empty answer is paid": Bug(
        "dispatch/bill.py",
        "if part.unpaid or not part.output_bytes:",
        "if part.unpaid:",
        dispatch("overclaims"),
    ),
    "a claim takes from the next host's bound": Bug(
        "transports/job_message.py", "most + job.claimed_beyond", "most", dispatch("overclaims")
    ),
    "an answer of which nothing was received is charged": Bug(
        "dispatch/settle.py", "    if job.whole:\n", "    if False:\n", dispatch("whole")
    ),
    "a whole answer is not made again": Bug(
        "dispatch/assign.py", "if not job.whole or resume is not", "if job.whole or resume is not", dispatch("whole")
    ),
    "a prompt costs more than was held for it": Bug(
        "dispatch/settle.py",
        "input_count=min(taken_in, job.terms.input_max),",
        "input_count=taken_in,",
        dispatch("settle"),
    ),
    "a bound grows and its hold does not": Bug(
        "kinds/terms.py",
        "hold_uusd=max(terms.hold_uusd, needed_uusd),",
        "hold_uusd=terms.hold_uusd,",
        dispatch("extend"),
    ),
    "a bound grows at the last host's price alone": Bug(
        "dispatch/extend.py",
        "leases = [lease, *[segment.lease for segment in job.segments]]",
        "leases = [lease]",
        dispatch("extend"),
    ),
    "a host that waits for its bound is silent": Bug(
        "dispatch/watch.py", "waits = waits_for_more(core, job, lease)", "waits = False", dispatch("extend")
    ),
    "frames say more than their bound": Bug(
        "worker/leases.py", "(believed if believed < most else most)", "believed", ("tests/worker/test_loop.py",)
    ),
    # dispatch: who may do what, and once
    "a job that moved is ended here": Bug(
        "dispatch/settle.py", "if stored is not None and stored.node_id != row.node_id:", "if False:", CLAIMS
    ),
    "a closed lease ends the job": Bug(
        "dispatch/settle.py", "if stored.attempt_id != row.attempt_id:", "if False:", dispatch("settle")
    ),
    "a running job is leased again": Bug(
        "dispatch/assign.py",
        "if stored is None or stored.state != JobState.QUEUED:",
        "if stored is None:",
        dispatch("assign"),
    ),
    "one host's word makes a bad request": Bug(
        "dispatch/second_opinion.py",
        "return any(owner_id is None or _owner(core, other) != owner_id for other in job.accusers)",
        "return True",
        dispatch("second_opinion"),
    ),
    "an owner buys his host a name": Bug(
        "hosts/reputation.py", "if paid_uusd and not own:", "if paid_uusd:", ("tests/rooms/hosts/test_reputation.py",)
    ),
    "one buyer says as much as he likes": Bug(
        "hosts/reputation.py", "if weight > GROUP_MAX:", "if False:", ("tests/rooms/hosts/test_reputation.py",)
    ),
    "another host's lease will do": Bug(
        "dispatch/stream.py", " or job.lease.host_id != host_id:", ":", dispatch("bounds")
    ),
    "a chosen id makes two jobs": Bug(
        "dispatch/submit.py",
        "taken = set(load_states(tx, [item.job.id for item in items if item.named]))",
        "taken = set()",
        dispatch("submit"),
    ),
    # dispatch: undo, release, wake
    "a slot stays taken when the start is refused": Bug(
        "dispatch/assign.py",
        "        if change.undo():\n            core.fleet.release(lease.host_id)\n        raise",
        "        change.undo()\n        raise",
        dispatch("assign"),
    ),
    "blame stays when nothing was written": Bug(
        "dispatch/assign.py", "            blame.undo()\n", "            pass\n", dispatch("assign")
    ),
    "nobody wakes what waits for the same host": Bug(
        "dispatch/assign.py",
        "asyncio.get_running_loop().call_later(SAME_HOST_AGAIN_S, assign_waiting, core, lease.host_id)",
        "pass",
        (*dispatch("assign"), *MACHINE),
    ),
    "buyers' jobs are counted for ever": Bug(
        "dispatch/buyers.py", "        self.in_flight.leave(job.owner_id)\n", "        pass\n", MACHINE
    ),
    "an ended job stays in line": Bug(
        "dispatch/settle.py", "    core.jobs.queue.remove(job.id)\n", "", (*dispatch("cancel", "expire"), *MACHINE)
    ),
    "the host is not told to stop": Bug(
        "dispatch/cancel.py", "    tell_host_to_stop(core, job, reason)\n    ending", "    ending", dispatch("cancel")
    ),
    # dispatch: bounds
    "one job more than a buyer may have": Bug(
        "dispatch/submit.py",
        ">= settings.jobs_per_buyer_max",
        "> settings.jobs_per_buyer_max",
        dispatch("bounds", "submit"),
    ),
    "one host more than a job is tried on": Bug(
        "dispatch/assign.py",
        "job.losses >= ATTEMPTS_MAX",
        "job.losses > ATTEMPTS_MAX",
        (*dispatch("assign", "expire"), *MACHINE),
    ),
    "one token fewer than is forgiven": Bug(
        "dispatch/stream.py",
        "if most and claim > most +",
        "if most and claim >= most +",
        dispatch("bounds"),
    ),
    "a stream stands still for ever": Bug(
        "dispatch/expire.py",
        "waits = job in core.jobs.live.broken",
        "waits = False",
        (*dispatch("continue", "expire"), *MACHINE),
    ),
    # jobs
    "an undone lease leaves the stream waiting for nobody": Bug(
        "jobs/live_jobs.py", "        if stood_still:\n", "        if False:\n", (*jobs("transitions"), *MACHINE)
    ),
    "an undone change leaves its tables": Bug(
        "jobs/change.py", "if self._tables is not None:", "if False:", (*jobs("transitions"), *MACHINE)
    ),
    "who had his turn goes to the end of the line": Bug(
        "jobs/queue.py", "line.entries.appendleft(entry)", "line.entries.append(entry)", jobs("queue")
    ),
    "the journal is kept": Bug(
        "jobs/store.py",
        '"DELETE FROM journal WHERE job_id IN',
        '"DELETE FROM journal WHERE first_frame < 0 AND job_id IN',
        (*jobs("store"), *MACHINE),
    ),
    "a dropped stage is still counted": Bug(
        "jobs/live.py",
        "self.frame_bytes, self._claimed, self.running_hash = 0, 0,",
        "self.frame_bytes, self.running_hash = 0,",
        (*jobs("live"), *CHAINS),
    ),
    "a reader goes on in an answer that was restarted": Bug(
        "jobs/reader.py", "and at < self.at for", "and at > self.at for", jobs("live")
    ),
    # kinds
    "the hold covers one stage": Bug(
        "kinds/terms.py",
        "        sum(map(hold_of, parts, rates)),",
        "        max(map(hold_of, parts, rates)),",
        ("tests/kinds/test_terms.py",),
    ),
    "holds are rounded down": Bug(
        "kinds/terms.py",
        "return cost_up(part.input_max * rates[0] + part.output_max * rates[1])",
        "return (part.input_max * rates[0] + part.output_max * rates[1]) // 1_000_000",
        ("tests/kinds/test_terms.py",),
    ),
    "every container of a chain has to prove its result": Bug(
        "kinds/containers.py", "proof=ask.proof and at == last", "proof=ask.proof", ("tests/kinds/test_terms.py",)
    ),
    # lost commits
    "a database that lost commits and made as many others passes": Bug(
        "kit/db/heads.py",
        "return theirs != ours and theirs[:2] <= ours[:2]",
        "return theirs != ours and theirs[:2] < ours[:2]",
        RECORD,
    ),
    "what another coordinator misses is no loss": Bug(
        "kit/db/record.py",
        "self.lost = bool(self.gaps or self.claims or self.lost_elsewhere)",
        "self.lost = bool(self.gaps or self.claims)",
        RECORD,
    ),
    "a frame of the record that was changed is believed": Bug(
        "kit/db/record_file.py", 'or zlib.crc32(body) != int.from_bytes(data[at + 4 : at + 8], "big")', "", RECORD
    ),
    "a head is signed before it is on disk": Bug(
        "dispatch/lost_commits.py",
        "await asyncio.to_thread(record.files.sync, statement)",
        "await asyncio.to_thread(record.files.sync)",
        LOST,
    ),
    "a head of an epoch that was accepted as lost stops work again": Bug(
        "dispatch/lost_commits.py", "if theirs.epoch < ours.epoch:", "if False:", LOST
    ),
    "work goes on with memory that is newer than the database": Bug(
        "dispatch/lost_commits.py", "any(not gap.at_start for gap", "any(False for gap", LOST
    ),
    "what stands in the books is brought back again": Bug(
        "dispatch/bring_back.py", "if stored.get(job_id) == item.receipt.payload:", "if False:", dispatch("bring_back")
    ),
    "a receipt is posted beside transfers that are there": Bug(
        "dispatch/bring_back.py", "if transfers.intersection(item.transfer_ids):", "if False:", dispatch("bring_back")
    ),
    "a record that can't be written is healthy": Bug(
        "dispatch/lost_commits.py", "if why := files.unwritten or files.unsynced:", "if why := '':", dispatch("duties")
    ),
    # outbox and webhooks
    "a report under a claim that lapsed counts": Bug(
        "outbox/store.py",
        """where = "WHERE id = ? AND attempts = ? AND state = 'waiting'\"""",
        """where = "WHERE id = ? AND attempts >= ? AND state = 'waiting'\"""",
        OUTBOX,
    ),
    "one that kills whoever tries it is tried for ever": Bug(
        "outbox/store.py", "attempts >= attempts_end AND id IN", "attempts < 0 AND id IN", OUTBOX
    ),
    "a webhook's cursor passes what was not made a message": Bug(
        "dispatch/webhooks.py",
        "isinstance(event, UnknownEvent) or len(made) == room:",
        "isinstance(event, UnknownEvent):",
        WEBHOOKS,
    ),
    "what is untried lets the next pass": Bug(
        "dispatch/webhooks.py", "webhook.parallel - untried,", "webhook.parallel,", WEBHOOKS
    ),
    "the secret of before signs for ever": Bug(
        "webhooks/service.py", "(row[2] or 0) > self._clock.now_ms()", "row[2]", ("tests/transports/test_webhook.py",)
    ),
    "a message of nobody's day is sent inside": Bug(
        "dispatch/webhooks.py", '    out.guard.check("url", url)\n', "", ("tests/transports/test_webhook.py",)
    ),
    "who asks for nothing is told of every job": Bug(
        "dispatch/on_request.py",
        "    if not asked:\n        return None\n",
        "    asked = asked or 7\n",
        dispatch("on_request", "events"),
    ),
    "who has no webhook any more is told of leases": Bug(
        "dispatch/on_request.py",
        "if book.asked_events(item.buyer_id) & ASSIGNED:",
        "if item.buyer_id:",
        dispatch("on_request"),
    ),
    "two events of one job have one message": Bug(
        "dispatch/webhooks.py", "if type(event) in ON_REQUEST:", "if False:", dispatch("on_request")
    ),
    # files
    "a file that a job needs is erased": Bug(
        "blobs/store.py",
        'if tx.fetch("SELECT 1 FROM file_keeps WHERE file_id = ? LIMIT 1", (blob.id,)):',
        "if False:",
        BLOBS,
    ),
    "the bytes of another's file are erased with one's own": Bug(
        "blobs/store.py",
        'elif not tx.fetch("SELECT 1 FROM files WHERE sha256 = ? LIMIT 1", (found.sha256,)):',
        "else:",
        BLOBS,
    ),
    "two writers mix their parts": Bug(
        "blobs/store.py", "if blob.complete or blob.stored != start:", "if blob.complete:", BLOBS
    ),
    "an upload that is wrong at its end is a file": Bug(
        "blobs/store.py", "if blob.expected is not None and blob.expected != new.sha256:", "if False:", BLOBS
    ),
    "what is deleted is counted on": Bug(
        "blobs/store.py", "    _count(tx, found.owner_id, -found.counted, -1)\n", "", BLOBS
    ),
    "a place is erased once, and what was on its way stays": Bug(
        "blobs/service.py", "if since_ms <= now_ms - SURE_MS:", "if True:", BLOBS
    ),
    # files of jobs
    "a job's file is not kept with it": Bug(
        "dispatch/submit.py", "            keeps.apply(tx)\n", "            pass\n", dispatch("job_files")
    ),
    "a file that is deleted at the same moment is a job's": Bug(
        "dispatch/submit.py",
        "if keeps is not None and item.inputs and not keeps.has(job.owner_id, item.inputs):",
        "if False:",
        dispatch("job_files"),
    ),
    "what a host says it made is believed": Bug(
        "dispatch/artifacts.py",
        "if wrong := _wrong(artifact, known.found[file_id], known.maker):",
        "if wrong := '':",
        dispatch("artifacts"),
    ),
    "a host shows what another made": Bug(
        "dispatch/artifacts.py", "if kept is None or kept.maker != maker:", "if kept is None:", dispatch("artifacts")
    ),
    "one file is shown and counted twice": Bug(
        "dispatch/artifacts.py", "if file_id in named:", "if False:", dispatch("artifacts")
    ),
    "a result is deleted": Bug(
        "dispatch/release_files.py", "        wanted = _named(frames)\n", "", ("tests/dispatch/test_artifacts.py",)
    ),
    "a job that is over keeps its files": Bug(
        "dispatch/settle.py", "    release_when_over(core, job)\n", "", dispatch("job_files")
    ),
    "what a lost host uploaded counts on": Bug(
        "dispatch/assign.py", "    drop_lost(core, job, lease)\n", "", dispatch("job_files")
    ),
    "any lease opens a job's files": Bug(
        "dispatch/job_files.py", "job.lease.id == lease and ", "", dispatch("job_files")
    ),
    # sandbox
    "a program sees the host's processes": Bug(
        "worker/sandbox/launch.py", '"--unshare-user", "--unshare-pid", ', '"--unshare-user", ', ESCAPES
    ),
    "a program reaches the host's network": Bug(
        "worker/sandbox/launch.py", "_NEWUSER | _NEWNET | _NEWIPC", "_NEWUSER | _NEWIPC", ESCAPES
    ),
    "a program writes into what it was given": Bug(
        "worker/sandbox/launch.py", '{"ro": "--ro-bind",', '{"ro": "--bind",', ESCAPES
    ),
    "no system call is refused": Bug("worker/sandbox/syscall_filter.py", '    ("ptrace", (101, 117)),\n', "", ESCAPES),
    "a file may be as long as the disk": Bug(
        "worker/sandbox/process.py", '            "RLIMIT_FSIZE": limits.file_bytes,\n', "", BOMBS
    ),
    "a link is a result": Bug(
        "worker/sandbox/results.py",
        "stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1 and",
        "facts.st_nlink and",
        ("tests/worker/sandbox/test_results.py",),
    ),
    "an archive leads out of its folder": Bug(
        "worker/sandbox/archive.py", 'if ".." in parts:', "if False:", ("tests/worker/sandbox/test_archive.py",)
    ),
    "an archive unpacks to any size": Bug(
        "worker/sandbox/archive.py", "if written > left_bytes:", "if False:", ("tests/worker/sandbox/test_archive.py",)
    ),
    "a program may send and receive without end": Bug(
        "worker/sandbox/outward.py", "if self._left_bytes < 0:", "if False:", ("tests/worker/sandbox/test_outward.py",)
    ),
    # programs
    "packages are built where nobody allowed it": Bug(
        "worker/engines/python/uv.py", 'words += [] if builds else ["--only-binary", ":all:"]', "words += []", PACKAGES
    ),
    "a lock is read through a link": Bug(
        "worker/engines/python/uv.py",
        "with open_result(run.work, _LOCK)",
        'with (run.work / _LOCK).open("rb")',
        PACKAGES,
    ),
    "an environment in use is evicted": Bug(
        "worker/engines/python/environments.py",
        "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        PACKAGES,
    ),
    "a function without a result has succeeded": Bug(
        "worker/engines/python/results.py", "if calls and channel.result is None:", "if False:", PYTHON
    ),
    "a program's last result counts": Bug("worker/engines/python/channel.py", " and self.result is None", "", PYTHON),
    "a program's own files are its results": Bug(
        "worker/engines/python/results.py", "if before.get(each.name) ==", "if () ==", PYTHON
    ),
    "time is counted in any frame": Bug(
        "kinds/python/__init__.py",
        "if last.tokens != job.segment_claim:",
        "if False:",
        ("tests/kinds/python/test_order.py",),
    ),
    "progress is told after the end": Bug(
        "worker/engines/programs.py",
        "if ended or self._finished:",
        "if ended:",
        ("tests/worker/engines/test_programs.py",),
    ),
}


async def _try(number: int, name: str, *, turn: asyncio.Semaphore) -> bool:
    async with turn:
        with tempfile.TemporaryDirectory() as folder:
            try:
                caught = await caught_by(MUTATIONS[name], Path(folder))
            except (AssertionError, TimeoutError) as error:
                print(f"{number:>3} {name}: NOT TRIED: {str(error)[-2000:] or type(error).__name__}", flush=True)
                return False
    print(f"{number:>3} {name}: {'caught by ' + ', '.join(caught) if caught else 'NOT CAUGHT'}", flush=True)
    return bool(caught)


async def main(only: list[int]) -> int:
    """Try all mutations, or those numbered; return how many were not caught."""
    turn = asyncio.Semaphore(2)
    chosen = [(number, name) for number, name in enumerate(MUTATIONS, 1) if not only or number in only]
    return (await asyncio.gather(*(_try(*one, turn=turn) for one in chosen))).count(False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, action="append", default=[], metavar="N", help="plant the Nth alone")
    sys.exit(1 if asyncio.run(main(parser.parse_args().only)) else 0)
