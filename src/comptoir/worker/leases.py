"""What the worker keeps per lease until the coordinator has it, and the table of all leases.

No I/O in here: the job loop adds frames, the uplink takes batches. A frame is kept at least until it is acknowledged,
and longer while there is room, so that a restarted coordinator can get the whole answer again; the frames of other
hosts that came with a job (`Job.prefix`) are kept as well, for a coordinator that has lost those too. The closing
message (`Done` or `Fail`) is kept until `Settled`. After a reconnect, `WorkerLease.rewind` sets where to resend from.
"""

import asyncio
import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

from comptoir.kinds import Kind, Kinds, bounding_bytes
from comptoir.kit.clock import Clock
from comptoir.link import COUNT_MAX, Done, Fail, Frame, Frames, Job, hash_after, hash_over, hash_start

UNACKED_BYTES_MAX = 8 * 1024 * 1024
"""Most unacknowledged answer bytes of one lease; beyond it the engine is not read (one larger frame may pass)."""

KEPT_BYTES_MAX = 4 * 1024 * 1024
"""Answer bytes of one lease kept after acknowledgement; the oldest are dropped first. An ordinary answer fits."""

FRAME_OVERHEAD_BYTES = 120
"""What a frame costs in memory beside its text and extra; counted with what is kept: about 30,000 tokens of a lease."""

FRAME_BYTES_MAX = 60 * 1024 * 1024
"""Most bytes of one frame, a character counted as the four it may take: it must fit a message of 64 MiB."""

WINDOW_FRAMES_BEFORE_WELCOME = 256
"""Window of a lease until a coordinator has set one."""

SETTLING_LEASES_MAX = 4096
"""Most leases that wait for `Settled`. With more, the coordinator has forgotten them; the oldest are dropped."""

FORGOTTEN_REMEMBERED = 4096
"""How many closed lease ids are remembered, so that a repeated `Job` of one is not run again."""


BUILT_IN_KINDS = Kinds()
"""Kinds of a worker to whom no other is told."""


class FrameTooBig(Exception):
    """An engine made a frame that no WebSocket message could carry."""


class UnitTally:
    """Counts the units that an answer can stand for (`Kind.believed`), frame by frame."""

    __slots__ = ("_begun_s", "_blank", "_clock", "_solid", "counted", "kind", "told")

    def __init__(self, kind: Kind, clock: Clock | None = None) -> None:
        """*clock* bounds what is counted in milliseconds from now on; None: they passed elsewhere."""
        self.kind = kind
        self._clock = clock if kind.timed else None
        self._begun_s = clock.monotonic_s() if clock is not None else 0.0
        self._solid = self._blank = 0
        self.counted = 0
        """Units by the engine's count."""
        self.told = 0
        """Units that the frames say; never more than what was delivered can stand for."""

    def tell(self, frame: Frame, most: int = COUNT_MAX) -> Frame:
        """Return *frame*, the next one, with the units that are believed now; the rest is told when more is delivered.

        Args:
            most: units that the frames may say in all; the rest is told once that is more.

        Raises:
            UnicodeEncodeError: its text can't be encoded; nothing is counted.
        """
        extra = frame.extra
        solid, blank = self.kind.output_in(frame.text, (extra,) if extra else ())
        counted = self.counted + frame.tokens
        solid, blank = self._solid + solid, self._blank + blank
        passed_ms = COUNT_MAX if self._clock is None else self._passed_ms(self._clock)
        believed = self.kind.believed(counted, bounding_bytes((solid, blank)), passed_ms)
        fresh = (believed if believed < most else most) - self.told
        if frame.tokens < 0:
            return frame  # An engine's bug, which is noticed by who adds it.
        self.counted, self._solid, self._blank = counted, solid, blank
        self.told += fresh
        return frame if fresh == frame.tokens else Frame(frame.text, fresh, extra)

    @property
    def untold(self) -> int:
        """Units that are believed and that no frame says yet, because of the bound that was given."""
        passed_ms = COUNT_MAX if self._clock is None else self._passed_ms(self._clock)
        return self.kind.believed(self.counted, bounding_bytes((self._solid, self._blank)), passed_ms) - self.told

    def _passed_ms(self, clock: Clock) -> int:
        return int((clock.monotonic_s() - self._begun_s) * 1000)


