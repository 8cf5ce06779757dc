"""Push: the host has an address, and is called there with each job."""

from comptoir.transports.push.line import PushLine, pushing

__all__ = ["PushLine", "pushing"]
