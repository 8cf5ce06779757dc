"""What the containers of a host here say of themselves: taken as far as it can be handed on word for word."""

from collections.abc import Mapping

import msgspec

from comptoir.dispatch import Core
from comptoir.events import HostResources
from comptoir.hosts import Host

RESOURCES_BYTES_MAX = 64 * 1024
"""Most bytes of what a container says of itself or of a model."""

HOST_RESOURCES_BYTES_MAX = 1024 * 1024
"""Most bytes of what all containers of one host say of themselves; anybody may register a host."""

_is_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def is_relayable(body: bytes) -> bool:
    """Tell whether *body* can be handed on as a container's words: a JSON object of a size that fits."""
    if not body or len(body) > RESOURCES_BYTES_MAX:
        return False
    try:
        _is_object(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def note_resources(core: Core, host: Host, of: Mapping[str, bytes]) -> None:
    """Take what the containers of a host here say of themselves, in place of what they said before, and say so."""
    offered = {offer.name for offer in host.row.models if offer.container is not None}
    said, size = {}, 0
    for name, body in of.items():
        size += len(body)
        if name in offered and size <= HOST_RESOURCES_BYTES_MAX and is_relayable(body):
            said[name] = body
    core.fleet.catalog.set_resources(host.id, said)
    core.events.publish(HostResources(host.id, said))
