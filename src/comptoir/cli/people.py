"""Who is there from the first start on: an operator and a demo buyer, with keys in quickstart.env."""

import asyncio
import fcntl
from pathlib import Path
from typing import NamedTuple

from comptoir.cli.quickstart import Quickstart, read_quickstart, write_quickstart
from comptoir.dispatch import Core
from comptoir.dispatch.onboard import add_user
from comptoir.identity import Anonymous, Credentials, OwnerKind, Role, User, UsernameTaken
from comptoir.kit.db import despite_loss
from comptoir.kit.errors import Refusal
from comptoir.kit.money import UUSD_PER_CREDIT

OPERATOR, DEMO_BUYER = "operator", "demo"
LOCK = "people.lock"
DEMO_CREDIT_UUSD = 100 * UUSD_PER_CREDIT


class People(NamedTuple):
    """The two, and what opens for them."""

    key: str
    admin_key: str
    buyer_id: bytes
    fresh: bool
    """They were made just now."""


async def bootstrap_users(core: Core, folder: Path) -> People:
    """Make sure that operator and demo buyer exist and that quickstart.env opens for them; idempotent.

    Keys in the file that still open are kept. Where one does not (the file was deleted, the key revoked), its owner
    gets another.
    """
    with (folder / LOCK).open("a") as lock:
        # Coordinators that share the folder come one after the other: the first makes the people, the others find them.
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        # Also where commits are missing, and the operator among them: somebody has to decide about that.
        with despite_loss():
            return await _settle_in(core, folder)


async def _settle_in(core: Core, folder: Path) -> People:
    known = read_quickstart(folder) or Quickstart()
    admin, admin_key, _ = await _person(core, OPERATOR, Role.ADMIN, known.admin_key)
    buyer, key, fresh = await _person(core, DEMO_BUYER, Role.BUYER, known.key)
    assert admin.role is Role.ADMIN
    if (key, admin_key) != (known.key, known.admin_key):
        # Written before anybody is served, so that no key exists only in memory; the address follows once it is known.
        write_quickstart(folder, Quickstart(known.url, key, admin_key))
    return People(key, admin_key, buyer.id, fresh)


async def _person(core: Core, name: str, role: Role, key: str) -> tuple[User, str, bool]:
    user = await core.identity.find_user(name)
    if user is None:
        credit = DEMO_CREDIT_UUSD if role is Role.BUYER else 0
        try:
            made = await add_user(
                core, username=name, email=None, password=None, role=role, credit_uusd=credit, of_the_house=True
            )
        except UsernameTaken:
            # A coordinator with a folder of its own was faster.
            user = await core.identity.find_user(name)
            assert user is not None
        else:
            return made.user, made.key, True
    if not await _opens(core, key, user):
        key = (await core.identity.create_key(OwnerKind.USER, user.id)).secret
    return user, key, False


async def _opens(core: Core, key: str, user: User) -> bool:
    try:
        found = await core.identity.resolve(Credentials(ip="", authorization=f"Bearer {key}".encode()))
    except Refusal:
        return False
    return not isinstance(found, Anonymous) and found.id == user.id


def write_address(folder: Path, url: str, people: People) -> None:
    """Bring the address in quickstart.env up to date."""
    content = Quickstart(url, people.key, people.admin_key)
    if read_quickstart(folder) != content:
        write_quickstart(folder, content)
