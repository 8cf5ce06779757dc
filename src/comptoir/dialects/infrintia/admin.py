"""The operator's lists."""

from comptoir.dialects.infrintia import wire
from comptoir.dispatch import Core
from comptoir.gateway import in_slices
from comptoir.hosts import Host
from comptoir.identity import User
from comptoir.kit.clock import iso_utc
from comptoir.kit.http import Request
from comptoir.kit.ids import public
from comptoir.kit.money import to_credits


async def users(core: Core, request: Request) -> wire.AdminUsers:
    """List users, oldest first."""
    asked: wire.PageQuery = request.query
    found, total = await core.identity.list_users(limit=asked.limit, offset=asked.offset)
    ids = [user.id for user in found]
    accounts = await core.ledger.accounts(ids)
    jobs = await core.jobs.count_by_owner(ids)

    def line(user: User) -> wire.AdminUser:
        account = accounts.get(user.id)
        free = to_credits(account.free_uusd if account is not None else 0)
        return wire.AdminUser(
            public("usr", user.id), user.username, free, jobs.get(user.id, 0), iso_utc(user.created_ms)
        )

    return wire.AdminUsers(await in_slices(line, found), total)


async def hosts(core: Core, request: Request) -> wire.AdminHosts:
    """List hosts in the order of registration, then suspended ones; earnings are the balance of the host's account."""
    asked: wire.PageQuery = request.query
    found, total = core.fleet.list_hosts(limit=asked.limit, offset=asked.offset)
    found, total = core.hosts.with_suspended(found, total, limit=asked.limit, offset=asked.offset)
    accounts = await core.ledger.accounts([host.id for host in found])

    def line(host: Host) -> wire.AdminHost:
        account = accounts.get(host.id)
        earned = to_credits(account.balance_uusd if account is not None else 0)
        seen = iso_utc(host.last_seen_ms) if host.last_seen_ms else None
        return wire.AdminHost(public("host", host.id), host.row.gpu, host.status, host.jobs_done, earned, seen)

    return wire.AdminHosts(await in_slices(line, found), total)
