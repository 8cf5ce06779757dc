"""Leases, and the closed segments that they leave behind once something was delivered."""

import msgspec

from comptoir.jobs.types import AttemptRow
from comptoir.kinds import Size, Terms


class Lease(msgspec.Struct, kw_only=True, eq=False, gc=False):
    """One attempt's right to act on a job, at the prices that routing chose its host for."""

    id: bytes
    host_id: bytes
    model: str
    first_frame: int
    """Number of the first frame that this host is to deliver."""
    hash_before: bytes = b""
    """Running hash before that frame; may be empty if it is frame 0."""
    rate_in: int
    """The host's price per million units of input, in micro-dollars."""
    rate_out: int
    started_ms: int
    started_s: float
    """Monotonic time at which it was opened, and what the next three begin with."""
    begun_s: float = 0.0
    """Monotonic time since which its host may have worked; of a revived lease, before this process began."""
    touched_s: float = 0.0
    """Monotonic time of the last sign of life: something of the answer, or the host's link."""
    reads_s: float = 0.0
    """Monotonic time of the last frame that showed nothing: until the answer begins, the host may be reading."""
    delivers: bool = False
    """Whether anything of the answer has come under it; frames that show nothing don't count."""
    dropped_s: float = 0.0
    """Monotonic time at which the host's link dropped; 0: it is up."""
    signs: bool = False
    """Whether the host signs its segment."""
    revived: bool = False
    """Whether another process opened it, whose frames are missing until the worker has sent them again."""
    frames_at_worker: int = -1
    """Frames that the worker of a revived lease reported to have; below 0: it has not reconnected."""

    def __post_init__(self) -> None:
        self.begun_s = self.touched_s = self.reads_s = self.started_s

    @classmethod
    def stored(
        cls, row: AttemptRow, terms: Terms, *, model: str, first_frame: int, hash_before: bytes, now_s: float, signs: bool,
        revived: bool = False,
    ) -> "Lease":  # fmt: skip
        """Return the lease of a stored attempt at a job of *terms*, in another process than the one that opened it."""
        return cls(
            id=row.id,
            host_id=row.host_id,
            model=model,
            first_frame=first_frame,
            hash_before=hash_before,
            rate_in=terms.rate_in if row.price_in is None else row.price_in,
            rate_out=terms.rate_out if row.price_out is None else row.price_out,
            started_ms=row.started_ms,
            started_s=now_s,
            signs=signs,
            revived=revived,
        )

    def passed_ms(self, now_s: float) -> int:
        """Return for how many milliseconds its host may have worked."""
        return max(0, int((now_s - self.begun_s) * 1000))

    def begin(self, at_s: float) -> None:
        """Note when the job went out to the host: again, since it had never arrived, or, of a revived lease, before
        this process began."""
        self.begun_s = at_s

    def touch(self, now_s: float) -> None:
        """Note a sign of life of the host."""
        self.touched_s = now_s

    def note_reading(self, now_s: float) -> None:
        """Note frames that show nothing."""
        self.reads_s = now_s

    def begin_delivery(self) -> None:
        """Note that the first piece of the answer has come under it."""
        self.delivers = True

    def drop_link(self, now_s: float) -> None:
        """Note that the host's link dropped; the time to reconnect counts from here."""
        self.touched_s = self.dropped_s = now_s

    def relink(self, now_s: float) -> None:
        """Note that the host's link is back."""
        self.touched_s, self.dropped_s = now_s, 0.0

    def forgive(self, late_s: float) -> None:
        """Deduct *late_s*, for which this process did not read, from the host's silence."""
        self.touched_s += late_s

    def note_frames_at_worker(self, frames: int) -> None:
        """Note that the host's worker reconnected with so many frames, its own and those before them."""
        self.frames_at_worker = frames


class ClosedSegment(msgspec.Struct, frozen=True, gc=False):
    """Frames from one host when another continues the job: its lease was revoked, or its stage was not the last."""

    lease: Lease
    end_frame: int
    """Exclusive."""
    running_hash: bytes
    """Running hash after its last frame."""
    count: int
    """Units of output that may be billed (`comptoir.kinds.Kind.billable`)."""
    unpaid: bool = False
    """The host can't vouch for what it sent (wrong hash or signature), so it earns nothing."""
    signature: bytes = b""
    """The host's signature, if it delivered a whole stage. Empty: its lease was revoked."""
    claimed: int = 0
    """Units of output as its frames count them."""
    size: Size = (0, 0)
    """Bytes of output: shown, and padding."""
    passed_ms: int = 0
    """Milliseconds that bound *count* (`LiveJob.passed_ms`)."""
