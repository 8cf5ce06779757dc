"""EIP-712: the digest that is signed for a delegated subscription, and who signed it.

Every field is of fixed size, so a struct's encoding is its words one after the other. The type hashes are written out;
a test computes them from the type strings.
"""

from functools import lru_cache

from comptoir.chain.curve import ORDER, checksummed, keccak256, signer_of
from comptoir.chain.errors import BadRecoveryId, NotRecoverable, ScalarOutOfRange, SignatureExpired
from comptoir.chain.types import Domain, Signature, Subscription

NAME = "InfernetCoordinator"
VERSION = "1"

DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
SUBSCRIPTION_TYPE = (
    "Subscription(address owner,uint32 activeAt,uint32 period,uint32 frequency,uint16 redundancy,bytes32 containerId,bool lazy,"
    "address verifier,uint256 paymentAmount,address paymentToken,address wallet)"
)
DELEGATE_TYPE = f"DelegateSubscription(uint32 nonce,uint32 expiry,Subscription sub){SUBSCRIPTION_TYPE}"

DOMAIN_TYPE_HASH = bytes.fromhex("8b73c3c69bb8fe3d512ecc4cf759cc79239f7b179b0ffacaa9a75d522b39400f")
SUBSCRIPTION_TYPE_HASH = bytes.fromhex("3da81ed66ee47395e568c52867826ec137777eef9c1bdfb6bf972dd4385bc5a9")
DELEGATE_TYPE_HASH = bytes.fromhex("ba9ff1aef2b048b42767aade2b901745a3acf14f698a9ec13952098cfd03d0b6")

DOMAINS_MAX = 64
"""Domains whose separator is cached; a coordinator has one for each chain that it serves."""


@lru_cache(maxsize=DOMAINS_MAX)
def domain_separator(domain: Domain) -> bytes:
    """Return the hash that binds a signature to one contract on one chain.

    Raises:
        ChainExtraMissing: the extra is not installed; every function here raises it.
    """
    return keccak256(
        DOMAIN_TYPE_HASH
        + keccak256(NAME.encode())
        + keccak256(VERSION.encode())
        + _word(domain.chain_id)
        + _address(domain.verifying_contract)
    )


def struct_hash(subscription: Subscription, *, nonce: int, expiry: int) -> bytes:
    """Return the hash of the signed struct, without the domain."""
    inner = keccak256(
        SUBSCRIPTION_TYPE_HASH
        + _address(subscription.owner)
        + _word(subscription.active_at)
        + _word(subscription.period)
        + _word(subscription.frequency)
        + _word(subscription.redundancy)
        + subscription.containers
        + _word(subscription.lazy)
        + _address(subscription.verifier)
        + _word(subscription.payment_amount)
        + _address(subscription.payment_token)
        + _address(subscription.wallet)
    )
    return keccak256(DELEGATE_TYPE_HASH + _word(nonce) + _word(expiry) + inner)


def digest(domain: Domain, subscription: Subscription, *, nonce: int, expiry: int) -> bytes:
    """Return the 32 bytes that the owner's signer signs.

    Args:
        nonce: as in `Signature`; uint32, like *expiry*.
    """
    assert 0 <= nonce < 1 << 32 and 0 <= expiry < 1 << 32, (nonce, expiry)
    return keccak256(b"\x19\x01" + domain_separator(domain) + struct_hash(subscription, nonce=nonce, expiry=expiry))


def recover(domain: Domain, subscription: Subscription, signature: Signature, *, now_s: int) -> str:
    """Return the checksummed address of the signer; only the owner's contract knows whether it accepts that signer.

    Accepts what the contract accepts: an *s* in the upper half of the order is valid.

    Args:
        now_s: seconds since 1970, by the chain's clock if that is known.

    Raises:
        SignatureExpired: *now_s* is *expiry* or later.
        BadRecoveryId: *v* is neither 27 nor 28.
        ScalarOutOfRange: *r* or *s* is 0 or not below the curve's order.
        NotRecoverable: no key can have made the signature.
    """
    if now_s >= signature.expiry:
        raise SignatureExpired(expiry_s=signature.expiry, now_s=now_s)
    if signature.v not in (27, 28):
        raise BadRecoveryId(signature.v)
    for name, value in (("r", signature.r), ("s", signature.s)):
        if not 0 < value < ORDER:
            raise ScalarOutOfRange(name, value)
    signed = digest(domain, subscription, nonce=signature.nonce, expiry=signature.expiry)
    signer = signer_of(signed, r=signature.r, s=signature.s, odd=signature.v == 28)
    if signer is None:
        raise NotRecoverable
    return checksummed(signer)


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _address(text: str) -> bytes:
    return bytes(12) + bytes.fromhex(text[2:])
