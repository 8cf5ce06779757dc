"""Whatever buyers, hosts, time, restarts and a failing database do to jobs, in whatever order: house and model say the
same.

After every step: one final state a job, at most one open attempt, slots equal open leases, events without gaps, holds
closed and receipts written exactly for what is over, all sums zero, and nothing waits that could run.
"""

import itertools
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import hypothesis.strategies as st
import psycopg
import pytest
from hypothesis.stateful import initialize, invariant, precondition, rule

from comptoir.dispatch import assign, deferred_settlements, expire, watch
from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.cancel import hang_up
from comptoir.dispatch.errors import AnswerTooLarge, BadSegment, FramesOutOfOrder
from comptoir.dispatch.stream import CANNOT_CONTINUE, leased_job
from comptoir.jobs import NotYourLease
from comptoir.kit.errors import Unavailable
from comptoir.ledger import InsufficientCredit
from tests.machines import check
from tests.proofs.model import BODY_TOKENS, TOKEN_UUSD, TOKENS_OVER, ModelJob
from tests.proofs.street_machine import StreetMachine

TOKENS = st.sampled_from([10, 10, 10, 3, 1, 0, 4_000])
"""Most tokens of an answer; two of the largest are nearly all of a buyer's credit."""

FAULTS = st.sampled_from(["buyer", "host", "capacity", "coordinator"])


