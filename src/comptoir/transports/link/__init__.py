"""Link: the WebSocket that our own worker keeps open, over which all its jobs go."""

from comptoir.transports.link.session import Session, follow_loss, say_goodbye

__all__ = ["Session", "follow_loss", "say_goodbye"]