class WorkerLease:
    """One lease: its unacknowledged frames, the running hash over all of them, and how it ended."""

    __slots__ = (
        "_before",
        "_more",
        "_room",
        "acked_seq",
        "base_seq",
        "bound",
        "bound_max",
        "running_hash",
        "closing",
        "closing_sent",
        "dirty",
        "end_seq",
        "frames",
        "grows",
        "input_sha256",
        "job_id",
        "kept_bytes",
        "kind",
        "lease",
        "model",
        "sent_seq",
        "start_seq",
        "tally",
        "unacked_bytes",
        "window",
    )

    def __init__(self, job: Job, *, window: int, kinds: Kinds = BUILT_IN_KINDS, clock: Clock | None = None) -> None:
        self.lease = job.lease
        self.job_id = job.job_id
        self.kind = job.kind
        self.model = job.model
        self.input_sha256 = hashlib.sha256(job.body).hexdigest()
        start_seq = job.start_seq
        self.start_seq = start_seq
        """Number of the first frame this host makes; those before it came with the job."""
        self.base_seq = start_seq - len(job.prefix)
        """Number of the oldest frame that is still kept."""
        self.acked_seq = start_seq
        """Number of the next frame that the coordinator expects."""
        self.sent_seq = start_seq
        self.end_seq = start_seq
        self.frames: list[Frame] = list(job.prefix)
        self.running_hash = job.chain or prefix_hash(job)
        self.tally = UnitTally(kinds.stored(job.kind), clock or Clock())
        """Counts the frames this host made."""
        self.unacked_bytes = 0
        self.kept_bytes = _bytes_of(self.frames) + FRAME_OVERHEAD_BYTES * len(self.frames)
        self.window = window
        self.closing: Done | Fail | None = None
        self.closing_sent = False
        self.dirty = False
        self._room: asyncio.Future[None] | None = None
        self._more: asyncio.Future[None] | None = None
        self._before = sum([frame.tokens for frame in job.prefix])
        self.bound_max = max(1, job.grows_to - self._before) if job.grows_to else 0
        """Most that *bound* may be raised to; 0: the buyer named a bound, and it is final."""
        self.bound = max(0, job.max_tokens - self._before) if job.grows_to else 0
        """Most tokens that the frames of this host may say as yet, if it may be raised."""
        self.grows = self.bound_max > 0
        """Whether it may still be raised."""
        if self.kept_bytes > KEPT_BYTES_MAX:
            self._let_go()

    @property
    def tokens(self) -> int:
        """Tokens that the frames of this host say."""
        return self.tally.told

    @property
    def full(self) -> bool:
        """Whether the engine has to wait for acknowledgements."""
        return self.end_seq - self.acked_seq >= self.window or self.unacked_bytes >= UNACKED_BYTES_MAX

    def add(self, frame: Frame) -> None:
        """Append the next frame; it says no more tokens than what was delivered so far can stand for.

        Those that the engine counted beyond are said as soon as more has been delivered.

        Raises:
            FrameTooBig: text and extra are beyond `FRAME_BYTES_MAX`; nothing is appended.
            struct.error, UnicodeEncodeError: an engine's bug: a negative count or invalid text; nothing is appended.
        """
        text_size = len(frame.text)
        extra_size = len(frame.extra)
        if 4 * text_size + extra_size > FRAME_BYTES_MAX:
            raise FrameTooBig(f"a frame of {text_size + extra_size} bytes does not fit a message of the link")
        frame = self.tally.tell(frame, self.bound) if self.bound_max else self.tally.tell(frame)
        # First: it raises on what can't be encoded, such as a negative count or a lone surrogate.
        self.running_hash = hash_after(self.running_hash, frame)
        self.frames.append(frame)
        self.unacked_bytes += text_size + extra_size
        self.kept_bytes += text_size + extra_size + FRAME_OVERHEAD_BYTES
        self.end_seq += 1

    async def room(self) -> None:
        """Wait until the lease is no longer full."""
        while self.full:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def may_go_on(self) -> bool:
        """Wait while the bound is used up and may be raised; False: it is used up, and final."""
        while self.tally.told >= self.bound:
            if not self.grows:
                return False
            self._more = asyncio.get_running_loop().create_future()
            await self._more
        return True

    def raise_bound(self, max_tokens: int, *, final: bool) -> None:
        """Note the bound of the whole answer as the coordinator says it (`Have.max_tokens`); it never shrinks.

        Args:
            final: it is not raised any more.
        """
        self.bound = max(self.bound, max_tokens - self._before)
        self.grows = self.bound_max > self.bound and not final
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def ack(self, next_seq: int) -> None:
        """Note that all frames below *next_seq* arrived; an older or impossible number changes nothing."""
        if not self.acked_seq < next_seq <= self.end_seq:
            return
        at = self.acked_seq - self.base_seq
        self.unacked_bytes -= _bytes_of(self.frames[at : next_seq - self.base_seq])
        self.acked_seq = next_seq
        if self.sent_seq < next_seq:
            self.sent_seq = next_seq
        if self.kept_bytes > KEPT_BYTES_MAX:
            self._let_go()
        self._wake()

    def _let_go(self) -> None:
        """Drop the oldest acknowledged frames until half of `KEPT_BYTES_MAX` is free again."""
        drop = 0
        for frame in self.frames[: self.acked_seq - self.base_seq]:
            if self.kept_bytes <= KEPT_BYTES_MAX // 2:
                break
            self.kept_bytes -= len(frame.text) + len(frame.extra) + FRAME_OVERHEAD_BYTES
            drop += 1
        del self.frames[:drop]
        self.base_seq += drop

    def rewind(self, next_seq: int) -> bool:
        """Resend from *next_seq* on (and the closing message). False if those frames are gone or never existed.

        *next_seq* may be before `start_seq`: then the frames that came with the job are sent like the others.
        """
        if not self.base_seq <= next_seq <= self.end_seq:
            return False
        self.acked_seq = self.sent_seq = next_seq
        self.unacked_bytes = _bytes_of(self.frames[next_seq - self.base_seq :])
        self.closing_sent = False
        self._wake()
        return True

    def set_window(self, window: int) -> None:
        """Change how many frames may be unacknowledged (at least one)."""
        self.window = max(1, window)
        self._wake()

    def take(self, bytes_max: int) -> tuple[Frames | None, int]:
        """Take unsent frames, about *bytes_max* at most but at least one; return them and their size."""
        first = self.sent_seq - self.base_seq
        waiting = self.frames[first:] if first else self.frames[:]
        if not waiting:
            return None, 0
        size = self.unacked_bytes
        if size > bytes_max:
            size = 0
            for count, frame in enumerate(waiting):
                size += len(frame.text) + len(frame.extra)
                if size > bytes_max:
                    del waiting[count + 1 :]
                    break
        message = Frames(self.lease, self.sent_seq, waiting)
        self.sent_seq += len(waiting)
        return message, size

    def take_closing(self) -> Done | Fail | None:
        """Take the closing message once every frame before it was taken."""
        if self.closing is None or self.closing_sent or self.sent_seq < self.end_seq:
            return None
        self.closing_sent = True
        return self.closing

    def _wake(self) -> None:
        if self._room is not None and not self._room.done() and not self.full:
            self._room.set_result(None)


