"""The audit: zero differences after honest work, and every planted one is named."""

from pathlib import Path

from comptoir.dispatch.cancel import cancel
from comptoir.jobs import JobState
from comptoir.kit.db import Tx
from comptoir.kit.ids import new_id, public
from comptoir.ledger import FEES
from comptoir.ledger.audit import CHECKS as LEDGER_CHECKS
from comptoir.reports import audit
from comptoir.reports.audit import ACCOUNT_CHECKS, CHECKS, differences
from tests.street import Street, deliver, finish_well, open_street

PLANTED = [
    # what is done to the database, the state of the job it is done to, what the audit must say
    ("DELETE FROM holds WHERE job_id = {job}", "cancelled", {"job without hold"}),
    ("DELETE FROM holds WHERE job_id = {job}", "queued", {"job without hold", "held"}),
    ("UPDATE holds SET state = 'open' WHERE job_id = {job}", "completed", {"hold of a finished job is open", "held"}),
    ("UPDATE holds SET state = 'settled' WHERE job_id = {job}", "running", {"hold of an unfinished job is closed", "held"}),
    ("UPDATE jobs SET hold_uusd = hold_uusd + 1 WHERE id = {job}", "queued", {"hold of another amount"}),
    ("UPDATE jobs SET owner_id = host_id WHERE id = {job}", "completed", {"hold of another buyer"}),
    ("UPDATE jobs SET cost_uusd = cost_uusd + 1 WHERE id = {job}", "completed", {"cost"}),
    ("UPDATE holds SET settled_uusd = settled_uusd + 1 WHERE job_id = {job}", "completed", {"cost", "settled"}),
    ("DELETE FROM receipts WHERE job_id = {job}", "completed", {"finished job without receipt"}),
    ("UPDATE receipts SET job_id = {job} WHERE job_id = {done}", "running",
     {"receipt of an unfinished job", "finished job without receipt"}),
    ("UPDATE attempts SET paid_uusd = paid_uusd + 1 WHERE job_id = {job} AND paid_uusd > 0", "completed", {"paid to a host"}),
    ("UPDATE transfers SET amount_uusd = amount_uusd + 1 WHERE job_id = {job} AND kind = 'pay'", "completed",
     {"balance", "settled", "paid to a host"}),
    ("DELETE FROM transfers WHERE job_id = {job} AND kind = 'fee'", "completed", {"balance", "promotional", "settled"}),
    ("UPDATE transfers SET job_id = id WHERE job_id = {job} AND kind = 'fee'", "completed",
     {"settled", "transfer without job"}),
    ("INSERT INTO transfers (id, debit_id, credit_id, amount_uusd, kind, job_id, created_ms) "
     "SELECT {new}, debit_id, credit_id, amount_uusd, kind, job_id, created_ms FROM transfers "
     "WHERE job_id = {job} AND kind = 'pay'", "completed", {"balance", "settled", "paid to a host"}),
    ("UPDATE accounts SET balance_uusd = balance_uusd + 1 WHERE id = {fees}", "completed", {"balance", "sum"}),
    ("UPDATE accounts SET promo_uusd = balance_uusd + 1 WHERE id = {fees}", "completed",
     {"promotional", "promotional above the balance"}),
    ("UPDATE transfers SET promo_uusd = amount_uusd + 1 WHERE job_id = {job} AND kind = 'pay'", "completed",
     {"promotional", "promotional above the transfer"}),
    ("UPDATE accounts SET held_uusd = -1 WHERE id = {fees}", "completed", {"held", "overdrawn"}),
    ("UPDATE attempts SET state = 'leased' WHERE job_id = {job}", "completed", {"open attempt that is not its job's"}),
    ("UPDATE attempts SET state = 'done' WHERE job_id = {job}", "running", {"running job without open attempt"}),
    ("UPDATE attempts SET job_id = {job} WHERE job_id = {done}", "running", {"paid to a host"}),
    ("UPDATE attempts SET job_id = {job}, state = 'leased', paid_uusd = 0 WHERE job_id = {done}", "running",
     {"several open attempts", "open attempt that is not its job's", "paid to a host"}),
    ("UPDATE job_events SET state = 'failed' WHERE job_id = {job} AND seq = 2", "completed", {"last event"}),
    ("DELETE FROM job_events WHERE job_id = {job} AND seq = 2", "completed", {"last event"}),
    ("DELETE FROM job_events WHERE job_id = {job} AND seq = 1", "completed", {"events with gaps"}),
    ("DELETE FROM job_events WHERE job_id = {job}", "completed", {"job without events"}),
    ("UPDATE job_events SET state = 'failed' WHERE job_id = {job} AND seq = 1", "completed", {"several ends"}),
    ("UPDATE jobs SET state = 'queued' WHERE id = {job}", "cancelled",
     {"hold of an unfinished job is closed", "receipt of an unfinished job", "last event", "end published of an unfinished job"}),
    ("UPDATE answers SET job_id = {job} WHERE job_id = {done}", "running", {"answer of an unfinished job"}),
    ("INSERT INTO journal (job_id, first_frame, frames) SELECT id, 0, body FROM jobs WHERE id = {job}", "completed",
     {"journal of a finished job"}),
    ("UPDATE holds SET job_id = {nobody} WHERE job_id = {job}", "cancelled", {"job without hold", "hold without job"}),
    ("DELETE FROM events WHERE subject_id = {job}", "cancelled", {"events published"}),
    ("DELETE FROM events WHERE subject_id = {job}", "completed", {"events published with gaps"}),
    ("UPDATE events SET subject_id = {job} WHERE subject_id = {done}", "cancelled", {"several ends published"}),
    ("UPDATE events SET subject_id = {job} WHERE subject_id = {done}", "running", {"end published of an unfinished job"}),
]  # fmt: skip


