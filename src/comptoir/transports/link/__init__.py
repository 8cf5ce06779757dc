"""Link: the WebSocket that our own worker keeps open, over which all its jobs go."""

from comptoir.transports.link.session import Session, say_goodbye

__all__ = ["Session", "say_goodbye"]
