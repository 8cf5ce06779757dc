"""Keccak-256 and secp256k1, the only two things that need the extra ``comptoir[chain]``.

The extra is optional: a coordinator without a chain runs without it. Each function here then raises an error that says
what to install.
"""

from comptoir.chain.errors import ChainExtraMissing

try:
    from coincurve import PublicKey
    from eth_hash.auto import keccak as _keccak

    _missing = ""
except ModuleNotFoundError as error:
    _missing = (error.name or "eth-account").partition(".")[0]

ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
"""Order of the secp256k1 group."""


def keccak256(data: bytes) -> bytes:
    """Return the hash that the EVM calls keccak256 (not SHA3-256, whose padding differs).

    Raises:
        ChainExtraMissing: the extra is not installed.
    """
    _need()
    return _keccak(data)


def signer_of(digest: bytes, *, r: int, s: int, odd: bool) -> bytes | None:
    """Return the 20 bytes of the address whose key signed *digest*; ``None`` when no key can have.

    Args:
        r: 1 to `ORDER` less 1, like *s*; an *s* in the upper half is fine, as it is for the EVM.
        odd: whether the y of the signature's point is odd (v = 28).

    Raises:
        ChainExtraMissing: the extra is not installed.
    """
    _need()
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes((odd,))
    try:
        key = PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except ValueError:
        return None
    return _keccak(key.format(compressed=False)[1:])[12:]


def checksummed(address: bytes) -> str:
    """Return 20 bytes as an address with the checksum of EIP-55 in its case.

    Raises:
        ChainExtraMissing: the extra is not installed.
    """
    digits = address.hex()
    marks = keccak256(digits.encode()).hex()
    return "0x" + "".join([c.upper() if mark >= "8" else c for c, mark in zip(digits, marks, strict=False)])


def _need() -> None:
    if _missing:
        raise ChainExtraMissing(_missing)
