"""The service of the identity room: users, keys, and authentication."""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Awaitable, Callable, Collection, Sequence

from comptoir.events import EventHub, KeysRevoked
from comptoir.identity import store
from comptoir.identity.errors import UnknownAccessKey, UnknownUser
from comptoir.identity.invitations import Invitations
from comptoir.identity.passwords import Passwords
from comptoir.identity.signups import forget_signups
from comptoir.identity.types import (
    HOST_KEY_PREFIX,
    SECRET_CHARS,
    USER_KEY_PREFIX,
    Anonymous,
    Credentials,
    Key,
    NewKey,
    NewUser,
    OwnerKind,
    Principal,
    Role,
    User,
)
from comptoir.kit.cache import BoundedCache
from comptoir.kit.clock import Clock
from comptoir.kit.db import Database, Tx
from comptoir.kit.errors import InvalidField, NotAllowed, NotAuthenticated, Refusal
from comptoir.kit.ids import new_id
from comptoir.kit.ratelimit import RateLimiter, address_key

KEY_CACHE_S = 60.0
"""How long a key is cached without asking the database. A key revoked here stops working here at once; on the other
coordinators of the database as soon as they are told (`Identity.forget_keys`), and otherwise within this time."""

LOGIN_CACHE_S = 60.0
"""How long a checked password is cached, so that a client that sends Basic with every request costs one hash per
minute and not one per request."""

LOGIN_CACHE_SIZE = 10_000
LIST_MAX = 1_000

USERNAME = re.compile(r"[A-Za-z0-9_.-]{3,64}")
EMAIL = re.compile(r"[^@\s\x00-\x20\x7f]{1,64}@[^@\s\x00-\x20\x7f]{1,189}")
PASSWORD_CHARS_MIN, PASSWORD_CHARS_MAX = 8, 256

_KEY = re.compile(rb"(?:%b|%b)[A-Za-z0-9_-]{%d}" % (USER_KEY_PREFIX.encode(), HOST_KEY_PREFIX.encode(), SECRET_CHARS))
_BEARER = b"Bearer "

_sha256 = hashlib.sha256


async def _in_good_standing(principal: Principal, revoked: bool) -> Refusal | None:
    return None


