"""Users: registering, viewing one's own record, changing keys."""

from comptoir.dialects.infrintia import wire
from comptoir.dispatch import Core
from comptoir.dispatch.onboard import add_user
from comptoir.gateway import claim, counted_address, once
from comptoir.identity import NewKey, OwnerKind, UnknownUser, User
from comptoir.kit.clock import iso_utc
from comptoir.kit.http import Request
from comptoir.kit.ids import public
from comptoir.kit.money import to_credits

NO_CREDIT = (
    "this account starts without credit: today's sign-ups with credit, from your address or in all, are used up. It is a "
    "full account otherwise; an operator can credit it (comptoir deposit), or invite you (comptoir invite)"
)


async def create(core: Core, request: Request) -> wire.UserMade:
    """Create a user with the sign-up credit; the key is shown once, and again only to a repeat of this request."""
    body: wire.InfrintiaNewUser = request.body
    bound = await claim(core, request)

    async def make() -> wire.UserMade:
        made = await add_user(
            core,
            username=body.username,
            email=body.email,
            password=body.password,
            invitation=body.invitation,
            user_id=bound.resource_id if bound else None,
            key_secret=bound.secret if bound else None,
            address=counted_address(request),
        )
        return _made(core, body, made.user, made.key, credit_uusd=made.credit_uusd)

    async def find() -> wire.UserMade | None:
        assert bound is not None
        try:
            user = await core.identity.get_user(bound.resource_id)
        except UnknownUser:
            return None
        key = core.identity.new_key(OwnerKind.USER, user.id, secret=bound.secret)
        return _made(core, body, user, key.secret, credit_uusd=await core.ledger.signup_credit_uusd(user.id))

    return await once(core, bound, find=find, make=make)


def _made(core: Core, body: wire.InfrintiaNewUser, user: User, key: str, *, credit_uusd: int) -> wire.UserMade:
    notice = "" if credit_uusd or body.invitation or not core.settings.signup_credits_uusd else NO_CREDIT
    return wire.UserMade(
        public("usr", user.id),
        user.username,
        body.email,
        to_credits(credit_uusd),
        iso_utc(user.created_ms),
        key,
        notice,
    )


async def me(core: Core, request: Request) -> wire.InfrintiaMe:
    """Return the caller; credits are what can be spent now, without reserved ones."""
    user = await core.identity.get_user(request.principal.id)
    account = await core.ledger.account(user.id)
    jobs = (await core.jobs.count_by_owner([user.id])).get(user.id, 0)
    return wire.InfrintiaMe(
        public("usr", user.id), user.username, to_credits(account.free_uusd), jobs, iso_utc(user.created_ms)
    )


async def rotate_key(core: Core, request: Request) -> wire.KeyMade:
    """Revoke all keys of the caller and create a new one."""
    owner_id = request.principal.id
    bound = await claim(core, request)

    async def make() -> NewKey:
        return await core.identity.rotate_key(
            OwnerKind.USER,
            owner_id,
            key_id=bound.resource_id if bound else None,
            secret=bound.secret if bound else None,
        )

    async def find() -> NewKey | None:
        assert bound is not None
        for key in await core.identity.keys_of(owner_id):
            if key.id == bound.resource_id:
                same = core.identity.new_key(OwnerKind.USER, owner_id, key_id=key.id, secret=bound.secret)
                return NewKey(key.id, OwnerKind.USER, owner_id, same.secret, key.created_ms)
        return None

    key = await once(core, bound, find=find, make=make)
    return wire.KeyMade(key.secret, iso_utc(key.created_ms))
