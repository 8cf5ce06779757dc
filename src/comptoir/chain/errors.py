"""Refusals of the chain room. A value that does not fit its type is `InvalidField` of the kit."""

from comptoir.kit.errors import Refusal


class ChainRefusal(Refusal):
    """Root of this room's errors."""


class ChainExtraMissing(ChainRefusal):
    """Hashing or recovery needs the extra ``comptoir[chain]``, which is not installed; *package* is missing."""

    def __init__(self, package: str) -> None:
        super().__init__(f"chain work needs the package {package}: pip install 'comptoir[chain]'")
        self.package = package


class BadContainerSet(ChainRefusal):
    """Container ids that can't be hashed unambiguously: none, an empty one, one with a comma, or too much text."""

    def __init__(self, ids: tuple[str, ...], reason: str) -> None:
        super().__init__(f"containers: {reason}")
        self.ids = ids
        self.reason = reason


class SignatureExpired(ChainRefusal):
    """The signature has expired: the contract accepts it only before *expiry_s*, and now is *now_s*."""

    def __init__(self, *, expiry_s: int, now_s: int) -> None:
        super().__init__(f"the signature expired at {expiry_s}, {now_s - expiry_s} seconds ago")
        self.expiry_s = expiry_s
        self.now_s = now_s


class BadRecoveryId(ChainRefusal):
    """The recovery id *v* is neither 27 nor 28; the contract does not accept 0 and 1."""

    def __init__(self, v: int) -> None:
        super().__init__(f"signature.v: must be 27 or 28, not {v}")
        self.v = v


class ScalarOutOfRange(ChainRefusal):
    """*r* or *s* of a signature (*name* says which) is 0 or not below the order of secp256k1."""

    def __init__(self, name: str, value: int) -> None:
        super().__init__(f"signature.{name}: must be from 1 to the order of secp256k1 less 1, not {value}")
        self.name = name
        self.value = value


class NotRecoverable(ChainRefusal):
    """No public key can have made this signature."""

    def __init__(self) -> None:
        super().__init__("signature: no key can have made it (r is on no point of the curve)")


class OldSubscription(ChainRefusal):
    """A subscription in the format before 1.0; *replaced* maps each of its old fields to its replacement."""

    def __init__(self, replaced: dict[str, str]) -> None:
        words = "; ".join(f"{old}: {now}" for old, now in replaced.items())
        super().__init__(f"subscription has the fields of before Infernet 1.0. {words}")
        self.replaced = replaced
