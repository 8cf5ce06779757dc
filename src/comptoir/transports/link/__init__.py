"""Link: the WebSocket that our own worker keeps open, and that all its jobs go through."""

from comptoir.transports.link.session import Session, say_goodbye

__all__ = ["Session", "say_goodbye"]
