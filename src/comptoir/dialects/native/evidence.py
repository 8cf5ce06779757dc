"""Evidence against a host: what it signed and what arrived, where the two contradict each other."""

from comptoir.dispatch import Core
from comptoir.hosts import HostRow, UnknownHost
from comptoir.identity import Principal
from comptoir.kit.http import Access, Endpoint, Request
from comptoir.kit.ids import parse
from comptoir.receipts import ExhibitList


async def evidence(core: Core, request: Request) -> ExhibitList:
    """Return the evidence against a host, retired or not; for operators, its owner, and the host itself."""
    row = await _host(core, request.params["id"])
    who: Principal = request.principal
    if not who.is_admin and who.id not in (row.id, row.owner_id):
        raise UnknownHost(row.id)
    return await core.receipts.evidence.of_host(row.id)


async def _host(core: Core, text: str) -> HostRow:
    host_id = parse("host", text)
    if host_id is None:
        raise UnknownHost(b"")
    return await core.hosts.read(host_id)


EVIDENCE = (
    Endpoint(
        "GET", "/hosts/{id}/evidence", evidence, Access.ANY, "List what a host signed that what arrived contradicts.",
        response=ExhibitList, errors=(UnknownHost,),
        description="Operators see every host's, owners that of their own, a host its own. Each exhibit holds two DSSE "
        "envelopes about the same frames, one signed by the host and one by the coordinator; verified with GET "
        "/house/keys alone.",
    ),
)  # fmt: skip
"""The endpoint of evidence."""