class JobMachine(StreetMachine):
    """The rules."""

    def pick(self, data: st.DataObject, jobs: list[ModelJob]) -> ModelJob:
        return jobs[data.draw(st.integers(0, len(jobs) - 1), label="job")]

    # -- buyers --------------------------------------------------------------------------------------------------

    @rule(
        orders=st.lists(
            st.tuples(st.integers(0, 1), TOKENS, st.sampled_from([True, True, False])), min_size=1, max_size=4
        )
    )
    def buy(self, orders: list[tuple[int, int, bool]]) -> None:
        for who, max_tokens, detached in orders:
            buyer = list(self.model.buyers)[who]
            if BODY_TOKENS + TOKEN_UUSD * max_tokens > self.model.free(buyer):
                self.refused(InsufficientCredit, self.submit(buyer, max_tokens, detached))
                self.recount_polls()
            else:
                self.accepted(self.do(self.submit(buyer, max_tokens, detached)))
            self.adopt()

    @rule(who=st.integers(0, 1), step=st.sampled_from([1, 4, 4_000]), detached=st.sampled_from([True, True, False]))
    def buy_without_a_bound(self, who: int, step: int, detached: bool) -> None:
        buyer = list(self.model.buyers)[who]
        if BODY_TOKENS + TOKEN_UUSD * step <= self.model.free(buyer):
            self.accepted(self.do(self.submit(buyer, step, detached, open_ended=True)))
            self.adopt()

    @rule(who=st.integers(0, 1), meanwhile=st.sampled_from(["nothing", "frames", "done"]))
    def buy_too_much_while_the_house_believes_in_credit(self, who: int, meanwhile: str) -> None:
        """A linked host begins before the commit, and the commit is refused."""
        buyer = list(self.model.buyers)[who]
        too_much = self.model.free(buyer) // TOKEN_UUSD + 1
        self.core.state(Buyers).note_credit(buyer, 10**12)
        self.refused(InsufficientCredit, self.hasty(buyer, too_much, meanwhile))
        self.recount_polls()

    @precondition(lambda self: self.model.open_jobs())
    @rule(data=st.data(), hangs_up=st.booleans())
    def cancel(self, data: st.DataObject, hangs_up: bool) -> None:
        job = self.pick(data, self.model.open_jobs())
        live = self.core.jobs.live.get(job.id)
        assert live is not None
        self.do(self.now(lambda: hang_up(self.core, live)) if hangs_up else self.cancellation(job))
        self.model.cancel(job)

    # -- hosts ---------------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 3))
    def come(self, which: int) -> None:
        host = list(self.model.hosts.values())[which]
        self.do(self.now(lambda: self.link(host)))

    @initialize(buys=st.integers(0, 4))
    def begin(self, buys: int) -> None:
        self.everybody_comes()
        self.buy([(0, 10, True)] * buys)

    @rule()
    def everybody_comes(self) -> None:
        for host in self.model.hosts.values():
            for _ in range(host.slots if host.polls else not host.linked):
                self.do(self.now(partial(self.link, host)))

    @precondition(lambda self: any(host.linked and not host.polls for host in self.model.hosts.values()))
    @rule(data=st.data())
    def drop_the_link(self, data: st.DataObject) -> None:
        linked = [host for host in self.model.hosts.values() if host.linked and not host.polls]
        self.unlink(linked[data.draw(st.integers(0, len(linked) - 1))])

    @precondition(lambda self: self.model.running())
    @rule(data=st.data(), count=st.integers(1, 4), again=st.integers(0, 3))
    def frames(self, data: st.DataObject, count: int, again: int) -> None:
        """New frames, with some of those before once more."""
        job = self.pick(data, self.model.running())
        had = len(job.written)
        self.write(job, count)
        first = max(0, len(job.frames) - again)
        if job.max_tokens and len(job.written) > job.max_tokens + TOKENS_OVER:
            with pytest.raises(AnswerTooLarge):
                self.send(job, first, len(job.written))
            del job.written[had:]
            return
        assert self.send(job, first, len(job.written)) == len(job.written)
        self.model.deliver(job, job.written[len(job.frames) :])

    @precondition(lambda self: self.model.running())
    @rule(count=st.integers(1, 3))
    def frames_of_everybody(self, count: int) -> None:
        for job in self.model.running():
            if not job.max_tokens or len(job.written) + count <= job.max_tokens:
                self.write(job, count)
            self.bring_the_rest(job)

    @precondition(lambda self: self.model.running())
    @rule(data=st.data(), count=st.integers(1, 3), fault=st.sampled_from(["host", "capacity"]))
    def break_in_the_middle(self, data: st.DataObject, count: int, fault: str) -> None:
        job = self.pick(data, self.model.running())
        self.write(job, min(count, job.max_tokens - len(job.written)) if job.max_tokens else count)
        self.bring_the_rest(job)
        self.do(self.failure(job, fault))
        self.model.fail(job, fault)

    @precondition(lambda self: self.model.running())
    @rule(data=st.data())
    def frames_with_a_gap(self, data: st.DataObject) -> None:
        job = self.pick(data, self.model.running())
        self.write(job, 2)
        with pytest.raises(FramesOutOfOrder):
            self.send(job, len(job.frames) + 1, len(job.written))
        del job.written[-2:]

    @precondition(lambda self: self.model.running())
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        job = self.pick(data, self.model.running())
        self.bring_the_rest(job)
        self.do(self.completion(job))
        self.model.complete(job)

    @precondition(lambda self: self.model.running())
    @rule(data=st.data())
    def complete_with_another_hash(self, data: st.DataObject) -> None:
        job = self.pick(data, self.model.running())
        self.refused(BadSegment, self.completion(job, wrong=True))
        self.model.fail(job, "host", unpaid=True)

    @precondition(lambda self: self.model.running())
    @rule(data=st.data(), fault=FAULTS)
    def fail(self, data: st.DataObject, fault: str) -> None:
        job = self.pick(data, self.model.running())
        self.do(self.failure(job, fault))
        self.model.fail(job, fault)

    @precondition(lambda self: self.in_the_middle())
    @rule(data=st.data())
    def it_can_not_go_on_after_all(self, data: st.DataObject) -> None:
        job = self.pick(data, self.in_the_middle())
        self.do(self.failure(job, "host", CANNOT_CONTINUE))
        self.model.can_not_go_on(job)

    def in_the_middle(self) -> list[ModelJob]:
        """Jobs whose host was given another one's frames, and has added none."""
        return [job for job in self.model.running() if 0 < job.first == len(job.frames)]

    @precondition(lambda self: self.model.stale)
    @rule(data=st.data())
    def act_on_a_closed_lease(self, data: st.DataObject) -> None:
        host, lease = data.draw(st.sampled_from(self.model.stale))
        with pytest.raises(NotYourLease):
            leased_job(self.core, host, lease)

    # -- several at once -----------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.running())
    @rule(
        data=st.data(),
        ends=st.lists(st.sampled_from(["complete", "cancel"]), min_size=1, max_size=3),
        buys=st.integers(0, 2),
    )
    def many_things_in_one_group(self, data: st.DataObject, ends: list[str], buys: int) -> None:
        jobs = data.draw(st.permutations(self.model.running()))[: len(ends)]
        buyers = list(self.model.buyers)[:buys]
        sure = [buyer for buyer in buyers if self.model.free(buyer) >= BODY_TOKENS + TOKEN_UUSD]
        for job in jobs:
            self.bring_the_rest(job)
        ending = [
            self.completion(job) if end == "complete" else self.cancellation(job)
            for job, end in zip(jobs, ends, strict=False)
        ]
        done = self.do(self.together(*(self.submit(buyer, 1, True) for buyer in sure), *ending))
        for live in done[: len(sure)]:
            self.accepted(live)
        assert done[len(sure) :] == [None] * len(ending)
        for job, end in zip(jobs, ends, strict=False):
            (self.model.complete if end == "complete" else self.model.cancel)(job)

    @precondition(lambda self: self.model.running())
    @rule(data=st.data())
    def two_ends_of_one_job(self, data: st.DataObject) -> None:
        job = self.pick(data, self.model.running())
        self.bring_the_rest(job)
        self.do(self.together(self.completion(job), self.cancellation(job)))
        self.model.complete(job)

    @precondition(lambda self: self.street.written)
    @rule(data=st.data())
    def a_command_comes_twice(self, data: st.DataObject) -> None:
        written = self.street.written
        first = data.draw(st.integers(0, len(written) - 1))
        self.do(self.run_again(written[first : first + 3]))

    # -- what goes wrong at home ---------------------------------------------------------------------------------

    @precondition(lambda self: self.model.running())
    @rule(data=st.data(), what=st.sampled_from(["complete", "cancel", "fail"]))
    def the_database_refuses_an_end(self, data: st.DataObject, what: str) -> None:
        """It is kept, and written when the database is back."""
        job = self.pick(data, self.model.running())
        self.bring_the_rest(job)
        # The word of one host that the request is bad ends nothing; that the house is at fault does, unless it is.
        fault = "buyer" if job.accusers else "coordinator"
        if what == "fail" and fault == "coordinator" and job.revived and len(job.frames) == job.first:
            return
        works = {
            "complete": self.completion,
            "cancel": self.cancellation,
            "fail": lambda job: self.failure(job, fault),
        }
        self.street.refuse = "settle_verb"
        self.refused(Unavailable, works[what](job))
        {
            "complete": self.model.complete,
            "cancel": self.model.cancel,
            "fail": lambda job: self.model.fail(job, fault),
        }[what](job)

    @precondition(lambda self: self.model.running())
    @rule(data=st.data())
    def the_database_refuses_to_put_it_back_in_line(self, data: st.DataObject) -> None:
        """The lease stands, and nobody has lost anything yet."""
        job = self.pick(data, self.model.running())
        self.street.refuse = "requeue_verb"
        try:
            self.do(self.failure(job, "host"))
        except Unavailable:
            assert self.still_there(job)
        else:
            self.street.refuse = ""
            self.model.fail(job, "host")
            assert job.over, "a job that goes on was put back in line"

    @rule(who=st.integers(0, 1))
    def the_database_refuses_a_purchase(self, who: int) -> None:
        self.street.refuse = "any"
        self.refused(Unavailable, self.submit(list(self.model.buyers)[who], 1, True))
        self.recount_polls()

    @precondition(lambda self: self.model.waiting() and self.model.running())
    @rule(data=st.data())
    def the_database_refuses_a_start(self, data: st.DataObject) -> None:
        """A job that could not be leased goes back in line, and is tried again without anybody asking."""
        job = self.pick(data, self.model.running())
        self.street.refuse = "start_verb"
        self.do(self.cancellation(job))
        self.street.refuse = ""
        self.model.cancel(job)
        self.recount_polls()

    @rule(seconds=st.sampled_from([1.0, 1.0, 9.0, 9.0, 11.0, 31.0, 61.0, 901.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    # -- always --------------------------------------------------------------------------------------------------

    @invariant()
    def house_and_model_say_the_same(self) -> None:
        self.agreed = False
        self.adopt()
        self.compare_memory()
        self.wait(self.core.db.run(self.compare_tables))
        self.agreed = True


Fresh = Callable[[], tuple[Path, str]]


@pytest.fixture
def fresh_sqlite(tmp_path: Path) -> Fresh:
    numbers = itertools.count()

    def fresh() -> tuple[Path, str]:
        folder = tmp_path / str(next(numbers))
        shutil.rmtree(tmp_path / str(next(numbers) - 3), ignore_errors=True)
        return folder, ""

    return fresh


@pytest.fixture
def fresh_postgres(tmp_path: Path, postgres_address: str) -> Fresh:
    numbers = itertools.count()

    def fresh() -> tuple[Path, str]:
        with psycopg.connect(postgres_address, autocommit=True) as connection:
            rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            names = [name for (name,) in rows if name != "alembic_version"]
            if names:
                connection.execute(f"TRUNCATE {', '.join(names)}")
        # Not the folder of the run before, whose record knows what is gone from the database now.
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return folder, postgres_address

    return fresh


@pytest.fixture(autouse=True)
def no_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens because real time passes: the test sweeps, and what may be given again is given at once."""
    monkeypatch.setattr(expire, "SWEEP_S", 10**6)
    monkeypatch.setattr(assign, "SAME_HOST_AGAIN_S", 0.0)
    monkeypatch.setattr(deferred_settlements, "PAUSE_S", 0.0)
    # Four links that drop at one moment are taken for the house's own fault; with four hosts in all that is too often.
    monkeypatch.setattr(watch, "TOGETHER_MIN", 100)


def machine(fresh: Fresh) -> type[JobMachine]:
    return type("Machine", (JobMachine,), {"fresh": staticmethod(fresh)})


@pytest.mark.search
class TestJobMachine:
    def test_it_agrees_with_the_model_on_sqlite(self, fresh_sqlite: Fresh) -> None:
        check(machine(fresh_sqlite), examples=25, steps=50)

    def test_it_agrees_with_the_model_on_postgresql(self, fresh_postgres: Fresh) -> None:
        check(machine(fresh_postgres), examples=4, steps=50)
