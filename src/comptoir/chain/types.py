"""The values of the coordinator contract: a subscription, a signature over it, and the contract it is meant for.

Each is validated on construction, so that it fits its Solidity type. Fields are named as on Infernet's wire, in the
order of the contract's structs.
"""

import re
from dataclasses import dataclass

from comptoir.kit.errors import InvalidField

NOBODY = "0x" + 40 * "0"
"""The zero address: no verifier, no wallet, and as a payment token the chain's native coin."""

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Work to be delivered on the chain, once or in intervals.

    Addresses are accepted in any case, even with a wrong checksum (contracts see only 20 bytes), and stored in lower
    case, so that two spellings are equal.

    Raises:
        InvalidField: a field does not fit its Solidity type; names the field and the limit.
    """

    owner: str
    """The contract that gets the answers; its signer must have signed."""
    active_at: int
    """Start of the first interval, seconds since 1970; uint32."""
    period: int
    """Length of an interval in seconds, 0 for a single one; uint32."""
    frequency: int
    """Number of intervals; uint32."""
    redundancy: int
    """Number of nodes that may answer in an interval; uint16."""
    containers: bytes
    """Id of the container set, see :func:`comptoir.chain.containers_id`; 32 bytes."""
    lazy: bool
    """Whether answers are left in the inbox instead of being passed to the owner."""
    verifier: str
    """The contract that judges proofs; `NOBODY` for none."""
    payment_amount: int
    """Payment per answer, in the token's smallest unit; uint256."""
    payment_token: str
    """The ERC-20 asset paid with; `NOBODY` for the chain's native coin."""
    wallet: str
    """The Infernet wallet that pays; `NOBODY` for none."""

    def __post_init__(self) -> None:
        for name in ("owner", "verifier", "payment_token", "wallet"):
            object.__setattr__(self, name, _address(name, getattr(self, name)))
        for name in ("active_at", "period", "frequency"):
            _unsigned(name, getattr(self, name), 32)
        _unsigned("redundancy", self.redundancy, 16)
        _unsigned("payment_amount", self.payment_amount, 256)
        if type(self.containers) is not bytes or len(self.containers) != 32:
            raise InvalidField("containers", "must be 32 bytes")
        if type(self.lazy) is not bool:
            raise InvalidField("lazy", "must be true or false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """An ECDSA signature over a subscription, and what else was signed.

    It is no identity: anybody who sees one can make a second, equally valid one from it.

    Raises:
        InvalidField: a field does not fit its Solidity type. `recover` checks whether *v*, *r*, *s* are possible.
    """

    nonce: int
    """Number of the subscription among its owner's; uint32."""
    expiry: int
    """Time from which on the contract refuses it, seconds since 1970; uint32."""
    v: int
    """Recovery id, 27 or 28; uint8."""
    r: int
    s: int

    def __post_init__(self) -> None:
        for name, bits in (("nonce", 32), ("expiry", 32), ("v", 8), ("r", 256), ("s", 256)):
            _unsigned(name, getattr(self, name), bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The coordinator contract that a signature is for; it is invalid at any other.

    Raises:
        InvalidField: a field does not fit its Solidity type.
    """

    chain_id: int
    """uint256."""
    verifying_contract: str
    """Address of the coordinator contract; case as for a subscription's."""

    def __post_init__(self) -> None:
        _unsigned("chain_id", self.chain_id, 256)
        object.__setattr__(self, "verifying_contract", _address("verifying_contract", self.verifying_contract))


def _unsigned(name: str, value: object, bits: int) -> None:
    # A bool is an int in Python but not in Solidity.
    if type(value) is not int or not 0 <= value < 1 << bits:
        most = f"2**{bits} - 1" if bits > 64 else str((1 << bits) - 1)
        raise InvalidField(name, f"must be a whole number from 0 to {most}")


def _address(name: str, value: object) -> str:
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise InvalidField(name, "must be an address, 0x and 40 hexadecimal digits")
    return value.lower()
