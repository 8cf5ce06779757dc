"""Chains of containers: each stage is one run by one host, which counts whole or not at all; sold by the run.

A stage's output is one frame of JSON (`comptoir.link.ContainerRun`); only the last container of a stream sends pieces.
A container may have side effects, so it is never started twice at a time, and an incomplete run is not billed.
"""

import base64
import binascii

import msgspec

from comptoir.kinds.extras import EXTRA_BYTES_MAX, BadExtra, PlainExtra, read_extra
from comptoir.kinds.kind import Kind, Progress, Resume, finish_reason_in
from comptoir.kinds.terms import Ask, Part
from comptoir.kinds.units import RUN
from comptoir.kit.money import cost_up
from comptoir.link import CONTAINER, ModelOffer, Usage

RUN_END_S = 5.0
"""How long after a container's own time limit its worker may report that it was reached."""

SAID_CHARS_MAX = 16 * 1024
"""Most characters of a failed container's message that are stored, because the message is its result."""

_is_json = msgspec.json.Decoder(msgspec.Raw).decode


class _PieceExtra(PlainExtra):
    base64: str = ""


class ContainerChain(Kind):
    """One container or several, each getting the output of the one before."""

    name = CONTAINER
    output = RUN
    noun = "container"
    staged = True
    asks_entry = True
    pays_half = False
    may_hedge = False
    steady = False
    message_chars_max = SAID_CHARS_MAX

    def parts(self, ask: Ask) -> tuple[Part, ...]:
        """Return one part per container: one run each."""
        last = len(ask.stages) - 1
        return tuple(
            [
                Part(name, output_max=1, proof=ask.proof and at == last, enters=at == 0)
                for at, name in enumerate(ask.stages)
            ]
        )

    def check(self, body: bytes) -> str:
        """Refuse every body: the Infernet API decides who may run a container, because it knows the caller."""
        return "is bought through the Infernet API: POST /api/jobs"

    def offer_fault(self, offer: ModelOffer) -> str:
        """Return why a host can't offer a container like this; empty: it can."""
        if offer.container is None or offer.kinds != [self.name]:
            return "must have a container's card with the kind container alone, and only with that"
        if offer.can_continue:
            return "can't go on with half a run of a container"
        if "," in offer.name:
            return "must have no comma in a container's name: jobs name several with commas between"
        return ""

    def believed(self, claimed: int, output_bytes: int, passed_ms: int = 0) -> int:
        """Return the runs claimed: a run is whole or not (`wrong_output`), however long its output is."""
        return claimed

    def part(self, job: Progress) -> Part:
        """Return one run of the current container."""
        at = self.stage(job)
        stage = job.stages[at]
        return Part(stage.model, output_max=1, proof=stage.proof, enters=at == 0, hold_uusd=cost_up(stage.rate_out))

    def stage(self, job: Progress) -> int:
        """Return the number of the current container: every one before it left one segment of one frame."""
        return min(job.segment_start, len(job.stages) - 1)

    def stage_start(self, job: Progress) -> int:
        """Return the first frame of the container's output: after all closed segments."""
        return job.segment_start

    def resume(self, job: Progress) -> Resume:
        """Run the stage again, unless the buyer has seen part of its output: then the job ends."""
        return Resume.FROM_PIECE if self._makes_pieces(job) else Resume.FROM_STAGE

    def check_extra(self, extra: bytes) -> None:
        """Refuse bytes of a stream that are no base64."""
        said = read_extra(extra, _PieceExtra, bytes_max=EXTRA_BYTES_MAX)
        try:
            base64.b64decode(said.base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadExtra(f"its bytes are no base64: {error}") from error

    def wrong_output(self, job: Progress, *, finish_reason: str, usage: Usage) -> str:
        """Return why this is no output of a container; the last one of a stream may send anything, as one run."""
        if finish_reason != self.stage_finish or usage.prompt_tokens or usage.details:
            said = f"not {finish_reason!r} and {usage}"
            return f"a container ends with {self.stage_finish!r} and counts nothing but its run, {said}"
        if job.segment_claim != 1:
            return f"a container is one run, not {job.segment_claim}"
        if self._makes_pieces(job):
            return ""
        frames = job.frames[job.segment_start :]
        if len(frames) != 1:
            return f"a container's output is one frame, not {len(frames)}"
        try:
            _is_json(frames[0].text.encode())
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            return f"a container's output is JSON: {error}"
        return ""

    def finished_already(self, job: Progress) -> str:
        """Return ``stop`` if the container's frame is there and complete."""
        if len(job.frames) == job.segment_start:
            return ""  # The last frame belongs to the container before.
        reason = finish_reason_in(job.frames)
        return "" if reason and self.wrong_output(job, finish_reason=reason, usage=Usage()) else reason

    def silence_max_s(self, offer: ModelOffer | None) -> float:
        """Return how long the container may run: it sends nothing before it is done, and runs differ in length."""
        card = offer.container if offer is not None else None
        return card.timeout_s + RUN_END_S if card is not None else 0.0

    def failure(self, message: str, body: bytes) -> str:
        """Return the container's own error, if it gave one: that is its result."""
        return body.decode(errors="replace") if body else message

    def _makes_pieces(self, job: Progress) -> bool:
        """Whether the buyer sees the current output piece by piece: for the last container of a stream."""
        return not job.detached and self.stage(job) == len(job.stages) - 1
