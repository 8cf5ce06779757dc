"""Server-sent events: the one writer that every dialect's streams go through."""

PING = b": ping\n\n"
"""A comment line; legal in every client, keeps idle connections open."""

DONE = b"data: [DONE]\n\n"


_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


def one_line(json: bytes) -> bytes:
    """Return JSON that was laid out over several lines as one: its strings hold no line ends, so it says the same."""
    return json.translate(_ONE_LINE)


def event(data: bytes, *, name: str = "", id: int | None = None) -> bytes:
    """Return one event; *data* is one line (JSON)."""
    head = b""
    if name:
        head += b"event: " + name.encode() + b"\n"
    if id is not None:
        head += b"id: %d\n" % id
    return head + b"data: " + data + b"\n\n"


def numbering(restarts: int) -> bytes:
    """Return the prefix of event numbers of a stream restarted *restarts* times: nothing, or ``<restarts>.``."""
    return b"%d." % restarts if restarts else b""


def last_event_id(text: str) -> tuple[int, int] | None:
    """Read a ``Last-Event-ID`` header: how often the stream had restarted, and the event's number; None when absent.

    Raises:
        ValueError: it is not one of ours (``7``, or ``2.7`` in a stream that began anew twice).
    """
    if not text:
        return None
    restarts, _, number = text.rpartition(".")
    if not all(part.isascii() and part.isdigit() and len(part) <= 12 for part in (restarts or "0", number)):
        raise ValueError("must be the number of an event of this stream")
    return int(restarts or 0), int(number)
