"""Chains of containers: whatever buyers, hosts, time, restarts and a failing database do to them, house and model say
the same.

After every step of the machine: what `tests.proofs.test_job_machine` insists on, and that each container is asked for
by its own name, with the output of the one before, by a host that has it.
"""

from collections.abc import Coroutine
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import initialize, invariant, precondition, rule

from comptoir.dispatch import assign, deferred_settlements, expire, watch
from comptoir.dispatch.cancel import hang_up
from comptoir.dispatch.errors import BadSegment
from comptoir.dispatch.onboard import add_host, add_user
from comptoir.dispatch.settle import segment_of
from comptoir.dispatch.stream import CANNOT_CONTINUE, complete, leased_job, take_frames
from comptoir.dispatch.submit import Order, submit
from comptoir.hosts import LINK, NewHost
from comptoir.jobs import LiveJob, NotYourLease
from comptoir.kit.errors import Unavailable
from comptoir.kit.signing import SigningKey
from comptoir.ledger import InsufficientCredit
from comptoir.link import CONTAINER, ContainerCard, Frame, ModelOffer, Usage, hash_after, hash_start, segment_bytes
from tests.machines import check
from tests.proofs.chain_model import (
    END,
    HALF,
    PRICES_UUSD,
    TIMEOUT_S,
    ChainHost,
    ChainModel,
    ModelChain,
    is_end,
)
from tests.proofs.model import TTL_S, ModelJob
from tests.proofs.street_machine import StreetMachine
from tests.proofs.test_job_machine import Fresh, fresh_postgres, fresh_sqlite

__all__ = ["fresh_postgres", "fresh_sqlite"]

HOSTS = (("a", 1, False), ("ab", 2, True), ("bc", 1, False), ("c", 1, True), ("abc", 1, True))
"""Containers, slots, and whether it signs."""

CHAINS = st.lists(st.sampled_from("aabc"), min_size=1, max_size=3).map(tuple)
FAULTS = st.sampled_from(["buyer", "host", "host", "capacity", "coordinator"])
STOPPED = b'{"finish_reason":"stop"}'
RUN = Usage(0, 1)


def offer(name: str) -> ModelOffer:
    price = PRICES_UUSD[name] * 1_000_000
    return ModelOffer(name, [CONTAINER], 1, 0, price, container=ContainerCard(timeout_s=TIMEOUT_S))


