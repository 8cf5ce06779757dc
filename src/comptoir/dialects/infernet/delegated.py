"""Delegated subscriptions: parsed exactly, signature verified, then refused, since no chain is supported yet."""

from comptoir.chain import Domain, SignatureExpired, containers_id, parse_delegated, recover
from comptoir.containers import ContainerRefused
from comptoir.dialects.infernet.wire import ContainerSet, ContainerSetQuery
from comptoir.dispatch import Core
from comptoir.kit.http import Request


def delegate(core: Core, body: bytes) -> None:
    """Check a delegated subscription; always raises so far.

    Raises, in the order they are checked:
        InvalidField: a field is missing, of the wrong type or beyond its limit.
        OldSubscription: the fields are those of before Infernet 1.0.
        ContainerRefused: the signature has expired. ChainRefusal: no key can have made it; both only where a domain is
            known.
        ContainerRefused: no chain is enabled.
    """
    asked = parse_delegated(body)
    domain = _domain(core)
    if domain is not None:
        try:
            recover(domain, asked.subscription, asked.signature, now_s=core.clock.now_ms() // 1000)
        except SignatureExpired as expired:
            raise ContainerRefused("Signature expired") from expired
    raise ContainerRefused("Chain not enabled")


def _domain(core: Core) -> Domain | None:
    settings = core.settings
    if not settings.infernet_chain_id:
        return None
    return Domain(chain_id=settings.infernet_chain_id, verifying_contract=settings.infernet_coordinator)


async def container_set(core: Core, request: Request) -> ContainerSet:
    """Compute the hash by which contracts name a set of containers; no list of all sets is kept."""
    query: ContainerSetQuery = request.query
    names = query.containers.split(",")
    return ContainerSet(names, "0x" + containers_id(names).hex())
