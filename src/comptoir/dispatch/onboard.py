"""Onboard: people and hosts come in. Each arrives whole: record, key, account and credit in one command."""

import msgspec

from comptoir.dispatch.assign import assign_waiting
from comptoir.dispatch.core import Core
from comptoir.dispatch.meters import Meters
from comptoir.events import CreditAdded, Events, HostHeard, HostRegistered
from comptoir.hosts import Host, NewHost, insert_host
from comptoir.identity import Identity, NewKey, OwnerKind, Principal, Role, User
from comptoir.kit.db import Tx
from comptoir.kit.errors import NotAllowed
from comptoir.kit.ids import public
from comptoir.ledger import PROMOTIONS, Book, account_rows
from comptoir.receipts import HolderKind, Receipts


class NewBuyer(msgspec.Struct, frozen=True):
    """A user who just came in."""

    user: User
    key: str
    """Shown once."""
    credit_uusd: int


class NewcomerHost(msgspec.Struct, frozen=True):
    """A host that just came in."""

    host_id: bytes
    key: str
    """Shown once."""


async def add_user(
    core: Core,
    *,
    username: str,
    email: str | None,
    password: str | None,
    role: Role = Role.BUYER,
    credit_uusd: int | None = None,
    user_id: bytes | None = None,
    key_secret: bytes | None = None,
) -> NewBuyer:
    """Create a user with a key, an account and the sign-up credit, in one command.

    Args:
        credit_uusd: what the operator gives; None is the setting ``signup_credits_uusd``, operators get nothing.
        user_id, key_secret: chosen before, when an Idempotency-Key names them.

    Raises:
        InvalidField: username, email or password is out of bounds.
        TooManyRequests: too many passwords are being hashed.
        UsernameTaken, EmailTaken: nothing is written.
    """
    new = await core.identity.prepare_user(
        username=username,
        email=email,
        password=password,
        role=role,
        with_key=True,
        user_id=user_id,
        key_secret=key_secret,
    )
    assert new.key is not None
    if credit_uusd is None:
        credit_uusd = core.settings.signup_credits_uusd if role == Role.BUYER else 0
    user, now, credit = new.user, core.clock.now_ms(), credit_uusd

    def command(tx: Tx) -> CreditAdded | None:
        Identity.insert_user(tx, new)
        core.ledger.open_account(tx, owner_id=user.id, kind="buyer", at_ms=now)
        if not credit:
            return None
        book = Book.load(tx, (user.id, PROMOTIONS))
        given = book.move(debit=PROMOTIONS, credit=user.id, amount_uusd=credit, kind="signup", job_id=None, at_ms=now)
        added = CreditAdded(user.id, now, book.number(user.id), given, credit, "signup")
        book.apply(tx)
        Events.insert_rows(tx, [added])
        return added

    added = await core.db.run(command, locks=[account_rows((user.id, PROMOTIONS))] if credit else ())
    if added is not None:
        core.events.publish(added)
    core.state(Meters).count_newcomer()
    return NewBuyer(user, new.key.secret, credit)


async def add_host(
    core: Core, new: NewHost, *, host_id: bytes | None = None, key_secret: bytes | None = None
) -> NewcomerHost:
    """Register a host with a key, an account and its signing key, in one command; waiting jobs may go there at once.

    Args:
        host_id, key_secret: chosen before, when an Idempotency-Key names them.

    Raises:
        InvalidField: a field is out of bounds, or the endpoint URL points inside.
        NotAllowed: open registration is off and nobody's key came with the request, or there are ``hosts_max`` hosts.
        KeyTaken: its signing key is another host's.
    """
    if new.owner_id is None and not core.settings.allow_open_host_registration:
        raise NotAllowed("this trading post registers hosts of known users only: send a user's key")
    if len(core.fleet) >= core.settings.hosts_max:
        raise NotAllowed(f"this trading post takes {core.settings.hosts_max} hosts, and has as many")
    row = core.hosts.prepare(new, host_id=host_id)
    key: NewKey = core.identity.new_key(OwnerKind.HOST, row.id, secret=key_secret)
    now = core.clock.now_ms()

    def command(tx: Tx) -> None:
        insert_host(tx, row)
        Identity.insert_key(tx, key)
        core.ledger.open_account(tx, owner_id=row.id, kind="host", at_ms=now)
        if row.public_key is not None:
            holder = public("host", row.id)
            Receipts.register_key(tx, row.public_key, holder_kind=HolderKind.HOST, holder=holder, at_ms=now)

    await core.db.run(command)
    core.hosts.admit(row)
    # Whoever reaches it by itself (`transports.push`) has a channel to it when this returns.
    core.events.publish(HostRegistered(row.id, now))
    assign_waiting(core, row.id)
    return NewcomerHost(row.id, key.secret)


async def host_of(core: Core, principal: Principal, host_id: bytes | None) -> Host:
    """Return the host that *principal* speaks for; *host_id*, when it is named in the request, has to be the same.

    One that registered at another coordinator is taken into the fleet here, and its address is called from here too.

    Raises:
        NotAllowed: the key is another host's.
        UnknownHost: it has been retired.
        Unavailable: it is unknown here and the database is out of reach.
    """
    if host_id is not None and host_id != principal.id:
        raise NotAllowed("this key belongs to another host")
    if core.fleet.find(principal.id) is None:
        await core.hosts.meet(principal.id)
    host = core.fleet.get(principal.id)
    if host.id not in core.channels:
        core.events.publish(HostHeard(host.id))
    return host
