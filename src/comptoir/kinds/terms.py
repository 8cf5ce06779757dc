"""Terms: what an order asks of each host, and the most that its buyer agreed to pay."""

from collections.abc import Sequence

import msgspec

from comptoir.kit.money import TOKENS_PER_MTOK, cost_up

GROWS_BY_SHARE = 4
"""A bound that grows is raised by at least this part of itself: from 2,048 tokens to 131,072 it takes 16
raises."""


class Ask(msgspec.Struct, frozen=True):
    """The part of an order that a kind looks at."""

    model: str
    """The model; for several stages, that of the first."""
    body: bytes
    output_max: int
    """Most units of output, over all answers and stages; 0: the kind's output is not paid for."""
    input_bytes: int = 0
    """Bytes of *body* that count as text, when media make its size a wrong measure; 0: all of it."""
    answers: int = 1
    """Number of texts requested, each with the whole context for itself."""
    stages: tuple[str, ...] = ()
    """What runs one after the other, in order; empty: *model* alone."""
    proof: bool = False
    """Whether the last stage has to prove its result."""


class Part(msgspec.Struct, frozen=True, gc=False):
    """What one host is asked for: a whole job, or one of its stages."""

    model: str
    input_max: int = 0
    """Most units of the input that are charged; the hold covers them."""
    input_expected: int = 0
    """Units of input that routing expects when it compares hosts by price and time."""
    output_max: int = 0
    context_tokens: int = 0
    """Context length that each answer needs; 0: the kind has no context."""
    proof: bool = False
    enters: bool = False
    """Whether the job begins with this part, so that its host has to admit the caller."""
    hold_uusd: int = 0
    """Credit reserved for it; set once the job is priced."""


class Stage(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One stage of a job with several, as it was bought and is stored."""

    model: str
    rate_out: int
    """Price cap, micro-dollars per million units; the hold covers it."""
    proof: bool = False


class Terms(msgspec.Struct, frozen=True, gc=False):
    """What a buyer agreed to: most units, highest prices, and the hold that covers both.

    After submit they change only where a lease begins at a dearer host (`quoted_anew`), in the command that writes it,
    and where a bound grows that the buyer did not name (`extended`).
    """

    input_max: int = 0
    """Most units of the input that are charged."""
    output_max: int = 0
    """Most units of output, over all answers and stages; 0: no bound, and the output is not paid for."""
    rate_in: int = 0
    """Price cap, micro-dollars per million units; the host's price is charged, at most this."""
    rate_out: int = 0
    hold_uusd: int = 0
    grows_by: int = 0
    """Units that *output_max* began with, and is raised by at least, where the buyer named no bound. 0: he did."""

    @property
    def next_max(self) -> int:
        """What *output_max* is to be raised to next."""
        return self.output_max + self._step

    @property
    def due(self) -> int:
        """Units of output from which that is due: when half of as much as it is raised by is left."""
        return self.output_max - self._step // 2

    @property
    def _step(self) -> int:
        return max(self.grows_by, self.output_max // GROWS_BY_SHARE)


def hold_of(part: Part, rates: tuple[int, int]) -> int:
    """Return the micro-dollars that cover *part* at these prices (in, out), rounded up once."""
    return cost_up(part.input_max * rates[0] + part.output_max * rates[1])


def agree(parts: Sequence[Part], rates: Sequence[tuple[int, int]], *, output_max: int, grows_by: int = 0) -> Terms:
    """Return the terms of an order whose *parts* cost *rates* (in, out): the highest rates, one hold for all parts.

    Args:
        grows_by: `Terms.grows_by`, of an order with one part.
    """
    if len(parts) == 1:
        (part,), (rate,) = parts, rates
        return Terms(part.input_max, output_max, *rate, hold_of(part, rate), grows_by)
    return Terms(
        sum([part.input_max for part in parts]),
        output_max,
        max([rate for rate, _ in rates]),
        max([rate for _, rate in rates]),
        sum(map(hold_of, parts, rates)),
    )


def quoted_anew(
    terms: Terms,
    stages: tuple[Stage, ...],
    at: int,
    *,
    part: Part,
    rates: tuple[int, int],
    hold_uusd: int,
) -> tuple[Terms, tuple[Stage, ...]]:
    """Return terms and stages of a job whose *part*, stage number *at*, is to be held at *hold_uusd* and these prices.

    The other parts keep what they are held at.
    """
    if stages:
        dearer = msgspec.structs.replace(stages[at], rate_out=max(stages[at].rate_out, rates[1]))
        stages = (*stages[:at], dearer, *stages[at + 1 :])
    more = hold_uusd - part.hold_uusd
    assert more >= 0, "a new quote never takes from what is held"
    rate_in, rate_out = max(terms.rate_in, rates[0]), max(terms.rate_out, rates[1])
    new = msgspec.structs.replace(terms, rate_in=rate_in, rate_out=rate_out, hold_uusd=terms.hold_uusd + more)
    return new, stages


def extended(terms: Terms, rates: tuple[int, int], *, output_max: int, most_uusd: int) -> Terms:
    """Return *terms* with the bound raised to *output_max*, as far as *most_uusd* covers it, and the hold for that.

    If it covers no more than now, they are returned as they are. The hold never shrinks.

    Args:
        rates: the highest prices (in, out) of the hosts that took part, micro-dollars per million units.
        most_uusd: what can be held for the job in all, at least what is.
    """
    rate_in, rate_out = rates
    if rate_out:
        output_max = min(output_max, (most_uusd * TOKENS_PER_MTOK - terms.input_max * rate_in) // rate_out)
    if output_max <= terms.output_max:
        return terms
    needed_uusd = min(most_uusd, cost_up(terms.input_max * rate_in + output_max * rate_out))
    return msgspec.structs.replace(
        terms,
        output_max=output_max,
        rate_in=max(terms.rate_in, rate_in),
        rate_out=max(terms.rate_out, rate_out),
        hold_uusd=max(terms.hold_uusd, needed_uusd),
    )


_encode_stages = msgspec.json.Encoder().encode
_decode_stages = msgspec.json.Decoder(tuple[Stage, ...]).decode


def encode_stages(stages: tuple[Stage, ...]) -> bytes | None:
    """Return *stages* as stored; None: the job has a single part."""
    return _encode_stages(stages) if stages else None


def decode_stages(stored: bytes | None) -> tuple[Stage, ...]:
    """Read back what `encode_stages` wrote."""
    return _decode_stages(stored) if stored else ()


def bought(model: str, stages: tuple[Stage, ...]) -> str:
    """Return the name of what a job buys: its model, or its stages joined by commas, as in Infernet's contracts."""
    return ",".join([stage.model for stage in stages]) if stages else model
