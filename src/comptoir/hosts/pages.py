"""Pages of the fleet's hosts."""

from collections.abc import Iterable
from itertools import islice

from comptoir.hosts.host import Host


def first_of(hosts: Iterable[Host], status: str | None, *, limit: int, offset: int) -> list[Host]:
    """Return *limit* hosts with this status (None: any) behind *offset* others; the walk ends with the last of them."""
    return list(islice((host for host in hosts if status in (None, host.status)), offset, offset + limit))


def matching(hosts: Iterable[Host], *, status: str | None, model: str | None, owner_id: bytes | None) -> list[Host]:
    """Return those hosts that are what is asked for; None asks for nothing."""
    return [
        host
        for host in hosts
        if status in (None, host.status)
        and (model is None or model in host.candidates)
        and owner_id in (None, host.row.owner_id)
    ]
