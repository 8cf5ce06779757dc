"""The base of every kind: what may be asked of one, with the answers of the commonest sort.

That is: one part, pieces in order, each counting for what it is worth, an answer that another host goes on with after its last
piece where it can. A kind overrides what is different about it. All methods are pure and are given what they look at.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar, Protocol

import msgspec

from comptoir.kinds.terms import Ask, Part, Stage, Terms
from comptoir.kinds.units import Unit
from comptoir.link import Frame, ModelOffer, Usage

OUTPUT_OVER_MAX = 8
"""Units past a job's limit that are forgiven (engines count differently); they are never billed."""

MESSAGE_CHARS_MAX = 500
"""Most characters of an error message that are kept."""


class _FinishExtra(msgspec.Struct):
    finish_reason: str | None = None


_extra_of = msgspec.json.Decoder(_FinishExtra).decode


def finish_reason_in(frames: Sequence[Frame]) -> str:
    """Return the finish reason that the last of *frames* carries; empty: none, or nothing that is understood."""
    if not frames or not frames[-1].extra:
        return ""
    try:
        return _extra_of(frames[-1].extra).finish_reason or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""  # A host may send anything there.


class Resume(StrEnum):
    """How a job goes on when its host is lost."""

    FROM_PIECE = "from the last piece"
    """Another host goes on after the last piece, if it can (`ModelOffer.can_continue`); nothing is delivered twice."""
    FROM_STAGE = "from the last stage"
    """The stage it was at is run again, from what the stages before it made; of a job of one part, all of it."""
    NEVER = "not at all"
    """It may have had effects, so it is not run twice: the job fails, and what was not delivered is free."""


class Progress(Protocol):
    """What a kind may look at of a job: `comptoir.jobs.LiveJob` is one."""

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
        """Units of the output delivered so far, as its frames count them."""
        ...

    @property
    def segment_start(self) -> int:
        """Number of the first frame of the open lease's host."""
        ...

    @property
    def segment_count(self) -> int:
        """Units delivered from there on."""
        ...


class Kind:
    """One kind of work. Subclass it, give it a name and units, and override what differs."""

    name: ClassVar[str]
    """In offers, orders, jobs and receipts: lower case, digits and underscores, at most 64 characters."""
    input: ClassVar[Unit | None] = None
    """Unit of what goes in: counted once, by the host that took it in, and paid to that one. None: it is not paid."""
    output: ClassVar[Unit]
    """Unit of what comes out: a frame says how many of it it stands for (`Frame.tokens`)."""
    sold: ClassVar[bool] = True
    """Whether it can be bought here. False: only what is stored of it is shown (`UnsoldKind`)."""
    noun: ClassVar[str] = "model"
    """What its offers are called."""
    staged: ClassVar[bool] = False
    """Whether a job has stages, each done whole by a host of its own, of as many units as its `Part` allows. Such a kind says
    itself what its parts and stages are, and has no input that is paid: a stage has one price."""
    asks_entry: ClassVar[bool] = False
    """Whether its hosts may let in only some callers."""
    pays_half: ClassVar[bool] = True
    """Whether what a host delivered is paid although the whole did not come to its end. What its buyer cancels is paid as far as it
    came, unless another host would have begun it again (`Resume.FROM_STAGE`)."""
    may_hedge: ClassVar[bool] = True
    """Whether a second host may be started on it while the first one is late; one that must not run twice never is."""
    steady: ClassVar[bool] = True
    """Whether pieces come at a pace by which a lost host can be told from a slow one."""
    stage_finish: ClassVar[str] = "stop"
    """Finish reason of a host that has done its stage."""
    output_over_max: ClassVar[int] = OUTPUT_OVER_MAX
    message_chars_max: ClassVar[int] = MESSAGE_CHARS_MAX
    """Longest message of a failure that is kept."""

    paid_by_output: ClassVar[bool] = True
    """Whether its output costs anything, so that an order needs a bound of it."""

    # -- buying --------------------------------------------------------------------------------------------------

    def parts(self, ask: Ask) -> tuple[Part, ...]:
        """Return what an order needs of its host, or of the host of each stage, in order. No part has a hold yet."""
        return (Part(ask.model, output_max=ask.output_max),)

    def context_tokens(self, *, input_units: int, output_units: int, answers: int = 1) -> int:
        """Return what of a host's context each answer needs; 0: the kind knows no context."""
        return 0

    def check(self, body: bytes) -> str:
        """Say what is wrong with an order's body; empty: nothing. For native orders, before anything is reserved."""
        return ""

    def output_max(self, body: bytes) -> int:
        """Return the most output units that a (checked) body can lead to; for orders that name no limit themselves."""
        return 0

    def text_only(self, body: bytes) -> bool:
        """Tell whether a host that takes one text with a length and a temperature misses nothing of it."""
        return False

    def offer_fault(self, offer: ModelOffer) -> str:
        """Say what an offer of this kind must not be; empty: it may stand."""
        return "must have no container's card, which goes with the kind container alone" if offer.container else ""

    def sample(self, model: str) -> bytes:
        """Return the body of a short order for measuring an engine; empty: there is nothing to measure."""
        return b""

    # -- while it runs -------------------------------------------------------------------------------------------

    def part(self, job: Progress) -> Part:
        """Return what the next host of *job* is asked for, with its hold."""
        terms = job.terms
        return Part(job.model, terms.input_max, terms.input_max, terms.output_max, hold_uusd=terms.hold_uusd)

    def stage(self, job: Progress) -> int:
        """Return the number of the stage that *job* is at, from 0."""
        return 0

    def stage_start(self, job: Progress) -> int:
        """Return the number of that stage's first frame; frames after it have to be continued, or run again."""
        return 0

    def resume(self, job: Progress) -> Resume:
        """Return how *job* goes on if its host is lost now."""
        return Resume.FROM_PIECE

    def wrong_output(self, job: Progress, *, finish_reason: str, usage: Usage) -> str:
        """Say what of what the open lease delivered is no output of this kind; empty: nothing."""
        return ""

    def finished_already(self, job: Progress) -> str:
        """Return the finish reason of an answer or stage that is complete unannounced; empty: it is not."""
        most = job.terms.output_max
        return "length" if most and job.count >= most else ""

    def silence_max_s(self, offer: ModelOffer | None) -> float:
        """Return the longest silence that is normal for a host with this offer; 0: the setting ``lease_s`` says."""
        return 0.0

    def reading_s(self, terms: Terms) -> float:
        """Return how much longer the first piece may take because of what goes in."""
        return 0.0

    def gap_s(self, body: bytes) -> float:
        """Return the least patience with a pause between two pieces of an answer to *body*."""
        return 0.0

    def failure(self, message: str, body: bytes) -> str:
        """Return what is kept of a failure: what the host's engine said in short, and the body of its answer."""
        return message

    # -- words ---------------------------------------------------------------------------------------------------

    @property
    def units(self) -> tuple[Unit, ...]:
        """Its units, that of the input first."""
        return (self.output,) if self.input is None else (self.input, self.output)

    def rates(self, offer: ModelOffer) -> tuple[int, int]:
        """Return an offer's prices (in, out) for this kind, micro-dollars per million; or an older worker's two."""
        if not offer.prices:
            return offer.price_in_uusd_per_mtok, offer.price_out_uusd_per_mtok
        into = offer.prices.get(self.input.name, 0) if self.input is not None else 0
        return into, offer.prices.get(self.output.name, 0)
