"""Names in quarantine: nobody is offered them, whichever host has them; hosts keep their other offers."""

from collections.abc import Iterable

from comptoir.hosts.fleet import Fleet
from comptoir.hosts.types import ACTIVE


def quarantine(fleet: Fleet, names: Iterable[str]) -> None:
    """Offer none of *names*, and again what was in quarantine before and is not among them; idempotent.

    Jobs that run go on. Costs a look at the hosts of each new name, and at all hosts when a name is released.
    """
    before, now = fleet.quarantined, frozenset(names)
    fleet.quarantined = now
    for name in now - before:
        known = fleet.free_list(name)
        for host in [fleet.get(host_id) for host_id in known.all] if known is not None else []:
            if host.status == ACTIVE:
                fleet.catalog.count(tuple([one for one in host.row.models if one.name == name]), -1)
            host.keep_offers(now)
            fleet._withdraw(host, name)
    released = before - now
    for host in fleet if released else ():
        again = tuple([one for one in host.row.models if one.name in released])
        if again:
            host.keep_offers(now)
            fleet._offer(host, again)
            if host.status == ACTIVE:
                fleet.catalog.count(again, 1)
            fleet._place(host)
