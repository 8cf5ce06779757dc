"""Builders of the chain room for tests: subscriptions with every field defaulted, and signing them."""

import json
from typing import Any

from coincurve import PrivateKey

from comptoir.chain.eip712 import digest
from comptoir.chain.types import NOBODY, Domain, Signature, Subscription

OWNER = "0x" + 39 * "0" + "1"
NOON_S = 1_700_000_000
"""The current time in tests; signatures of `make_signature` are valid for a day after."""


def make_domain(*, chain_id: int = 31337, verifying_contract: str = "0x" + 20 * "c0") -> Domain:
    """Return the coordinator contract of a development chain."""
    return Domain(chain_id=chain_id, verifying_contract=verifying_contract)


def make_subscription(
    *,
    owner: str = OWNER,
    active_at: int = NOON_S,
    period: int = 0,
    frequency: int = 1,
    redundancy: int = 1,
    containers: bytes = bytes(32),
    lazy: bool = False,
    verifier: str = NOBODY,
    payment_amount: int = 0,
    payment_token: str = NOBODY,
    wallet: str = NOBODY,
) -> Subscription:
    """Return a subscription for one answer, unpaid."""
    return Subscription(
        owner=owner,
        active_at=active_at,
        period=period,
        frequency=frequency,
        redundancy=redundancy,
        containers=containers,
        lazy=lazy,
        verifier=verifier,
        payment_amount=payment_amount,
        payment_token=payment_token,
        wallet=wallet,
    )


def make_signature(
    subscription: Subscription,
    *,
    domain: Domain | None = None,
    nonce: int = 1,
    expiry: int = NOON_S + 86_400,
    secret: bytes = bytes(31) + b"\x01",
) -> Signature:
    """Return the signature that the key *secret* makes over *subscription*."""
    signed = digest(domain or make_domain(), subscription, nonce=nonce, expiry=expiry)
    made = PrivateKey(secret).sign_recoverable(signed, hasher=None)
    r, s = int.from_bytes(made[:32], "big"), int.from_bytes(made[32:64], "big")
    return Signature(nonce=nonce, expiry=expiry, v=27 + made[64], r=r, s=s)


def make_item(subscription: Subscription, signature: Signature, **more: Any) -> bytes:
    """Return both as Infernet's 1.x clients send them, with ``data`` ``{}``; *more* adds or replaces fields."""
    fields = {name: getattr(subscription, name) for name in Subscription.__slots__}
    fields["containers"] = "0x" + subscription.containers.hex()
    signed = {name: getattr(signature, name) for name in Signature.__slots__}
    return json.dumps({"subscription": fields, "signature": signed, "data": {}} | more).encode()
