"""Files on their way to a reader: the whole, a part, or nothing but the head, and nothing that runs in a page."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from email.utils import formatdate

from comptoir.blobs import Blob, Blobs, disposition, served_media
from comptoir.dispatch import Core
from comptoir.dispatch.files import Files
from comptoir.gateway.traffic import Connections
from comptoir.kit.errors import Unavailable
from comptoir.kit.http import ByteBudget, Reply, Request, Stream, StreamAborted, is_known, range_asked
from comptoir.kit.ratelimit import address_key

CHUNK_BYTES_MAX = 512 << 10
"""What one reader has in memory at a time, counted with what is made for readers (``readers_bytes_max``)."""

INERT = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Headers with which a file runs nothing in the page's origin, whatever is in it and however it is opened."""


async def file_answer(core: Core, request: Request, blobs: Blobs, blob: Blob) -> Reply | Stream:
    """Answer GET or HEAD of a complete file.

    Raises:
        RangeNotSatisfiable: the range has none of its bytes.
        Unavailable: the store is out of reach, or too much waits to be read.
    """
    assert blob.sha256 is not None and blob.size is not None
    etag = b'"%s"' % blob.sha256.hex().encode()
    headers: tuple[tuple[bytes, bytes], ...] = (
        (b"etag", etag),
        (b"accept-ranges", b"bytes"),
        (b"last-modified", formatdate(blob.created_ms // 1000, usegmt=True).encode()),
        (b"cache-control", b"private, no-cache"),
        *INERT,
    )
    if is_known(request, etag):
        return Reply(304, headers=headers)
    wanted = range_asked(request, size=blob.size, etag=etag) if request.method == "GET" else None
    start, end = wanted or (0, blob.size)
    status = 200
    if wanted is not None:
        status = 206
        headers += ((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, blob.size)),)
    headers += ((b"content-disposition", disposition(blob.name).encode("ascii")),)
    pieces = _nothing() if request.method == "HEAD" else _pieces(core, request, blobs.read(blob, start, end))
    first = await anext(pieces, b"")  # While a refusal can still be said.
    return Stream(
        _from(first, pieces), media=served_media(blob.media), headers=headers, status=status, length=end - start
    )


async def _nothing() -> AsyncGenerator[bytes, None]:
    nothing: tuple[bytes, ...] = ()
    for piece in nothing:
        yield piece


async def _from(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(rest):
            yield first
            async for piece in rest:
                yield piece
    except Unavailable as away:
        raise StreamAborted(away.message) from away


async def _pieces(core: Core, request: Request, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield *chunks*, each when there is room for it, and give that back when it was taken."""
    budget: ByteBudget = core.state(Connections).traffic.readers
    files = core.state(Files)
    key = address_key(request.address)
    async with aclosing(chunks):
        while True:
            counted = await budget.reserve(key, CHUNK_BYTES_MAX, timeout_s=core.settings.reader_stall_s)
            try:
                chunk = await anext(chunks, b"")
                if not chunk:
                    return
                files.count_out(len(chunk))
                yield chunk
            finally:
                budget.give(key, counted)
