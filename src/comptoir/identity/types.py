"""Frozen values of the identity room. Ids are the raw 16 bytes, times milliseconds since 1970 UTC."""

from enum import StrEnum

import msgspec

USER_KEY_PREFIX = "ck_"
HOST_KEY_PREFIX = "hk_live_"
SECRET_CHARS = 43
"""Characters of 256 bits in URL-safe base64 without padding."""


class OwnerKind(StrEnum):
    """Whose key it is."""

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
    """A person's record; no secret in it."""

    id: bytes
    username: str
    email: str | None
    role: Role
    created_ms: int


class Key(msgspec.Struct, frozen=True, gc=False):
    """A key's record; the key itself is shown once and not kept."""

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
    """The key as its holder will send it; to be shown once, never stored or logged."""
    created_ms: int

    def __repr__(self) -> str:
        return f"NewKey({self.id.hex()})"


class NewUser(msgspec.Struct, frozen=True, gc=False):
    """A checked user about to be stored, password hashed."""

    user: User
    password_hash: str | None
    """argon2id in PHC form; ``None`` for people who only have keys."""
    key: NewKey | None

    def __repr__(self) -> str:
        return f"NewUser({self.user!r})"


class Principal(msgspec.Struct, frozen=True, gc=False):
    """Who is asking."""

    kind: OwnerKind
    id: bytes
    role: Role
    key_id: bytes | None
    """``None`` when a password was given instead of a key."""
    name: str
    """Username; empty for hosts, whose names are the hosts room's."""

    @property
    def is_admin(self) -> bool:
        """Whether this is an operator."""
        return self.role is Role.ADMIN


class Anonymous(msgspec.Struct, frozen=True, gc=False):
    """Nobody we know: no credential was given."""

    ip: str


class Credentials(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a request brought, byte for byte as on the wire; the HTTP layer fills it in."""

    ip: str
    """Peer address after trusted proxies."""
    authorization: bytes | None = None
    x_api_key: bytes | None = None
    x_admin_key: bytes | None = None
    query_key: bytes | None = None
    """``?api_key=``; only passed on where the published API has it."""
