"""Frozen values of the identity room. Ids are the raw 16 bytes, times milliseconds since 1970 UTC."""

from enum import StrEnum

import msgspec

USER_KEY_PREFIX = "ck_"
HOST_KEY_PREFIX = "hk_live_"
SECRET_CHARS = 43
"""Characters of 256 bits in URL-safe base64 without padding."""


class OwnerKind(StrEnum):
    """Whether a key belongs to a user or a host."""

    USER = "user"
    HOST = "host"


class Role(StrEnum):
    """What the holder may do; each dialect's declarations name the roles an endpoint serves."""

    BUYER = "buyer"
    """Buys, and sees its own jobs and money."""
    ADMIN = "admin"
    """Operates this trading post; may also buy."""
    HOST = "host"
    """Delivers, and sees its own attempts and earnings."""


class User(msgspec.Struct, frozen=True, gc=False):
    """A user's record, without secrets."""

    id: bytes
    username: str
    email: str | None
    role: Role
    created_ms: int


class Key(msgspec.Struct, frozen=True, gc=False):
    """A key's record; the key itself is shown once and not stored."""

    id: bytes
    owner_kind: OwnerKind
    owner_id: bytes
    created_ms: int
    revoked_ms: int | None


class NewKey(msgspec.Struct, frozen=True, gc=False):
    """A key about to be stored."""

    id: bytes
    owner_kind: OwnerKind
    owner_id: bytes
    secret: str
    """The key as its holder sends it; to be shown once, never stored or logged."""
    created_ms: int

    def __repr__(self) -> str:
        return f"NewKey({self.id.hex()})"


class NewUser(msgspec.Struct, frozen=True, gc=False):
    """A validated user about to be stored, with the password hashed."""

    user: User
    password_hash: str | None
    """argon2id in PHC form; ``None`` for users who only have keys."""
    key: NewKey | None

    def __repr__(self) -> str:
        return f"NewUser({self.user!r})"


class InvitedAs(StrEnum):
    """What an invitation is for."""

    HOST = "host"
    """Registering a host."""
    USER = "user"
    """Signing up."""


class Invitation(msgspec.Struct, frozen=True):
    """An invitation as stored: everything but its text."""

    id: bytes
    invited_as: InvitedAs
    uses: int
    """How often it was used."""
    uses_max: int
    credit_uusd: int | None
    """Credit of a user who comes with it, micro-dollars; None: what everybody gets."""
    note: str
    """The operator's own words, to know it by."""
    made_by: bytes
    """The operator's user id."""
    created_ms: int
    expires_ms: int
    revoked_ms: int | None

    def state(self, at_ms: int) -> str:
        """Return ``revoked``, ``used up`` or ``expired``, the first that applies; ``open`` if none does."""
        if self.revoked_ms is not None:
            return "revoked"
        if self.uses >= self.uses_max:
            return "used up"
        return "open" if at_ms < self.expires_ms else "expired"


class NewInvitation(msgspec.Struct, frozen=True):
    """An invitation that was just made."""

    invitation: Invitation
    text: str
    """The invitation as it is given away; to be shown once, never stored or logged."""

    def __repr__(self) -> str:
        return f"NewInvitation({self.invitation!r})"


class Principal(msgspec.Struct, frozen=True, gc=False):
    """An authenticated caller."""

    kind: OwnerKind
    id: bytes
    role: Role
    key_id: bytes | None
    """``None`` when a password was given instead of a key."""
    name: str
    """Username; empty for hosts, whose names are in the hosts room."""

    @property
    def is_admin(self) -> bool:
        """Whether the caller is an operator."""
        return self.role is Role.ADMIN


class Anonymous(msgspec.Struct, frozen=True, gc=False):
    """A caller who gave no credential."""

    ip: str


class Credentials(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A request's credentials, byte for byte as on the wire; set by the HTTP layer."""

    ip: str
    """Peer address after trusted proxies."""
    authorization: bytes | None = None
    x_api_key: bytes | None = None
    x_admin_key: bytes | None = None
    query_key: bytes | None = None
    """``?api_key=``; only set where the published API has it."""
