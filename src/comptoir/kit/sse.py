"""Server-sent events: the one writer that every dialect's streams go through."""

PING = b": ping\n\n"
"""A comment line; legal in every client, keeps idle connections open."""

DONE = b"data: [DONE]\n\n"


def event(data: bytes, *, name: str = "", id: int | None = None) -> bytes:
    """Return one event; *data* is one line (JSON)."""
    head = b""
    if name:
        head += b"event: " + name.encode() + b"\n"
    if id is not None:
        head += b"id: %d\n" % id
    return head + b"data: " + data + b"\n\n"


def last_event_id(text: str) -> int | None:
    """Read a ``Last-Event-ID`` header: the number of the last event seen, None when absent.

    Raises:
        ValueError: it is not one of ours (a whole number >= 0).
    """
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise ValueError("must be the number of an event of this stream")
    return int(text)