def _bytes_of(frames: list[Frame]) -> int:
    return sum([len(frame.text) + len(frame.extra) for frame in frames])


def as_believed(prefix: Iterable[Frame], kind: Kind) -> tuple[Frame, ...]:
    """Return the frames of other hosts with the units that are believed: one that says more must not use up the bound
    of the next."""
    tally = UnitTally(kind)
    return tuple([tally.tell(frame) for frame in prefix])


def prefix_hash(job: Job) -> bytes:
    """Return the running hash over the frames that came with *job*."""
    return hash_over(hash_start(job.job_id), job.prefix)


class LeaseTable:
    """Every lease that the worker holds, and which of them have something to send."""

    def __init__(self, kinds: Kinds = BUILT_IN_KINDS, clock: Clock | None = None) -> None:
        self._kinds = kinds
        self._clock = clock or Clock()
        self._leases: dict[bytes, WorkerLease] = {}
        self._dirty: deque[WorkerLease] = deque()
        self._forgotten: OrderedDict[bytes, None] = OrderedDict()
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.window = WINDOW_FRAMES_BEFORE_WELCOME
        self.running = 0
        """Leases whose engine is still running; read from the pulse's thread as well."""

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[WorkerLease]:
        return iter(list(self._leases.values()))

    def get(self, lease: bytes) -> WorkerLease | None:
        """Return a held lease."""
        return self._leases.get(lease)

    def seen(self, lease: bytes) -> bool:
        """Whether the lease is held, or was until recently."""
        return lease in self._leases or lease in self._forgotten

    def open(self, job: Job) -> WorkerLease:
        """Add a lease that is not held yet."""
        assert job.lease not in self._leases
        held = WorkerLease(job, window=self.window, kinds=self._kinds, clock=self._clock)
        self._leases[job.lease] = held
        self._empty.clear()
        self.running += 1
        return held

    def close(self, held: WorkerLease, closing: Done | Fail) -> bool:
        """Record how a lease ended. False (and no change) if it had ended before or is no longer held."""
        if held.closing is not None or self._leases.get(held.lease) is not held:
            return False
        held.closing = closing
        self.running -= 1
        self.touch(held)
        if len(self._leases) - self.running > SETTLING_LEASES_MAX:
            self.forget(next(one.lease for one in self._leases.values() if one.closing is not None))
        return True

    def abandon(self, held: WorkerLease, closing: Fail) -> None:
        """End a lease whose frames can no longer be delivered: only *closing* is still sent."""
        held.ack(held.end_seq)
        if held.closing is None:
            self.running -= 1
        held.closing = closing
        held.closing_sent = False
        self.touch(held)

    def forget(self, lease: bytes) -> WorkerLease | None:
        """Remove a lease and return it; None if it was not held."""
        held = self._leases.pop(lease, None)
        if held is None:
            return None
        if held.closing is None:
            self.running -= 1
        self._forgotten[lease] = None
        if len(self._forgotten) > FORGOTTEN_REMEMBERED:
            self._forgotten.popitem(last=False)
        if not self._leases:
            self._empty.set()
        return held

    def set_window(self, window: int) -> None:
        """Apply the coordinator's window to all leases."""
        self.window = max(1, window)
        for held in self._leases.values():
            held.set_window(window)

    def touch(self, held: WorkerLease) -> None:
        """Note that *held* has something to send."""
        if not held.dirty:
            held.dirty = True
            self._dirty.append(held)
            self._wake.set()

    async def changed(self) -> None:
        """Wait until there is something to send (or `nudge` was called)."""
        await self._wake.wait()
        self._wake.clear()

    def nudge(self) -> None:
        """Wake whoever waits in `changed`."""
        self._wake.set()

    def take(self, bytes_max: int) -> list[Frames | Done | Fail]:
        """Take one batch of about *bytes_max*: consecutive frames of a lease are one message; leases take turns."""
        batch: list[Frames | Done | Fail] = []
        left = bytes_max
        for _ in range(len(self._dirty)):
            if left <= 0:
                self._wake.set()
                break
            held = self._dirty.popleft()
            held.dirty = False
            if self._leases.get(held.lease) is not held:
                continue
            frames, size = held.take(left)
            if frames is not None:
                batch.append(frames)
                left -= size
            closing = held.take_closing()
            if closing is not None:
                batch.append(closing)
            elif held.sent_seq < held.end_seq:
                self.touch(held)
        return batch

    async def empty(self) -> None:
        """Wait until no lease is held."""
        await self._empty.wait()
