"""What a trading post must do with chains of containers: the reference of the chain machine.

As `tests.proofs.model` it does not choose hosts: it knows which may be given a step, adopts what the house chose, and
insists that nothing that could run waits. A step that is done stays done, whatever is lost after it.
"""

from dataclasses import dataclass

from tests.proofs.model import ATTEMPTS_MAX, FEE_BPS, RELINK_S, Model, ModelHost, ModelJob, Part

PRICES_UUSD = {"a": 1_000, "b": 2_000, "c": 3_000}
"""What a run of each container costs."""

TIMEOUT_S = 100.0
"""Longest run of a container."""

SILENT_S = TIMEOUT_S + 5.0
"""How long a host may be silent with a container: it says nothing before it is done."""

END = ""
"""The frame that ends a stream."""

HALF = "half"
"""A frame that is no output: no JSON, and no end."""


def is_end(text: str) -> bool:
    """Tell whether a frame says that its container is done."""
    return text == END or text.startswith("{")


@dataclass(eq=False)
class ChainHost(ModelHost):
    """A host of containers."""

    offers: frozenset[str] = frozenset()
    key: bytes = b""
    """Seed of the key that it signs with; empty: none."""


@dataclass(eq=False)
class ModelChain(ModelJob):
    """One accepted chain; every part of it but the last is a container that is done."""

    names: tuple[str, ...] = ()
    seen_restarts: int = 0
    """How often it began anew, as memory has it: stored when it is put back in line."""

    @property
    def hold(self) -> int:
        return sum(PRICES_UUSD[name] for name in self.names)

    @property
    def closed(self) -> int:
        """Frames of the containers that are done."""
        return self.parts[-1].end if self.parts else 0

    @property
    def step(self) -> int:
        return min(self.closed, len(self.names) - 1)

    @property
    def on_last(self) -> bool:
        return self.step == len(self.names) - 1

    @property
    def streams(self) -> bool:
        """Whether the buyer follows what is being made."""
        return not self.detached and self.on_last

    @property
    def whole(self) -> bool:
        """Whether what was delivered of the step is an output, though its host may not have said so."""
        made = self.frames[self.closed :]
        return bool(made) and is_end(made[-1]) and (self.streams or len(made) == 1)


class ChainModel(Model):
    """Chains, hosts and money."""

    def _suits(self, job: ModelJob, host: ModelHost) -> bool:
        assert isinstance(job, ModelChain) and isinstance(host, ChainHost)
        begun = len(job.frames) > job.closed
        return job.names[job.step] in host.offers and host.id not in job.tried | job.accusers and not begun

    def wait_in_line(self, job: ModelJob) -> None:
        """A chain may wait for its next container for as long as it may live."""

    def done(self, job: ModelChain) -> None:
        """The container is done: on to the next one, or the end."""
        if job.on_last:
            self.finish(job, "completed")
            return
        assert job.host is not None
        job.parts.append(Part(job.host, job.lease, job.first, len(job.frames)))
        self._back_in_line(job)
        # Who failed the container before is no reason to be refused the next.
        job.tried, job.accusers, job.losses = set(), set(), 0

    def _back_in_line(self, job: ModelChain) -> None:
        job.seen_restarts += job.revived
        job.restarts = job.seen_restarts
        self._close(job)
        job.state = "queued"

    def finish(self, job: ModelJob, state: str, *, prompt: int = 0, unpaid: bool = False, free: bool = False) -> None:
        """The job ends: each container that ran is paid once; half a run is none, unless its buyer broke it off."""
        assert isinstance(job, ModelChain)
        assert not job.over, "a job ends once"
        if not job.streams and state != "completed" and not (state == "cancelled" and job.whole):
            # Nobody has looked at what was sent of a step that its host did not end.
            del job.frames[job.closed :]
        if job.host is not None and (len(job.frames) > job.first or state == "completed"):
            broke = state not in ("completed", "cancelled")
            job.parts.append(Part(job.host, job.lease, job.first, len(job.frames), unpaid or broke))
        self._close(job)
        for name, part in zip(job.names, job.parts, strict=False):
            if part.unpaid or free:
                continue
            fee = PRICES_UUSD[name] * FEE_BPS // 10_000
            part.earned = PRICES_UUSD[name] - fee
            part.host.earned += part.earned
            job.cost += PRICES_UUSD[name]
            self.fees += fee
        job.state = state
        self.buyers[job.buyer] -= job.cost

    def lose(self, job: ModelJob, *, blamed: bool, unpaid: bool = False) -> None:
        """A host is lost: a whole output stands, anything less is made again from the output before, a shown stream has
        failed."""
        assert isinstance(job, ModelChain) and job.host is not None
        if blamed:
            job.losses += 1
            job.tried.add(job.host.id)
        if job.whole and not unpaid:
            self.done(job)
            return
        if not job.streams and len(job.frames) > job.closed:
            del job.frames[job.closed :]
            job.seen_restarts += 1
            job.revived = False  # What was seen before the coordinator's restart is counted with this.
        if job.losses >= ATTEMPTS_MAX or not any(self._suits(job, host) for host in self.hosts.values()):
            self.finish(job, "failed", unpaid=unpaid)
        else:
            self._back_in_line(job)

    def sweep(self, taken_away: set[bytes]) -> None:
        """Time has passed: deadlines, then hosts that are silent for longer than a container may run, or whose link is
        gone."""
        for job in self.open_jobs():
            if self.now_s >= job.deadline_s:
                self.finish(job, "expired")
        for job in self.running():
            assert job.host is not None
            silent_s = self.now_s - job.touched_s
            must = silent_s > SILENT_S or (silent_s > RELINK_S and not job.host.linked)
            may = silent_s > 0 and not job.host.linked
            assert must <= (job.id in taken_away) <= (must or may), "a lease was taken away too early, or too late"
            if must or job.id in taken_away:
                self.lose(job, blamed=True)

    def restart(self) -> None:
        """The coordinator is another process: what containers made and was written stands."""
        for job in self.open_jobs():
            assert isinstance(job, ModelChain)
            job.seen_restarts = job.restarts
        super().restart()
