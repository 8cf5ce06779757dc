"""Bodies that come compressed, unpacked piece by piece, so that whoever reads them can stop at any size."""

import zlib
from collections.abc import Iterator

from comptoir.kit.http.errors import HttpRefusal, UnsupportedBody, shown
from comptoir.kit.http.request import Request

CONTENT_ENCODING = b"content-encoding"

TAKEN = "gzip, deflate"
"""What a body may be compressed with."""

UNPACKED_BYTES = 256 << 10
"""Most bytes that are unpacked in one step: some 1 ms."""

FED_BYTES = 64 << 10
"""Compressed bytes that are looked at in one step, also where nothing comes of them."""

GZIP, ZLIB, BARE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
"""How zlib is told the format."""


class UnsupportedEncoding(HttpRefusal):
    """The body is compressed with something else than ``gzip`` or ``deflate``, or several times."""

    headers = ((b"accept-encoding", TAKEN.encode()),)

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"a body with 'Content-Encoding: {shown(encoding)}' is not taken; send it as it is, or with one of: {TAKEN}"
        )
        self.encoding = encoding


def encoding_of(request: Request) -> str:
    """Return what the body is compressed with; empty: nothing.

    Raises:
        UnsupportedEncoding: that is not taken.
    """
    given = b",".join([value for name, value in request.scope["headers"] if name == CONTENT_ENCODING])
    text = given.decode("latin-1")
    named = [one for one in map(str.strip, text.lower().split(",")) if one not in ("", "identity")]
    if not named:
        return ""
    encoding = named[0].removeprefix("x-")
    if len(named) > 1 or encoding not in TAKEN.split(", "):
        raise UnsupportedEncoding(text)
    return encoding


def unpacked_step_by_step(encoding: str, body: bytes) -> Iterator[bytes]:
    """Yield what *body* becomes, at most `UNPACKED_BYTES` a step; a step may yield nothing.

    Raises:
        UnsupportedBody: it is not in the format, ends too early, or goes on after its end.
    """
    inflater = zlib.decompressobj(GZIP if encoding == "gzip" else _deflate(body))
    for start in range(0, len(body), FED_BYTES):
        rest, more = body[start : start + FED_BYTES], True
        if inflater.eof:
            raise UnsupportedBody(f"the body goes on after the end of what is compressed ({encoding})")
        while more:
            try:
                piece = inflater.decompress(rest, UNPACKED_BYTES)
            except zlib.error as error:
                raise UnsupportedBody(f"the body is not {encoding}, as its Content-Encoding says") from error
            rest = inflater.unconsumed_tail
            more = not inflater.eof and (bool(rest) or len(piece) == UNPACKED_BYTES)
            yield piece
    if not inflater.eof:
        raise UnsupportedBody(f"the body ends before what is compressed does ({encoding})")
    if inflater.unused_data:
        raise UnsupportedBody(f"the body goes on after the end of what is compressed ({encoding})")


def _deflate(body: bytes) -> int:
    """Return the format of ``deflate``: zlib's, as it should be, or without its head, as some clients send it."""
    head = int.from_bytes(body[:2], "big")
    return ZLIB if head >> 8 & 0x0F == zlib.DEFLATED and head % 31 == 0 else BARE
