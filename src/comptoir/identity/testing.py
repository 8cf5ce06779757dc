"""Builders for tests: quick password hashing, and credentials as in a request."""

import base64

from comptoir.events import EventHub
from comptoir.identity.passwords import Passwords
from comptoir.identity.service import Identity
from comptoir.identity.types import Credentials
from comptoir.kit.clock import Clock
from comptoir.kit.db import Database

IP = "192.0.2.1"


def make_passwords() -> Passwords:
    """Return hashing that is weak and takes a tenth of a millisecond."""
    return Passwords(memory_kib=8, passes=1, threads_max=1)


def make_identity(
    db: Database,
    clock: Clock,
    *,
    events: EventHub | None = None,
    logins_per_minute: int = 1_000,
    key_cache_size: int = 1_000,
) -> Identity:
    """Return the room with quick password hashing."""
    return Identity(
        db,
        clock,
        events=events,
        passwords=make_passwords(),
        logins_per_minute=logins_per_minute,
        key_cache_size=key_cache_size,
    )


def bearer(secret: str, *, ip: str = IP) -> Credentials:
    """Return ``Authorization: Bearer``."""
    return Credentials(ip=ip, authorization=b"Bearer " + secret.encode())


def basic(username: str, password: str, *, ip: str = IP) -> Credentials:
    """Return ``Authorization: Basic``."""
    return Credentials(ip=ip, authorization=b"Basic " + base64.b64encode(f"{username}:{password}".encode()))
