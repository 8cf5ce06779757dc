"""Push: the host has an address, and is called there with each job."""

from comptoir.transports.push.channel import pushing

__all__ = ["pushing"]
