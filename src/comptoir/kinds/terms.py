"""Terms: what an order asks of each host, and what its buyer agreed to pay at most."""

from collections.abc import Sequence

import msgspec

from comptoir.kit.money import cost_up


class Ask(msgspec.Struct, frozen=True):
    """What a dialect asks for, as far as a kind has to look at it."""

    model: str
    """What is bought; of several stages, the first."""
    body: bytes
    output_max: int
    """Most units of the output, over all answers and stages; 0: the kind's output is not paid."""
    input_bytes: int = 0
    """Bytes of *body* that weigh like text, where media make the body itself a wrong measure; 0: all of it."""
    answers: int = 1
    """Texts asked for, each with the whole context for itself."""
    stages: tuple[str, ...] = ()
    """What is run one after the other, in order; empty: *model* alone."""
    proof: bool = False
    """The last stage has to prove its result."""


class Part(msgspec.Struct, frozen=True, gc=False):
    """What one host is asked for: a whole job, or one of its stages."""

    model: str
    input_max: int = 0
    """Most units of the input that are charged; the hold covers them."""
    input_expected: int = 0
    """What routing takes the input for: its price and time at a host are compared by it."""
    output_max: int = 0
    context_tokens: int = 0
    """What of a host's context it needs for each answer; 0: the kind knows no context."""
    proof: bool = False
    enters: bool = False
    """A job begins with it, so that its host has to let the caller in."""
    hold_uusd: int = 0
    """What is set aside for it, once the job was priced."""


class Stage(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One stage of a job that several hosts do one after the other, as it was bought and is stored."""

    model: str
    rate_out: int
    """Price cap, micro-dollars per million units; the hold covers it."""
    proof: bool = False


class Terms(msgspec.Struct, frozen=True, gc=False):
    """What a buyer agreed to: most units, most per unit, and the hold covering both. Fixed at submit."""

    input_max: int = 0
    """Most units of the input that are charged."""
    output_max: int = 0
    """Most units of the output, over all answers and stages; 0: no bound, and nothing of it is paid."""
    rate_in: int = 0
    """Price cap, micro-dollars per million units; what is charged is the host's price, at most this."""
    rate_out: int = 0
    hold_uusd: int = 0


def hold_of(part: Part, rates: tuple[int, int]) -> int:
    """Return the micro-dollars that cover *part* at these prices (in, out), rounded up once."""
    return cost_up(part.input_max * rates[0] + part.output_max * rates[1])


def agree(parts: Sequence[Part], rates: Sequence[tuple[int, int]], *, output_max: int) -> Terms:
    """Return the terms of an order whose *parts* cost *rates* (in, out): highest rates, one hold for all."""
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


_encode_stages = msgspec.json.Encoder().encode
_decode_stages = msgspec.json.Decoder(tuple[Stage, ...]).decode


def encode_stages(stages: tuple[Stage, ...]) -> bytes | None:
    """Return *stages* as stored; None: the job has one part alone."""
    return _encode_stages(stages) if stages else None


def decode_stages(stored: bytes | None) -> tuple[Stage, ...]:
    """Read back what `encode_stages` wrote."""
    return _decode_stages(stored) if stored else ()


def bought(model: str, stages: tuple[Stage, ...]) -> str:
    """Return the name of what a job buys: its model, or its stages joined by commas, as contracts name them."""
    return ",".join([stage.model for stage in stages]) if stages else model
