"""A delegated request as Infernet's 1.x clients send it: JSON to exact values, or a refusal that names the field.

    {"subscription": {owner, active_at, period, frequency, redundancy, containers: "0x…", lazy, verifier,
    payment_amount,
     payment_token, wallet}, "signature": {nonce, expiry, v, r, s}, "data": {…}, "requires_proof": false}

``r``, ``s`` and ``payment_amount`` are JSON integers of up to 256 bits; msgspec reads them exactly, while orjson would
make them floats. Unknown fields are ignored. The published reference still shows the format before 1.0, which no
contract accepts any more: the error then says field by field what to send instead.
"""

import re
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from comptoir.chain.errors import OldSubscription
from comptoir.chain.types import Signature, Subscription
from comptoir.kit.errors import InvalidField

OLD_FIELDS = {
    "container_id": "send containers, the 0x hash keccak256(abi.encode(string)) of the comma-separated ids",
    "inputs": "has none any more, send data beside the subscription",
    "max_gas_price": "has none any more, send payment_amount and payment_token",
    "max_gas_limit": "has none any more, send payment_amount and payment_token",
}
"""Fields of a subscription before 1.0, and their replacements."""

TEXTS = ("owner", "verifier", "payment_token", "wallet")
NUMBERS = ("active_at", "period", "frequency", "redundancy", "payment_amount")
SIGNED = ("nonce", "expiry", "v", "r", "s")

# HexBytes.hex() of web3 6, which the official client uses, writes 0x; that of hexbytes 1.0 and later does not.
_HASH = re.compile(r"(?:0x)?([0-9a-fA-F]{64})")

T = TypeVar("T")
_WORDS: dict[Any, str] = {str: "a string", int: "a whole number below 2**256", bool: "true or false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegatedRequest:
    """A request whose answers go to the chain; its signature is not verified yet."""

    subscription: Subscription
    signature: Signature
    data: msgspec.Raw
    """Input of the first container, the JSON object as sent."""
    requires_proof: bool


def parse_delegated(item: bytes | msgspec.Raw) -> DelegatedRequest:
    """Parse the JSON object *item* as a delegated request.

    The caller bounds the size of *item*. ``null`` for ``requires_proof`` is false.

    Raises:
        InvalidField: a field is missing, of the wrong type or beyond its limit; the path is ``subscription.active_at``.
        OldSubscription: the subscription has the fields from before 1.0 and not the current ones.
    """
    whole = _object(item, "body")
    subscription = _subscription(_object(_member(whole, "subscription"), "subscription"))
    signature = _signature(_object(_member(whole, "signature"), "signature"))
    data = _member(whole, "data")
    _object(data, "data")
    proof = whole.get("requires_proof")
    requires_proof = proof is not None and bytes(proof) != b"null" and _value(whole, "requires_proof", bool)
    return DelegatedRequest(subscription=subscription, signature=signature, data=data, requires_proof=requires_proof)


def _subscription(found: dict[str, msgspec.Raw]) -> Subscription:
    old = [name for name in OLD_FIELDS if name in found]
    if old and not found.keys() >= {"containers", *TEXTS, *NUMBERS, "lazy"}:
        raise OldSubscription({name: OLD_FIELDS[name] for name in old})
    fields: dict[str, Any] = {name: _value(found, f"subscription.{name}", str) for name in TEXTS}
    fields |= {name: _value(found, f"subscription.{name}", int) for name in NUMBERS}
    match = _HASH.fullmatch(_value(found, "subscription.containers", str))
    if match is None:
        raise InvalidField("subscription.containers", "must be a hash, 64 hexadecimal digits with or without 0x before")
    fields["containers"] = bytes.fromhex(match[1])
    fields["lazy"] = _value(found, "subscription.lazy", bool)
    try:
        return Subscription(**fields)
    except InvalidField as error:
        raise InvalidField(f"subscription.{error.field}", error.reason) from error


def _signature(found: dict[str, msgspec.Raw]) -> Signature:
    fields = {name: _value(found, f"signature.{name}", int) for name in SIGNED}
    try:
        return Signature(**fields)
    except InvalidField as error:
        raise InvalidField(f"signature.{error.field}", error.reason) from error


def _object(raw: bytes | msgspec.Raw, path: str) -> dict[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError as error:
        raise InvalidField(path, "must be an object") from error
    except msgspec.DecodeError as error:
        raise InvalidField(path, f"is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidField(path, "is nested too deeply") from error


def _member(found: dict[str, msgspec.Raw], path: str) -> msgspec.Raw:
    raw = found.get(path.rpartition(".")[2])
    if raw is None:
        raise InvalidField(path, "is required")
    return raw


def _value(found: dict[str, msgspec.Raw], path: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(_member(found, path), type=kind)
    except msgspec.DecodeError as error:
        raise InvalidField(path, f"must be {_WORDS[kind]}") from error
