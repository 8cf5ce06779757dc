"""What the containers of a host here report about themselves: accepted if it can be passed on verbatim."""

from collections.abc import Mapping

from comptoir.dispatch import Core
from comptoir.events import HostResources
from comptoir.hosts import Host
from comptoir.kinds import BadExtra, read_extra

RESOURCES_BYTES_MAX = 64 * 1024
"""Most bytes that a container may report about itself or a model."""

HOST_RESOURCES_BYTES_MAX = 1024 * 1024
"""Most bytes that all containers of one host may report about themselves; anybody may register a host."""


def is_relayable(body: bytes) -> bool:
    """Tell whether a container's report *body* can be passed on: a JSON object that is not too large."""
    if not body:
        return False
    try:
        read_extra(body, dict, bytes_max=RESOURCES_BYTES_MAX)
    except BadExtra:
        return False
    return True


def note_resources(core: Core, host: Host, of: Mapping[str, bytes]) -> None:
    """Replace what the containers of a host here report about themselves, and publish the change."""
    offered = {offer.name for offer in host.row.models if offer.container is not None}
    said, size = {}, 0
    for name, body in of.items():
        size += len(body)
        if name in offered and size <= HOST_RESOURCES_BYTES_MAX and is_relayable(body):
            said[name] = body
    core.fleet.catalog.set_resources(host.id, said)
    core.events.publish(HostResources(host.id, said))
