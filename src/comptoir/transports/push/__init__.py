"""Push: the host has an address, to which each job is posted."""

from comptoir.transports.push.channel import pushing

__all__ = ["pushing"]
