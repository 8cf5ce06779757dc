"""SQL of the identity room; functions over a transaction or the reading connection."""

import hashlib
from typing import Any

from comptoir.identity.errors import EmailTaken, UsernameTaken
from comptoir.identity.tables import ACCESS_KEYS, USERS
from comptoir.identity.types import Key, NewKey, NewUser, OwnerKind, Principal, Role, User
from comptoir.kit.db import Database, Fetch, Tx, in_words
from comptoir.kit.ids import public

_USER_NAMES = ("id", "username", "email", "role", "created_ms")
_USER_COLUMNS = ", ".join(_USER_NAMES)


def digest_of(secret: bytes) -> bytes:
    """Return the digest that is stored for a key."""
    return hashlib.sha256(secret).digest()


def insert_user(tx: Tx, new: NewUser) -> None:
    """Store a user and, when there is one, the first key.

    Raises:
        UsernameTaken, EmailTaken: in this order; nothing is written.
    """
    user = new.user
    username, email = user.username.lower(), user.email.lower() if user.email is not None else None
    row = (user.id, user.username, username, user.email, email, new.password_hash, user.role.value, user.created_ms)
    # The insert decides, not a query beforehand: another coordinator may be creating the same user.
    if tx.insert(USERS, [row], ignore_conflicts=True) == 0:
        if tx.fetch("SELECT 1 FROM users WHERE username_folded = ?", (username,)):
            raise UsernameTaken(user.username)
        raise EmailTaken(user.email or "")
    tx.notes.append(in_words(f"user {public('usr', user.id)}"))
    if new.key is not None:
        insert_key(tx, new.key)


def insert_key(tx: Tx, key: NewKey) -> None:
    """Store a key's digest and owner."""
    tx.notes.append(in_words(f"key {key.id.hex()}"))
    tx.insert(
        ACCESS_KEYS,
        [(digest_of(key.secret.encode()), key.id, key.owner_kind.value, key.owner_id, key.created_ms, None)],
    )


def revoke_keys_of(tx: Tx, owner_id: bytes, at_ms: int) -> list[bytes]:
    """Revoke all live keys of an owner; return their digests."""
    digests = [
        row[0]
        for row in tx.fetch("SELECT digest FROM access_keys WHERE owner_id = ? AND revoked_ms IS NULL", (owner_id,))
    ]
    tx.update(ACCESS_KEYS, ("revoked_ms",), [(digest, at_ms) for digest in digests])
    tx.notes.append(in_words(f"keys of {owner_id.hex()} revoked"))
    return digests


def revoke_key(tx: Tx, key_id: bytes, owner_id: bytes, at_ms: int) -> bytes | None:
    """Revoke one key of an owner, keeping the first moment; return its digest, ``None`` when there is no such key."""
    rows = tx.fetch("SELECT digest FROM access_keys WHERE id = ? AND owner_id = ?", (key_id, owner_id))
    tx.execute(
        "UPDATE access_keys SET revoked_ms = ? WHERE id = ? AND owner_id = ? AND revoked_ms IS NULL",
        (at_ms, key_id, owner_id),
    )
    tx.notes.append(in_words(f"key {key_id.hex()} revoked"))
    return rows[0][0] if rows else None


def operators(tx: Tx) -> list[bytes]:
    """Return the ids of all operators."""
    return [row[0] for row in tx.fetch("SELECT id FROM users WHERE role = ?", (Role.ADMIN.value,))]


def user_in(tx: Tx, user_id: bytes) -> User | None:
    """Return one user."""
    return _first_user(tx.fetch(f"SELECT {_USER_COLUMNS} FROM users WHERE id = ?", (user_id,)))


async def principal_of(db: Database, digest: bytes) -> tuple[Principal, bool] | None:
    """Return the holder of the key with this digest, and whether it is revoked; ``None`` if there is no such key."""
    row = await db.fetch_point(ACCESS_KEYS, ("id", "owner_kind", "owner_id", "revoked_ms"), (digest,))
    if row is None:
        return None
    key_id, kind, owner_id, revoked_ms = row
    revoked = revoked_ms is not None
    if kind == OwnerKind.HOST:
        return Principal(OwnerKind.HOST, owner_id, Role.HOST, key_id, ""), revoked
    user = await db.fetch_point(USERS, ("role", "username"), (owner_id,))
    assert user is not None, "a user's key has a user"
    return Principal(OwnerKind.USER, owner_id, Role(user[0]), key_id, user[1]), revoked


async def login_of(db: Database, name: str) -> tuple[User, str | None] | None:
    """Return the user with this username or, when it has an ``@``, email address, and the password's hash."""
    column = "email_folded" if "@" in name else "username_folded"
    row = await db.fetch_point(USERS, (*_USER_NAMES, "password_hash"), (name.lower(),), by=(column,))
    return (_user(row[:5]), row[5]) if row is not None else None


async def user_of(db: Database, user_id: bytes) -> User | None:
    """Return one user."""
    row = await db.fetch_point(USERS, _USER_NAMES, (user_id,))
    return _user(row) if row is not None else None


async def user_named(db: Database, username: str) -> User | None:
    """Return the user with this username, compared without regard to case."""
    row = await db.fetch_point(USERS, _USER_NAMES, (username.lower(),), by=("username_folded",))
    return _user(row) if row is not None else None


async def users(db: Database, limit: int, offset: int) -> tuple[list[User], int]:
    """Return a page of users, oldest first, and how many there are."""

    def look(fetch: Fetch) -> tuple[list[User], int]:
        # The ids are skipped in their index; the rows are read from the first one on.
        first = fetch("SELECT id FROM users ORDER BY id LIMIT 1 OFFSET ?", (offset,))
        ((total,),) = fetch("SELECT count(*) FROM users")
        sql = f"SELECT {_USER_COLUMNS} FROM users WHERE id >= ? ORDER BY id LIMIT ?"
        return [_user(row) for row in (fetch(sql, (first[0][0], limit)) if first else ())], total

    return await db.fetch_snapshot(look)


async def keys_of(db: Database, owner_id: bytes) -> list[Key]:
    """Return an owner's keys, revoked ones included, oldest first."""
    rows = await db.fetch(
        "SELECT id, owner_kind, owner_id, created_ms, revoked_ms FROM access_keys WHERE owner_id = ? ORDER BY id",
        (owner_id,),
        of=owner_id,
    )
    return [Key(row[0], OwnerKind(row[1]), *row[2:]) for row in rows]


def _first_user(rows: list[tuple[Any, ...]]) -> User | None:
    return _user(rows[0]) if rows else None


def _user(row: tuple[Any, ...]) -> User:
    user_id, username, email, role, created_ms = row
    return User(user_id, username, email, Role(role), created_ms)
