"""Onboard: register users and hosts, each with record, key, account and credit in one command."""

import msgspec

from comptoir.dispatch.assign import assign_waiting
from comptoir.dispatch.core import Core
from comptoir.dispatch.meters import Meters
from comptoir.events import CreditAdded, Events, HostHeard, HostRegistered
from comptoir.hosts import Host, NewHost, insert_host
from comptoir.identity import (
    Identity,
    InvitationRefused,
    InvitedAs,
    NewKey,
    OwnerKind,
    Principal,
    Role,
    User,
    count_signup,
    invitation_rows,
    use_invitation,
)
from comptoir.kit.db import Rows, Tx
from comptoir.kit.errors import NotAllowed
from comptoir.kit.ids import public
from comptoir.ledger import PROMOTIONS, Book, account_rows, bond_rows, put_up_bond
from comptoir.receipts import HolderKind, Receipts

DAY_MS = 24 * 3600 * 1000


class NewBuyer(msgspec.Struct, frozen=True):
    """A user who just registered."""

    user: User
    key: str
    """Shown once."""
    credit_uusd: int
    """0 also if the day's sign-ups with credit were used up."""


class NewcomerHost(msgspec.Struct, frozen=True):
    """A host that just registered."""

    host_id: bytes
    key: str
    """Shown once."""
    bond_uusd: int = 0
    """What its owner put up for it."""


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
    invitation: str | None = None,
    of_the_house: bool = False,
    address: str | None = None,
) -> NewBuyer:
    """Create a user with a key, an account and the sign-up credit, in one command, which also counts the invitation.

    Args:
        credit_uusd: sign-up credit; None: the invitation's, if it has one, else the setting ``signup_credits_uusd``.
            Operators get none.
        user_id, key_secret: given if an Idempotency-Key determines them.
        invitation: checked and counted also where none is asked for.
        of_the_house: the coordinator makes this user itself; the setting ``user_registration`` does not apply.
        address: where a stranger without an invitation signs up from: the credit is bounded by
            ``signup_credits_per_address`` and ``signup_credits_per_day``, and beyond them there is none. Empty: a
            program of this machine, bounded by the day alone. None: not bounded.

    Raises:
        NotAllowed: nobody can sign up here.
        InvitationRefused: signing up takes an invitation and none came, or the one that came is not good.
        InvalidField: username, email or password is out of bounds.
        TooManyRequests: too many passwords are being hashed.
        UsernameTaken, EmailTaken: nothing is written, and the invitation is not used.
    """
    if not of_the_house:
        _may_sign_up(core, invitation)
    if invitation is not None:
        # Before a password is hashed for nobody; what counts is the command.
        invited = await core.identity.invitations.check(invitation, InvitedAs.USER)
        credit_uusd = invited.credit_uusd if credit_uusd is None else credit_uusd
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
        if invitation is not None:
            use_invitation(tx, invitation, InvitedAs.USER, now)
        Identity.insert_user(tx, new)
        core.ledger.open_account(tx, owner_id=user.id, kind="buyer", at_ms=now)
        if not credit:
            return None
        book = Book.load(tx, (user.id, PROMOTIONS))
        if invitation is None and address is not None and not _has_credit_left(core, tx, address, now):
            return None
        given = book.move(debit=PROMOTIONS, credit=user.id, amount_uusd=credit, kind="signup", job_id=None, at_ms=now)
        added = CreditAdded(user.id, now, book.number(user.id), given, credit, "signup")
        book.apply(tx)
        Events.insert_rows(tx, [added])
        return added

    accounts = [account_rows((user.id, PROMOTIONS))] if credit else []
    added = await core.db.run(command, locks=[*accounts, *_locks_of(invitation)])
    if added is not None:
        core.events.publish(added)
    core.state(Meters).count_newcomer()
    return NewBuyer(user, new.key.secret, credit if added is not None else 0)


def _has_credit_left(core: Core, tx: Tx, address: str, now_ms: int) -> bool:
    """Tell whether one more sign-up of today gets credit, and count it; the account of promotions is locked."""
    settings = core.settings
    per_day = settings.signup_credits_per_day
    if core.ledger.signups_since(tx, now_ms - now_ms % DAY_MS, most=per_day) >= per_day:
        return False
    return not address or count_signup(tx, address=address, at_ms=now_ms, most=settings.signup_credits_per_address)


def _may_sign_up(core: Core, invitation: str | None) -> None:
    match core.settings.user_registration:
        case "closed":
            raise NotAllowed("nobody can sign up at this trading post now: ask its operator")
        case "invitation" if invitation is None:
            raise InvitationRefused(
                "signing up here takes an invitation: ask the operator for one, and send it as 'invitation'"
            )