class Identity:
    """Creates users and keys, and resolves credentials to a `Principal`."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        events: EventHub | None = None,
        passwords: Passwords | None = None,
        logins_per_minute: int = 20,
        key_cache_size: int = 100_000,
        standing: Callable[[Principal, bool], Awaitable[Refusal | None]] = _in_good_standing,
    ) -> None:
        """*standing* returns what the holder of a credential is refused with, told also whether the key is revoked.

        It is called only where a credential is looked up, so nothing is asked of what is cached (`forget_owners`).
        """
        self._db = db
        self._clock = clock
        self._events = events or EventHub()
        self._passwords = passwords or Passwords()
        self._standing = standing
        self._by_digest: BoundedCache[bytes, Principal] = BoundedCache(
            entries_max=key_cache_size, ttl_s=KEY_CACHE_S, clock=clock
        )
        self._by_login: BoundedCache[bytes, Principal] = BoundedCache(
            entries_max=LOGIN_CACHE_SIZE, ttl_s=LOGIN_CACHE_S, clock=clock
        )
        self.logins = RateLimiter(per_minute=logins_per_minute, clock=clock)
        """Password attempts, by address and by username."""
        self.invitations = Invitations(db, clock)
        self._salt = os.urandom(32)
        self._revocations = 0
        """Counts revocations, so that the result of a lookup begun before one is not cached after it."""

    async def forget_signups(self) -> int:
        """Delete the addresses that users signed up from on days (UTC) that are over; return how many."""
        now_ms = self._clock.now_ms()
        return await self._db.run(lambda tx: forget_signups(tx, now_ms=now_ms))

    def close(self) -> None:
        """Stop the password threads."""
        self._passwords.close()

    # -- users ---------------------------------------------------------------------------------------------------

    async def prepare_user(
        self,
        *,
        username: str,
        email: str | None,
        password: str | None,
        role: Role = Role.BUYER,
        with_key: bool = False,
        user_id: bytes | None = None,
        key_secret: bytes | None = None,
    ) -> NewUser:
        """Check the fields and hash the password of a user about to be stored with :meth:`insert_user`.

        Args:
            username: 3 to 64 of letters, digits, ``_``, ``.`` and ``-``; unique without regard to case.
            email: at most 254 characters, unique; ``None`` for users of this machine (operator, demo buyer).
            password: 8 to 256 characters; ``None`` for users who only have keys.
            with_key: also make a first key.
            user_id: given if an Idempotency-Key determines it; *key_secret* as for :meth:`new_key`.

        Raises:
            InvalidField: a field is out of bounds; the first in the order above.
            TooManyRequests: too many passwords are being hashed.
        """
        if not USERNAME.fullmatch(username):
            raise InvalidField("username", "must be 3 to 64 letters, digits, '_', '.' or '-'")
        if email is not None and not EMAIL.fullmatch(email):
            raise InvalidField("email", "must be an address like name@example.org of at most 254 characters")
        if password is not None and not PASSWORD_CHARS_MIN <= len(password) <= PASSWORD_CHARS_MAX:
            raise InvalidField("password", f"must be {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters")
        hashed = await self._passwords.hash(password) if password is not None else None
        user = User(user_id or new_id(), username, email, role, self._clock.now_ms())
        key = self.new_key(OwnerKind.USER, user.id, secret=key_secret) if with_key else None
        return NewUser(user, hashed, key)

    @staticmethod
    def insert_user(tx: Tx, new: NewUser) -> User:
        """Store a prepared user, and the first key if any, inside a larger command.

        Raises:
            UsernameTaken, EmailTaken: in this order; nothing is written.
        """
        store.insert_user(tx, new)
        return new.user

    async def create_user(
        self, *, username: str, email: str | None, password: str | None, role: Role = Role.BUYER, with_key: bool = False
    ) -> NewUser:
        """Prepare and store a user in a command of its own; the result includes the first key, if requested.

        Raises:
            InvalidField, TooManyRequests: as :meth:`prepare_user`.
            UsernameTaken, EmailTaken: as :meth:`insert_user`.
        """
        new = await self.prepare_user(username=username, email=email, password=password, role=role, with_key=with_key)
        await self._db.run(lambda tx: self.insert_user(tx, new))
        return new

    async def get_user(self, user_id: bytes) -> User:
        """Return one user.

        Raises:
            UnknownUser: there is none.
        """
        user = await store.user_of(self._db, user_id)
        if user is None:
            raise UnknownUser(user_id)
        return user

    async def find_user(self, username: str) -> User | None:
        """Return the user with this username, compared without regard to case."""
        return await store.user_named(self._db, username)

    async def list_users(self, limit: int = 50, offset: int = 0) -> tuple[list[User], int]:
        """Return a page of users, oldest first, and how many there are.

        Args:
            limit: 1 to 1,000.
            offset: >= 0.

        Raises:
            InvalidField: out of bounds.
        """
        if not 1 <= limit <= LIST_MAX:
            raise InvalidField("limit", f"must be between 1 and {LIST_MAX}")
        if not 0 <= offset < 1 << 63:
            raise InvalidField("offset", "must not be negative")
        return await store.users(self._db, limit, offset)

    # -- keys ----------------------------------------------------------------------------------------------------

    def new_key(
        self, owner_kind: OwnerKind, owner_id: bytes, *, key_id: bytes | None = None, secret: bytes | None = None
    ) -> NewKey:
        """Make a key of 256 bits; store it with :meth:`insert_key`.

        Args:
            secret: 32 secret bytes, so that a repeated request returns the same key; None: random.
        """
        prefix = USER_KEY_PREFIX if owner_kind is OwnerKind.USER else HOST_KEY_PREFIX
        assert secret is None or len(secret) == 32
        text = prefix + base64.urlsafe_b64encode(secret or os.urandom(32)).decode().rstrip("=")
        return NewKey(key_id or new_id(), owner_kind, owner_id, text, self._clock.now_ms())

    @staticmethod
    def insert_key(tx: Tx, key: NewKey) -> None:
        """Store a new key inside a larger command; the owner must exist."""
        store.insert_key(tx, key)

    async def create_key(self, owner_kind: OwnerKind, owner_id: bytes) -> NewKey:
        """Make and store another key of an owner, in a command of its own.

        Raises:
            UnknownUser: no such user. Whether a host exists is for the caller to check.
        """
        key = self.new_key(owner_kind, owner_id)

        def command(tx: Tx) -> None:
            if owner_kind is OwnerKind.USER and store.user_in(tx, owner_id) is None:
                raise UnknownUser(owner_id)
            store.insert_key(tx, key)

        await self._db.run(command)
        return key

    async def rotate_key(
        self, owner_kind: OwnerKind, owner_id: bytes, *, key_id: bytes | None = None, secret: bytes | None = None
    ) -> NewKey:
        """Revoke all keys of an owner and create one, in one command; the old ones stop working when it returns.

        Args:
            key_id: given if an Idempotency-Key determines it; *secret* as for :meth:`new_key`.

        Raises:
            UnknownUser: as :meth:`create_key`; nothing is revoked.
        """
        key, at_ms = self.new_key(owner_kind, owner_id, key_id=key_id, secret=secret), self._clock.now_ms()

        def command(tx: Tx) -> list[bytes]:
            if owner_kind is OwnerKind.USER and store.user_in(tx, owner_id) is None:
                raise UnknownUser(owner_id)
            digests = store.revoke_keys_of(tx, owner_id, at_ms)
            store.insert_key(tx, key)
            return digests

        self.note_revoked(await self._db.run(command))
        return key

    async def revoke_key(self, key_id: bytes, *, owner_id: bytes) -> None:
        """Revoke one key; it stops working when this returns. Revoking again changes nothing.

        Raises:
            UnknownAccessKey: no such key of this owner.
        """
        at_ms = self._clock.now_ms()
        digest = await self._db.run(lambda tx: store.revoke_key(tx, key_id, owner_id, at_ms))
        if digest is None:
            raise UnknownAccessKey(key_id)
        self.note_revoked([digest])

    async def keys_of(self, owner_id: bytes) -> list[Key]:
        """Return an owner's keys, revoked ones included, oldest first."""
        return await store.keys_of(self._db, owner_id)

    def forget_keys(self, digests: Sequence[bytes]) -> None:
        """Drop these keys from the cache: another coordinator revoked them."""
        self._revocations += 1
        for digest in digests:
            self._by_digest.discard(digest)

    def forget_all_keys(self) -> None:
        """Drop all keys from the cache: notices of revocations by other coordinators may have been lost."""
        self._revocations += 1
        self._by_digest.clear()

    def forget_owners(self, owner_ids: Collection[bytes]) -> None:
        """Drop all keys and passwords of users or hosts from the caches: their standing has changed."""
        self._revocations += 1
        self._by_digest.discard_where(lambda principal: principal.id in owner_ids)
        self._by_login.discard_where(lambda principal: principal.id in owner_ids)

    @staticmethod
    def revoke_all(tx: Tx, owner_id: bytes, at_ms: int) -> list[bytes]:
        """Revoke all keys of an owner inside a larger command; after the commit pass the digests to `note_revoked`."""
        return store.revoke_keys_of(tx, owner_id, at_ms)

    @staticmethod
    def operators(tx: Tx) -> list[bytes]:
        """Return the ids of all operators, inside a larger command."""
        return store.operators(tx)

    def note_revoked(self, digests: list[bytes]) -> None:
        """Make keys that a command has revoked stop working here, and tell the other coordinators."""
        self.forget_keys(digests)
        if digests:
            self._events.publish(KeysRevoked(digests))

    # -- authentication ------------------------------------------------------------------------------------------

    def resolve_cached(self, authorization: bytes) -> Principal | None:
        """Return who sent ``Bearer <key>`` if it is cached (below 1 us); ``None``: call :meth:`resolve`."""
        return self._by_digest.get(_sha256(authorization[7:]).digest()) if authorization[:7] == _BEARER else None

    async def resolve(self, given: Credentials) -> Principal | Anonymous:
        """Return the caller, by the first credential present: Authorization (Basic or Bearer), ``X-API-Key``,
        ``x-admin-key``, ``?api_key=``. Without any it is `Anonymous`; a wrong credential never is.

        Raises:
            NotAuthenticated: malformed, unknown, revoked, or the password is wrong.
            NotAllowed: the key given as ``x-admin-key`` is not an operator's, or an act is in force against its holder.
            TooManyRequests: too many password attempts for this username or from this address.
        """
        if given.authorization is not None:
            scheme, _, rest = given.authorization.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                return await self._by_key(rest.strip())
            if scheme.lower() == b"basic":
                return await self._by_password(rest.strip(), given.ip)
            raise NotAuthenticated("Authorization must be 'Bearer <key>' or 'Basic <username:password>'")
        if given.x_api_key is not None:
            return await self._by_key(given.x_api_key.strip())
        if given.x_admin_key is not None:
            principal = await self._by_key(given.x_admin_key.strip())
            if not principal.is_admin:
                raise NotAllowed("this key is not an operator's")
            return principal
        if given.query_key is not None:
            return await self._by_key(given.query_key.strip())
        return Anonymous(given.ip)

    async def _by_key(self, secret: bytes) -> Principal:
        if not _KEY.fullmatch(secret):
            raise NotAuthenticated("this is not a key of this server (ck_… or hk_live_…)")
        digest = _sha256(secret).digest()
        principal = self._by_digest.get(digest)
        if principal is None:
            seen = self._revocations
            found = await store.principal_of(self._db, digest)
            if found is None:
                raise NotAuthenticated("this key is unknown or revoked")
            principal, revoked = found
            refusal = await self._standing(principal, revoked)
            if refusal is not None:
                raise refusal
            if revoked:
                raise NotAuthenticated("this key is unknown or revoked")
            if seen == self._revocations:
                self._by_digest.put(digest, principal)
        return principal

    async def _by_password(self, encoded: bytes, ip: str) -> Principal:
        try:
            name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise NotAuthenticated("Basic credentials must be base64 of 'username:password' in UTF-8") from error
        if not colon or not (USERNAME.fullmatch(name) or EMAIL.fullmatch(name)) or len(password) > PASSWORD_CHARS_MAX:
            raise NotAuthenticated("wrong username or password")
        login = _sha256(self._salt + name.lower().encode() + b":" + password.encode()).digest()
        principal = self._by_login.get(login)
        if principal is None:
            self.logins.check(f"ip:{address_key(ip)}", "too many passwords tried from this address")
            self.logins.check(f"name:{name.lower()}", "too many passwords tried for this username")
            found = await store.login_of(self._db, name)
            user, hashed = found if found is not None else (None, None)
            if not await self._passwords.matches(hashed, password) or user is None:
                raise NotAuthenticated("wrong username or password")
            principal = Principal(OwnerKind.USER, user.id, user.role, None, user.username)
            refusal = await self._standing(principal, False)
            if refusal is not None:
                raise refusal
            self._by_login.put(login, principal)
        return principal
