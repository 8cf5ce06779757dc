"""The base class of every kind, with defaults for the most common sort.

That is: one part, delivered in pieces, each of which counts some units, and another host can continue after the last
piece. A kind overrides what differs. All methods are pure and get everything they look at as arguments.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, Protocol

import msgspec

from comptoir.kinds.capabilities import NONE
from comptoir.kinds.extras import EXTRA_BYTES_MAX, PlainExtra, read_extra
from comptoir.kinds.named_files import InputFile
from comptoir.kinds.output import UNITS_OVER_BYTES, Size, extra_size, text_size
from comptoir.kinds.terms import Ask, Part, Stage, Terms
from comptoir.kinds.timed import most_in
from comptoir.kinds.units import Unit
from comptoir.link import Frame, ModelOffer, Usage

OUTPUT_OVER_MAX = 8
"""Units past a job's limit that are tolerated (engines count differently); they are never billed."""

MESSAGE_CHARS_MAX = 500
"""Most characters of an error message that are stored."""


class _FinishExtra(msgspec.Struct):
    finish_reason: str | None = None


_extra_of = msgspec.json.Decoder(_FinishExtra).decode


def finish_reason_in(frames: Sequence[Frame]) -> str:
    """Return the finish reason in the last of *frames*; empty: none, or not understood."""
    if not frames or not frames[-1].extra:
        return ""
    try:
        return _extra_of(frames[-1].extra).finish_reason or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""  # Stored before it was checked when it came (`Kind.check_extra`).


class Resume(StrEnum):
    """How a job is resumed when its host is lost."""

    FROM_PIECE = "from the last piece"
    """Another host continues after the last piece, if it can (`ModelOffer.can_continue`); nothing is delivered
    twice."""
    FROM_STAGE = "from the last stage"
    """The current stage is run again, from the output of the stage before; a job without stages starts over."""
    NEVER = "not at all"
    """It may have had side effects, so it is not run twice: the job fails, and undelivered work is not billed."""


class Progress(Protocol):
    """The view of a job that kinds get; `comptoir.jobs.LiveJob` implements it."""

    @property
    def body(self) -> bytes: ...
    @property
    def model(self) -> str: ...
    @property
    def terms(self) -> Terms: ...
    @property
    def stages(self) -> tuple[Stage, ...]: ...
    @property
    def answers(self) -> int: ...
    @property
    def detached(self) -> bool: ...
    @property
    def frames(self) -> Sequence[Frame]: ...
    @property
    def count(self) -> int:
        """Units of output delivered so far: those that may be billed (`Kind.billable`)."""
        ...

    @property
    def grows(self) -> bool:
        """Whether `Terms.output_max` may still be raised, since its buyer named no bound."""
        ...

    @property
    def segment_start(self) -> int:
        """Number of the first frame of the open lease's host."""
        ...

    @property
    def segment_count(self) -> int:
        """Units delivered from there on that may be billed."""
        ...

    @property
    def segment_claim(self) -> int:
        """Units from there on as its host counts them in its frames."""
        ...


