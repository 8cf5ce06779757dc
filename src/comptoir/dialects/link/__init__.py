"""The link dialect: how our own worker talks to the coordinator (registration, pulse, and the WebSocket)."""

from comptoir.dialects.link.routes import DIALECT

__all__ = ["DIALECT"]
