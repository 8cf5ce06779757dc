"""Terms: what an order asks of each host, and the most that its buyer agreed to pay."""

from collections.abc import Sequence

import msgspec

from comptoir.kit.money import cost_up


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

    After submit they change only where a lease begins at a dearer host (`quoted_anew`), in the command that writes it.
    """

    input_max: int = 0
    """Most units of the input that are charged."""
    output_max: int = 0
    """Most units of output, over all answers and stages; 0: no bound, and the output is not paid for."""
    rate_in: int = 0
    """Price cap, micro-dollars per million units; the host's price is charged, at most this."""
    rate_out: int = 0
    hold_uusd: int = 0


def hold_of(part: Part, rates: tuple[int, int]) -> int:
    """Return the micro-dollars that cover *part* at these prices (in, out), rounded up once."""
    return cost_up(part.input_max * rates[0] + part.output_max * rates[1])


def agree(parts: Sequence[Part], rates: Sequence[tuple[int, int]], *, output_max: int) -> Terms:
    """Return the terms of an order whose *parts* cost *rates* (in, out): the highest rates, one hold for all parts."""
    if len(parts) == 1:
        (part,), (rate,) = parts, rates
        return Terms(part.input_max, output_max, *rate, hold_of(part, rate))
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