class Kind:
    """One kind of work. Subclass it, give it a name and units, and override what differs."""

    name: ClassVar[str]
    """Name in offers, orders, jobs and receipts: lower case, digits and underscores, at most 64 characters."""
    input: ClassVar[Unit | None] = None
    """Unit of input: counted once, and paid to the host that processed it. None: the input is not paid for."""
    output: ClassVar[Unit]
    """Unit of output: each frame says how many units it stands for (`Frame.tokens`), and `Kind.billable` how many of
    them may be paid."""
    sold: ClassVar[bool] = True
    """Whether it can be bought here. False: stored jobs of it can only be shown (`UnsoldKind`)."""
    input_field: ClassVar[str] = ""
    """Field of an order's body that holds its input, for errors about it; empty: the body has no such field."""
    noun: ClassVar[str] = "model"
    """What its offers are called."""
    capabilities: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """What an offer of it may be able to do beyond the kind itself, by name, each with the field of an order's body
    that asks for it (`comptoir.kinds.capabilities`)."""
    staged: ClassVar[bool] = False
    """Whether a job has stages, each completed by one host, with as many units as its `Part` allows. Such a kind
    defines its parts and stages itself, and its input is not paid for: a stage has one price."""
    asks_entry: ClassVar[bool] = False
    """Whether its hosts may restrict callers by access rules."""
    pays_half: ClassVar[bool] = True
    """Whether delivered units are paid for if the job fails before its end. If the buyer cancels, they are paid for,
    unless another host would have started over (`Resume.FROM_STAGE`)."""
    pays_cancelled: ClassVar[bool] = True
    """Whether units are paid for that the buyer cancels before it is known that they are valid (`wrong_output`)."""
    pays_lost: ClassVar[bool] = True
    """Whether a host that lost the job is paid for what it had delivered when another goes on; not where that one
    begins again and is paid for the whole. Of a kind without stages."""
    may_hedge: ClassVar[bool] = True
    """Whether a second host may be started while the first is late; never for a job that must not run twice."""
    steady: ClassVar[bool] = True
    """Whether pieces come at a regular pace, by which a lost host can be told from a slow one."""
    stage_finish: ClassVar[str] = "stop"
    """Finish reason of a host that completed its stage."""
    output_over_max: ClassVar[int] = OUTPUT_OVER_MAX
    message_chars_max: ClassVar[int] = MESSAGE_CHARS_MAX
    """Longest failure message that is stored."""

    timed: ClassVar[bool] = False
    """Whether its output is counted in milliseconds of work: a host is then believed no more of them than passed at
    the coordinator between the start of its lease and the arrival of the frame that counts them (`most_in`). Bytes do
    not bound them, but without any nothing is paid."""
    quiet_s: ClassVar[float] = 0.0
    """How long its engines may send nothing, in seconds, where each has to show that it lives while it works, however
    long a result takes: any frame of it is a sign of life then, also one that shows nothing. 0: they need not."""

    files: ClassVar[bool] = False
    """Whether its orders name files, and its frames those that were made (`comptoir.kinds.files.FileKind`)."""

    paid_by_output: ClassVar[bool] = True
    """Whether its output costs anything, so that an order must bound it."""

    # -- buying --------------------------------------------------------------------------------------------------

    def parts(self, ask: Ask) -> tuple[Part, ...]:
        """Return what an order asks of its host, or of the host of each stage, in order. No part has a hold yet."""
        return (Part(ask.model, output_max=ask.output_max),)

    def context_tokens(self, *, input_units: int, output_units: int, answers: int = 1) -> int:
        """Return the context length that each answer needs; 0: the kind has no context."""
        return 0

    def check(self, body: bytes) -> str:
        """Return what is wrong with an order's body; empty: nothing. For orders over the native API."""
        return ""

    def output_max(self, body: bytes) -> int:
        """Return the most units of output that a (checked) body can lead to; for orders that give no bound."""
        return 0

    def inputs(self, body: bytes) -> tuple[InputFile, ...]:
        """Return the files that an order's (checked) body names; only asked where the kind has `files`."""
        return ()

    def with_facts(self, body: bytes, facts: Mapping[int, InputFile]) -> bytes:
        """Return *body* with some inputs replaced, by their place."""
        return body

    def text_only(self, body: bytes) -> bool:
        """Tell whether one text with a length and a temperature conveys all of *body*, as text-only hosts get it."""
        return False

    def asks(self, body: bytes) -> frozenset[str]:
        """Return which of its `capabilities` a job with *body* needs, which may be no valid body."""
        return NONE

    def offer_fault(self, offer: ModelOffer) -> str:
        """Return what is wrong with an offer of this kind; empty: nothing."""
        return "must have no container's card, which goes with the kind container alone" if offer.container else ""

    def sample(self, model: str) -> bytes:
        """Return the body of a short order with which a worker measures its engine; empty: it is not measured."""
        return b""

    # -- what is paid --------------------------------------------------------------------------------------------

    def output_in(self, text: str, extras: Sequence[bytes]) -> Size:
        """Return how many bytes of output there are, shown and padding, in pieces of an answer (`joined`).

        A kind overrides this where something in the extras is no output, or the text is none. It is called for what
        arrives, piece by piece: the sizes of the pieces add up to that of the whole.

        Args:
            text: of all pieces, joined.
            extras: of the pieces that have one.
        """
        solid, blank = text_size(text)
        for extra in extras:
            shown, padding = extra_size(extra)
            solid, blank = solid + shown, blank + padding
        return solid, blank

    def believed(self, claimed: int, output_bytes: int, passed_ms: int = 0) -> int:
        """Return how many of the units that a host *claimed* its output can stand for; more counts against it.

        At most as many as it has bytes (`bounding_bytes`), and some that engines count and don't show; of a `timed`
        kind as many as milliseconds passed. A kind overrides this if its unit is smaller than a byte. It must not
        decrease when an argument grows.

        Args:
            passed_ms: milliseconds between the start of the lease and the arrival of what is claimed.
        """
        most = most_in(passed_ms) if self.timed else output_bytes + UNITS_OVER_BYTES
        return min(claimed, most)

    def billable(self, claimed: int, output_bytes: int, passed_ms: int = 0) -> int:
        """Return how many of the units that a host *claimed* may be paid: the one rule for worker, coordinator and
        verifier. Those that are `believed`; of nothing, none."""
        return self.believed(claimed, output_bytes, passed_ms) if output_bytes else 0

    def used(self, frames: Sequence[Frame]) -> int:
        """Return the units that a host has used by its own word in *frames*, its part, though they count none yet: they
        are paid if the buyer cancels, as far as they are `billable`. 0: only what is counted is paid."""
        return 0

    def input_countable(self, input_max: int, output_count: int = 0, cores: int = 0) -> int:
        """Return the most units of input that are believed; *input_max* of them are paid (`Part.input_max`).

        A kind whose *input_max* is an estimate believes more, so that an honest count stays what it is.

        Args:
            output_count: milliseconds of output that may be paid to the host that counted the input.
            cores: `Kind.cores`, which bound the input by them, whatever was agreed; 0: they don't.
        """
        return cores * most_in(output_count) if cores else input_max

    def cores(self, body: bytes) -> int:
        """Return the processor cores that an order with *body* gives its work, of a `timed` kind whose input is
        milliseconds of CPU; 0: its input is something else."""
        return 0

    # -- while it runs -------------------------------------------------------------------------------------------

    def part(self, job: Progress) -> Part:
        """Return what *job* asks of its next host, with its hold."""
        terms = job.terms
        return Part(job.model, terms.input_max, terms.input_max, terms.output_max, hold_uusd=terms.hold_uusd)

    def stage(self, job: Progress) -> int:
        """Return the number of the job's current stage, from 0."""
        return 0

    def stage_start(self, job: Progress) -> int:
        """Return the first frame of that stage; frames from there on have to be continued, or the stage run again."""
        return 0

    def resume(self, job: Progress) -> Resume:
        """Return how *job* is resumed if its host is lost now."""
        return Resume.FROM_PIECE

    def check_extra(self, extra: bytes) -> None:
        """Do nothing if *extra* (not empty) may stand beside a piece of this kind's output; it was sent by a host.

        A kind that reads more of it than the finish reason checks that here, so that neither a buyer nor the next host
        is shown what it can't read.

        Raises:
            BadExtra: it may not; the host is to blame.
        """
        read_extra(extra, PlainExtra, bytes_max=EXTRA_BYTES_MAX)

    def wrong_output(self, job: Progress, *, finish_reason: str, usage: Usage) -> str:
        """Return why what the open lease delivered is no valid output of this kind; empty: it is valid."""
        return ""

    def finished_already(self, job: Progress) -> str:
        """Return the finish reason if the answer or stage is complete, reported or not; empty: it is not."""
        most = job.terms.output_max
        return "length" if most and job.count >= most and not job.grows else ""

    def runs_s(self, body: bytes) -> float:
        """Return how long a host may take for an order's (checked) body, seconds, which its deadline grants beside the
        time that every job may wait (``job_ttl_s``); 0: none beside."""
        return 0.0

    def silence_max_s(self, offer: ModelOffer | None) -> float:
        """Return the longest silence that is normal for a host with this offer; 0: the setting ``lease_s`` applies."""
        return 0.0

    def reading_s(self, terms: Terms) -> float:
        """Return how much longer the first piece may take because of the input's size."""
        return 0.0

    def gap_s(self, body: bytes) -> float:
        """Return how long a pause between two pieces of an answer to *body* must at least be tolerated."""
        return 0.0

    def failure(self, message: str, body: bytes) -> str:
        """Return the message of a failure to store, from the engine's short message and its response body."""
        return message

    # -- words ---------------------------------------------------------------------------------------------------

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units of this kind, that of the input first."""
        return (self.output,) if self.input is None else (self.input, self.output)

    def rates(self, offer: ModelOffer) -> tuple[int, int]:
        """Return an offer's prices (in, out) for this kind, micro-dollars per million; of old workers, unchanged."""
        if not offer.prices:
            return offer.price_in_uusd_per_mtok, offer.price_out_uusd_per_mtok
        into = offer.prices.get(self.input.name, 0) if self.input is not None else 0
        return into, offer.prices.get(self.output.name, 0)
