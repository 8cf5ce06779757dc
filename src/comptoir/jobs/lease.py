"""Leases, and what stays of one that was lost after it had delivered something."""

import msgspec


class Lease:
    """One attempt's right to act on a job, and what routing promised for it."""

    __slots__ = (
        "id", "host_id", "first_frame", "hash_before", "rate_in", "rate_out", "started_ms", "started_s", "touched_s",
        "model", "signs", "revived", "frames_at_worker", "dropped_s",
    )  # fmt: skip

    def __init__(
        self, *, id: bytes, host_id: bytes, model: str, first_frame: int, rate_in: int, rate_out: int,
        started_ms: int, started_s: float, signs: bool = False, hash_before: bytes = b"", revived: bool = False,
    ) -> None:  # fmt: skip
        self.id = id
        self.host_id = host_id
        self.model = model
        self.first_frame = first_frame
        """Number of the first frame that this host is to make."""
        self.hash_before = hash_before
        """Running hash before it; may be empty where it is frame 0."""
        self.rate_in = rate_in
        """The host's price for a million units of the input, micro-dollars."""
        self.rate_out = rate_out
        self.started_ms = started_ms
        self.started_s = started_s
        self.touched_s = started_s
        """Monotonic time of the last sign of life."""
        self.dropped_s = 0.0
        """Monotonic time at which the host's link dropped; 0: it did not, or is back."""
        self.signs = signs
        """Whether the host signs its segment."""
        self.revived = revived
        """Whether it was opened by another process, whose frames are gone until the worker has sent them again."""
        self.frames_at_worker = -1
        """Frames that the worker of a revived lease said it has; below 0: it has not come back."""

    def touch(self, now_s: float) -> None:
        """Its host gave a sign of life."""
        self.touched_s = now_s

    def drop_link(self, now_s: float) -> None:
        """The host's link dropped; how long it may stay away counts from here."""
        self.touched_s = self.dropped_s = now_s

    def relink(self, now_s: float) -> None:
        """The host's link is back."""
        self.touched_s, self.dropped_s = now_s, 0.0

    def forgive(self, late_s: float) -> None:
        """This process did not listen for *late_s*: as much of the silence was not the host's."""
        self.touched_s += late_s

    def note_frames_at_worker(self, frames: int) -> None:
        """The host's worker came back with so many frames, its own and those before them."""
        self.frames_at_worker = frames


class ClosedSegment(msgspec.Struct, frozen=True, gc=False):
    """What a host delivered of an answer that another continues: it lost its lease, or its stage was not the last."""

    lease: Lease
    end_frame: int
    """Exclusive."""
    running_hash: bytes
    """Running hash after its last frame."""
    count: int
    """Units of the output, as its frames count them."""
    unpaid: bool = False
    """It does not stand by what it sent (wrong hash or signature), so it earns nothing."""
    signature: bytes = b""
    """The host's, where it delivered all that it was asked for: a whole stage. Empty: it lost its lease."""