class Undone(Exception):
    """Takes a planted difference back; carries what the audit said of it."""


async def one_job_of_each_kind(street: Street) -> None:
    """Leave one completed job, one cancelled, one running and one queued."""
    core = street.core
    _, line = await street.host()
    done = await street.submit()
    await finish_well(core, done)
    waiting = [await street.submit() for _ in range(3)]
    await cancel(core, waiting[2])
    deliver(core, waiting[0], 2)
    assert [job.state for job in waiting] == [JobState.RUNNING, JobState.QUEUED, JobState.CANCELLED]
    assert len(line.sent) == 2


def literal(raw: bytes, dialect: str) -> str:
    return f"x'{raw.hex()}'" if dialect == "sqlite" else f"'\\x{raw.hex()}'::bytea"


async def found_after(street: Street, sql: str, state: str) -> tuple[int, set[str]]:
    """Do *sql* in a transaction, audit inside it, take it back; return the rows touched and what was found."""
    dialect = street.core.db.dialect

    def command(tx: Tx) -> None:
        ids = {str(row[1]): literal(bytes(row[0]), dialect) for row in tx.fetch("SELECT id, state FROM jobs")}
        touched = tx.execute(
            sql.format(
                job=ids[state],
                done=ids["completed"],
                new=literal(new_id(), dialect),
                fees=literal(FEES, dialect),
                nobody=literal(bytes(16), dialect),
            )
        )
        raise Undone(touched, {one.what for one in differences(tx.fetch)})

    try:
        await street.core.db.run(command)
    except Undone as undone:
        touched, found = undone.args
        return touched, found
    raise AssertionError("unreachable")


class TestAudit:
    async def test_honest_work_makes_no_difference(self, tmp_path: Path, database_address: str) -> None:
        async with open_street(tmp_path, database=database_address) as street:
            await one_job_of_each_kind(street)

            assert await audit(street.core.db) == []

    async def test_each_planted_difference_is_named_and_no_other(self, tmp_path: Path, database_address: str) -> None:
        async with open_street(tmp_path, database=database_address) as street:
            await one_job_of_each_kind(street)

            wrong = {}
            for sql, state, wanted in PLANTED:
                touched, found = await found_after(street, sql, state)
                if not touched or found != wanted:
                    wrong[sql] = (touched, found)

            assert wrong == {}
            assert await audit(street.core.db) == []

    def test_every_check_has_a_planted_difference(self) -> None:
        planted = set().union(*(wanted for _, _, wanted in PLANTED))

        # That of bonds is tests/rooms/ledger/test_bonds.py.
        assert planted | {"bonds"} == {*CHECKS, *ACCOUNT_CHECKS, *LEDGER_CHECKS, "sum"}

    async def test_a_difference_names_the_job_and_both_figures(self, tmp_path: Path, database_address: str) -> None:
        async with open_street(tmp_path, database=database_address) as street:
            await street.host()
            job = await street.submit()
            await finish_well(street.core, job)
            cost = job.cost_uusd
            await street.core.db.run(lambda tx: tx.execute("UPDATE jobs SET cost_uusd = cost_uusd + 7"))

            (found,) = await audit(street.core.db)

            assert (found.what, found.subject) == ("cost", public("job", job.id))
            assert (found.recorded, found.recomputed) == (str(cost + 7), str(cost))

    async def test_it_sees_one_moment_while_work_goes_on(self, tmp_path: Path, database_address: str) -> None:
        async with open_street(tmp_path, database=database_address) as street:
            await street.host()
            found = []
            for _ in range(4):
                job = await street.submit()
                found += await audit(street.core.db)
                await finish_well(street.core, job)
                found += await audit(street.core.db)

            assert found == []