async def add_host(
    core: Core,
    new: NewHost,
    *,
    host_id: bytes | None = None,
    key_secret: bytes | None = None,
    invitation: str | None = None,
    by_operator: bool = False,
) -> NewcomerHost:
    """Register a host with a key, an account and its signing key, in one command; waiting jobs may go there at once.

    Args:
        host_id, key_secret: given if an Idempotency-Key determines them.
        invitation: checked and counted, in the same command, also where none is asked for.
        by_operator: an operator registers it, who needs nothing else.

    Raises:
        NotAllowed: the setting ``host_registration`` asks for a user's key and none came, or there are ``hosts_max``
            hosts.
        BondNotCovered: it asks for a bond, and the owner's own free money is below ``host_bond_uusd``.
        InvitationRefused: registering takes an invitation and none came, or the one that came is not good.
        InvalidField: a field is out of bounds, or the endpoint URL points to a private network.
        KeyTaken: its signing key belongs to another host; the invitation is not used.
        HostSuspended: its owner was suspended meanwhile.
    """
    if not by_operator:
        _may_host(core, new, invitation)
    if len(core.fleet) >= core.settings.hosts_max:
        raise NotAllowed(f"this trading post takes {core.settings.hosts_max} hosts, and has as many")
    row = await core.hosts.with_standing(core.hosts.prepare(new, host_id=host_id))
    key: NewKey = core.identity.new_key(OwnerKind.HOST, row.id, secret=key_secret)
    now = core.clock.now_ms()
    owner_id, bond_uusd = new.owner_id, 0
    if core.settings.host_registration == "bond" and not by_operator:
        bond_uusd = core.settings.host_bond_uusd

    def command(tx: Tx) -> None:
        if bond_uusd:
            assert owner_id is not None, "a bond is an owner's"
            put_up_bond(tx, host_id=row.id, owner_id=owner_id, amount_uusd=bond_uusd, at_ms=now)
        if invitation is not None:
            use_invitation(tx, invitation, InvitedAs.HOST, now)
        insert_host(tx, row)
        Identity.insert_key(tx, key)
        core.ledger.open_account(tx, owner_id=row.id, kind="host", at_ms=now)
        if row.public_key is not None:
            holder = public("host", row.id)
            Receipts.register_key(tx, row.public_key, holder_kind=HolderKind.HOST, holder=holder, at_ms=now)

    bonds = bond_rows(row.id, owner_id) if bond_uusd and owner_id is not None else ()
    await core.db.run(command, locks=[*bonds, *_locks_of(invitation)])
    refusal = core.moderation.against_host(row.id, row.owner_id)
    if refusal is not None:
        raise refusal
    core.hosts.admit(row)
    # If its transport needs no connection from the host (`transports.push`), it has a channel when this returns.
    core.events.publish(HostRegistered(row.id, now))
    assign_waiting(core, row.id)
    return NewcomerHost(row.id, key.secret, bond_uusd)


def _may_host(core: Core, new: NewHost, invitation: str | None) -> None:
    match core.settings.host_registration:
        case "key" | "bond" if new.owner_id is None:
            raise NotAllowed(
                "this trading post registers hosts of known users only: send a user's key (comptoir host: set "
                "COMPTOIR_KEY)"
            )
        case "invitation" if invitation is None:
            raise InvitationRefused(
                "registering a host here takes an invitation: ask the operator for one, and send it as 'invitation' "
                "(comptoir host: set COMPTOIR_INVITATION)"
            )


def _locks_of(invitation: str | None) -> Rows:
    return [invitation_rows(invitation)] if invitation is not None else []


async def host_of(core: Core, principal: Principal, host_id: bytes | None) -> Host:
    """Return the host that *principal* authenticates; *host_id*, if the request names one, has to be the same.

    A host that registered at another coordinator is added to the fleet here, and gets a push channel from here too.

    Raises:
        NotAllowed: the key belongs to another host.
        UnknownHost: the host has been retired. HostSuspended: it is known here by now that it is suspended.
        Unavailable: the host is unknown here and the database is unavailable.
    """
    if host_id is not None and host_id != principal.id:
        raise NotAllowed("this key belongs to another host")
    if core.fleet.find(principal.id) is None and not await core.hosts.meet(principal.id):
        suspended = core.hosts.suspended.get(principal.id)
        refusal = core.moderation.against_host(principal.id, suspended.row.owner_id) if suspended is not None else None
        if refusal is not None:
            core.identity.forget_owners((principal.id,))
            raise refusal
    host = core.fleet.get(principal.id)
    if host.id not in core.channels:
        core.events.publish(HostHeard(host.id))
    return host