class ChainMachine(StreetMachine):
    """The rules."""

    model: ChainModel  # type: ignore[assignment]

    async def _begin(self) -> None:
        self.model = ChainModel()
        self.keys: dict[bytes, SigningKey] = {}
        await self.street.open()
        for name in ("ada", "bob"):
            self.model.join((await add_user(self.street.core, username=name, email=None, password=None)).user.id)
        for names, slots, signs in HOSTS:
            key = SigningKey.generate() if signs else None
            new = NewHost(
                gpu="x",
                models=tuple(map(offer, names)),
                slots=slots,
                transport=LINK,
                public_key=key.public_key if key is not None else None,
            )
            host_id = (await add_host(self.street.core, new)).host_id
            if key is not None:
                self.keys[host_id] = key
            self.model.hosts[host_id] = ChainHost(host_id, slots, False, False, offers=frozenset(names))

    def pick(self, data: st.DataObject, jobs: list[ModelJob]) -> ModelChain:
        job = jobs[data.draw(st.integers(0, len(jobs) - 1), label="job")]
        assert isinstance(job, ModelChain)
        return job

    # -- what hosts and buyers do --------------------------------------------------------------------------------

    async def chain_of(self, buyer: bytes, names: tuple[str, ...], detached: bool) -> LiveJob:
        body = b'{"containers":[],"data":1}'
        return await submit(
            self.core, Order(buyer, "test", CONTAINER, names[0], body, len(names), detached, stages=names)
        )

    def took(self, live: LiveJob) -> None:
        names = tuple(stage.model for stage in live.stages)
        job = ModelChain(live.id, live.owner_id, len(names), live.detached, self.model.now_s + TTL_S, names=names)
        assert live.terms.hold_uusd == job.hold
        self.model.accept(job)

    def frame(self, job: ModelJob, number: int) -> Frame:
        text = job.written[number]
        return Frame(text, int(number == job.first), STOPPED if is_end(text) else b"")

    def send(self, job: ModelJob, first: int, last: int) -> int:
        return take_frames(self.core, self.live(job), first, [self.frame(job, number) for number in range(first, last)])

    def made(self, job: ModelChain, *texts: str) -> None:
        """Have the host make frames, and send all that it has."""
        job.written += texts
        self.bring_the_rest(job)

    def output(self) -> str:
        return f'{{"number":{next(self.numbers)}}}'

    def ending(self, job: ModelChain, *, forged: bool = False) -> Coroutine[Any, Any, None]:
        """Have the host say that its container is done."""
        live = self.live(job)
        lease = live.lease
        assert lease is not None and job.host is not None
        chain = hash_start(job.id)
        for number, text in enumerate(job.written):
            before = number < job.first
            frame = live.frames[number] if before else self.frame(job, number)
            assert frame.text == text
            chain = hash_after(chain, frame)
        key = self.keys.get(job.host.id)
        signature = b""
        if key is not None:
            key = SigningKey.generate() if forged else key
            signature = key.sign(segment_bytes(segment_of(live, lease, "stop", RUN)))
        return complete(self.core, live, finish_reason="stop", usage=RUN, signature=signature, running_hash=chain)

    def finish_what_is_made(self, job: ModelChain) -> None:
        """Have the host make the rest of the step's output, and send it."""
        self.bring_the_rest(job)
        if not job.whole:
            if job.streams:
                self.made(job, *([] if len(job.written) > job.first else [self.output()[1:-1]]), END)
            else:
                assert len(job.written) == job.first
                self.made(job, self.output())

    def in_order(self) -> list[ModelJob]:
        """Jobs whose host has made nothing that is no output."""
        return [job for job in self.model.running() if HALF not in job.written]

    def untouched(self) -> list[ModelJob]:
        return [job for job in self.model.running() if len(job.written) == job.first]

    # -- buyers --------------------------------------------------------------------------------------------------

    @rule(
        orders=st.lists(
            st.tuples(st.integers(0, 1), CHAINS, st.sampled_from([True, True, False])), min_size=1, max_size=3
        )
    )
    def buy(self, orders: list[tuple[int, tuple[str, ...], bool]]) -> None:
        for who, names, detached in orders:
            buyer = list(self.model.buyers)[who]
            if sum(PRICES_UUSD[name] for name in names) > self.model.free(buyer):
                self.refused(InsufficientCredit, self.chain_of(buyer, names, detached))
            else:
                self.took(self.do(self.chain_of(buyer, names, detached)))
            self.adopt()

    @precondition(lambda self: self.model.open_jobs())
    @rule(data=st.data(), hangs_up=st.booleans())
    def cancel(self, data: st.DataObject, hangs_up: bool) -> None:
        job = self.pick(data, self.model.open_jobs())
        live = self.core.jobs.live.get(job.id)
        assert live is not None
        self.do(self.now(lambda: hang_up(self.core, live)) if hangs_up else self.cancellation(job))
        self.model.cancel(job)

    # -- hosts ---------------------------------------------------------------------------------------------------

    @initialize(chains=st.lists(CHAINS, max_size=3))
    def begin(self, chains: list[tuple[str, ...]]) -> None:
        self.everybody_comes()
        self.buy([(0, names, True) for names in chains])

    @rule()
    def everybody_comes(self) -> None:
        for host in self.model.hosts.values():
            if not host.linked:
                self.do(self.now(lambda host=host: self.link(host)))  # type: ignore[misc]

    @rule(which=st.integers(0, len(HOSTS) - 1))
    def come(self, which: int) -> None:
        host = list(self.model.hosts.values())[which]
        self.do(self.now(lambda: self.link(host)))

    @precondition(lambda self: any(host.linked for host in self.model.hosts.values()))
    @rule(data=st.data())
    def drop_the_link(self, data: st.DataObject) -> None:
        linked = [host for host in self.model.hosts.values() if host.linked]
        self.unlink(linked[data.draw(st.integers(0, len(linked) - 1))])

    @precondition(lambda self: self.in_order())
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        job = self.pick(data, self.in_order())
        self.finish_what_is_made(job)
        self.do(self.ending(job))
        self.model.done(job)

    @precondition(lambda self: self.in_order())
    @rule(count=st.integers(1, 3))
    def all_are_done(self, count: int) -> None:
        for _ in range(count):
            for job in self.in_order():
                if job.state == "running":
                    assert isinstance(job, ModelChain)
                    self.finish_what_is_made(job)
                    self.do(self.ending(job))
                    self.model.done(job)
                    self.adopt()

    @precondition(lambda self: self.in_order())
    @rule(data=st.data())
    def made_and_not_said(self, data: st.DataObject) -> None:
        """The output is here, and its host dies before it says so: it is not made again."""
        self.finish_what_is_made(self.pick(data, self.in_order()))

    @precondition(lambda self: self.untouched())
    @rule(data=st.data())
    def half_an_output(self, data: st.DataObject) -> None:
        job = self.pick(data, self.untouched())
        self.made(job, "a piece" if job.streams else HALF)

    @precondition(lambda self: self.model.running())
    @rule(data=st.data())
    def no_output(self, data: st.DataObject) -> None:
        """It says that it is done, and is not."""
        job = self.pick(data, self.model.running())
        self.bring_the_rest(job)
        if job.whole or job.streams:
            return
        self.refused(BadSegment, self.ending(job))
        self.model.fail(job, "host", unpaid=True)

    @precondition(lambda self: any(job.host.id in self.keys for job in self.in_order()))
    @rule(data=st.data())
    def forged(self, data: st.DataObject) -> None:
        job = self.pick(data, [job for job in self.in_order() if job.host is not None and job.host.id in self.keys])
        self.finish_what_is_made(job)
        self.refused(BadSegment, self.ending(job, forged=True))
        self.model.fail(job, "host", unpaid=True)

    @precondition(lambda self: self.model.running())
    @rule(data=st.data(), fault=FAULTS)
    def fail(self, data: st.DataObject, fault: str) -> None:
        job = self.pick(data, self.model.running())
        self.do(self.failure(job, fault))
        self.model.fail(job, fault)

    @precondition(lambda self: self.untouched())
    @rule(data=st.data(), fault=st.sampled_from(["host", "buyer"]))
    def breaks_in_the_middle(self, data: st.DataObject, fault: str) -> None:
        """Half a run is none, and nobody pays it."""
        job = self.pick(data, self.untouched())
        self.made(job, "a piece" if job.streams else HALF)
        self.do(self.failure(job, fault))
        self.model.fail(job, fault)

    @precondition(lambda self: any(job.first for job in self.untouched()))
    @rule(data=st.data())
    def it_can_not_go_on(self, data: st.DataObject) -> None:
        job = self.pick(data, [job for job in self.untouched() if job.first])
        self.do(self.failure(job, "host", CANNOT_CONTINUE))
        self.model.can_not_go_on(job)

    @precondition(lambda self: self.model.stale)
    @rule(data=st.data())
    def act_on_a_closed_lease(self, data: st.DataObject) -> None:
        host, lease = data.draw(st.sampled_from(self.model.stale))
        with pytest.raises(NotYourLease):
            leased_job(self.core, host, lease)

    # -- at once, and again --------------------------------------------------------------------------------------

    @precondition(lambda self: self.in_order())
    @rule(data=st.data())
    def done_and_cancelled_in_one_group(self, data: st.DataObject) -> None:
        job = self.pick(data, self.in_order())
        self.finish_what_is_made(job)
        self.do(self.together(self.ending(job), self.cancellation(job)))
        self.model.done(job)
        if not job.over:
            self.model.cancel(job)

    @precondition(lambda self: any(job.host.id in self.keys and not job.on_last for job in self.in_order()))
    @rule(data=st.data())
    def forged_and_cancelled_in_one_group(self, data: st.DataObject) -> None:
        """The attempt was just being closed, and was not after all: the buyer's word counts all the same."""
        signing = [job for job in self.in_order() if job.host is not None and job.host.id in self.keys]
        job = self.pick(data, [job for job in signing if isinstance(job, ModelChain) and not job.on_last])
        self.finish_what_is_made(job)
        refused, cancelled = self.do(self.together(self.ending(job, forged=True), self.cancellation(job)))
        assert (type(refused), cancelled) == (BadSegment, None)
        self.model.cancel(job)

    @precondition(lambda self: self.street.written)
    @rule(data=st.data())
    def a_command_comes_twice(self, data: st.DataObject) -> None:
        written = self.street.written
        first = data.draw(st.integers(0, len(written) - 1))
        self.do(self.run_again(written[first : first + 3]))

    # -- what goes wrong at home ---------------------------------------------------------------------------------

    @precondition(lambda self: self.in_order())
    @rule(data=st.data())
    def the_database_refuses_that_it_is_done(self, data: st.DataObject) -> None:
        """Of a step nothing has happened, and its host says it again; the end of a job is kept."""
        job = self.pick(data, self.in_order())
        self.finish_what_is_made(job)
        last = job.on_last
        self.street.refuse = "settle_verb" if last else "requeue_verb"
        self.refused(Unavailable, self.ending(job))
        if last:
            self.model.done(job)
        else:
            assert self.still_there(job)

    @precondition(lambda self: self.model.running())
    @rule(data=st.data())
    def the_database_refuses_the_start_of_what_follows(self, data: st.DataObject) -> None:
        running = self.in_order()
        if running:
            job = self.pick(data, running)
            self.finish_what_is_made(job)
            self.street.refuse = "start_verb"
            self.do(self.ending(job))
            self.street.refuse = ""
            self.model.done(job)

    @rule(seconds=st.sampled_from([1.0, 1.0, 9.0, 11.0, 61.0, 104.0, 106.0, 901.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    # -- always --------------------------------------------------------------------------------------------------

    @invariant()
    def house_and_model_say_the_same(self) -> None:
        self.agreed = False
        self.adopt()
        self.compare_memory()
        for job in self.model.open_jobs():
            assert isinstance(job, ModelChain)
            live = self.core.jobs.live.get(job.id)
            assert live is not None
            assert (live.kind.stage(live), live.model) == (job.step, job.names[job.step])
            if live.lease is not None:
                assert (live.lease.model, live.lease.first_frame) == (live.model, job.closed)
        self.wait(self.core.db.run(self.compare_tables))
        self.agreed = True


@pytest.fixture(autouse=True)
def no_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens because real time passes, as in `tests.proofs.test_job_machine`."""
    monkeypatch.setattr(expire, "SWEEP_S", 10**6)
    monkeypatch.setattr(assign, "SAME_HOST_AGAIN_S", 0.0)
    monkeypatch.setattr(deferred_settlements, "PAUSE_S", 0.0)
    monkeypatch.setattr(watch, "TOGETHER_MIN", 100)


def machine(fresh: Fresh) -> type[ChainMachine]:
    return type("Machine", (ChainMachine,), {"fresh": staticmethod(fresh)})


@pytest.mark.search
class TestChainMachine:
    def test_it_agrees_with_the_model_on_sqlite(self, fresh_sqlite: Fresh) -> None:
        check(machine(fresh_sqlite), examples=10, steps=40)

    def test_it_agrees_with_the_model_on_postgresql(self, fresh_postgres: Fresh) -> None:
        check(machine(fresh_postgres), examples=3, steps=40)
