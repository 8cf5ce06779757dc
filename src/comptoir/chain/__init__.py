"""The chain room: blockchain values, and who signed them. Off-chain only: nothing here makes a call.

Owns no table: values (`Subscription`, `Signature`, `Domain`), the ids of container sets, EIP-712 digests and signers,
and the parsing of delegated requests from Infernet's clients.
Invariant: integers are exact up to 256 bits, never a float; every value fits its Solidity type; a digest is the one
that the coordinator contract computes. A signature is no identity, because it is malleable; (owner, nonce) is.
Units: seconds since 1970 for times, the payment token's smallest unit for amounts, 32 raw bytes for hashes; addresses
    are ``0x`` and 40 lower-case digits inside values, checksummed where a signer is returned.
Knows: nobody. Hashing and recovery need the extra ``comptoir[chain]``; without it they raise, and parsing works.
"""

from comptoir.chain.containers import SET_BYTES_MAX, KnownSets, containers_id
from comptoir.chain.delegated import DelegatedRequest, parse_delegated
from comptoir.chain.eip712 import digest, domain_separator, recover, struct_hash
from comptoir.chain.errors import (
    BadContainerSet,
    BadRecoveryId,
    ChainExtraMissing,
    ChainRefusal,
    NotRecoverable,
    OldSubscription,
    ScalarOutOfRange,
    SignatureExpired,
)
from comptoir.chain.types import NOBODY, Domain, Signature, Subscription

__all__ = [
    "NOBODY",
    "SET_BYTES_MAX",
    "BadContainerSet",
    "BadRecoveryId",
    "ChainExtraMissing",
    "ChainRefusal",
    "DelegatedRequest",
    "Domain",
    "KnownSets",
    "NotRecoverable",
    "OldSubscription",
    "ScalarOutOfRange",
    "Signature",
    "SignatureExpired",
    "Subscription",
    "containers_id",
    "digest",
    "domain_separator",
    "parse_delegated",
    "recover",
    "struct_hash",
]
