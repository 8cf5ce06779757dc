"""The body of a request: read within its limit, and decoded. A large one is worked on in turns of the event loop."""

import asyncio
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Any

from comptoir.kit.errors import InvalidField, Unavailable
from comptoir.kit.http.bounds import AGAIN_AFTER_S, PIECE_BYTES
from comptoir.kit.http.cork import body_at_hand
from comptoir.kit.http.encodings import (
    CONTENT_ENCODING,
    FED_BYTES,
    UnsupportedEncoding,
    encoding_of,
    unpacked_step_by_step,
)
from comptoir.kit.http.errors import PayloadTooLarge, TooSlow, UnsupportedBody, read_json
from comptoir.kit.http.request import CONNECTION, Request
from comptoir.kit.http.spelling import TooManyFractions, is_spelling, spelled_step_by_step
from comptoir.kit.http.turns import TURN_BYTES
from comptoir.kit.http.values import STEP_BYTES, VALUE_BYTES, VALUES_MAX, values_step_by_step
from comptoir.kit.ratelimit import address_key

JOINED_ASIDE_BYTES = 2 << 20
"""A body of this size or more is joined in a thread, without Python's lock: the pages of 15 MB alone take 8 ms."""

LARGE_BYTES = 4 * PIECE_BYTES
"""A body of this size or more waits for a turn to be joined, to be decoded and to be handled: of 15 MB each takes some
10 ms."""

SPELLED_COST_BYTES = 64
"""What a piece costs beside its bytes when numbers are spelled anew."""


async def read_body(request: Request, decode: Callable[[bytes], Any] | None, limit: int) -> None:
    """Read the body into ``request.raw`` and, with *decode*, into ``request.body``.

    What is compressed is unpacked, a byte order mark is left out, and where a type says ``int`` a whole number may be
    spelled ``1.0``. What can be refused by the head is refused before a client that asks (``Expect: 100-continue``)
    sends the body.

    Raises:
        UnsupportedEncoding: it is compressed with something that is not taken.
        PayloadTooLarge: it has more than *limit* bytes, or becomes more when it is unpacked.
        TooSlow: it broke off, or comes too slowly.
        UnsupportedBody: it has too many values, or *decode* does not take it.
        Unavailable: too many large bodies are under way.
    """
    connection = request.scope.get(CONNECTION)
    if connection is not None and not connection.entered:
        _charge_caller(request, connection)
    encoding = encoding_of(request) if CONTENT_ENCODING in request.headers else ""
    body = body_at_hand(request.receive)
    if body is None:
        body = await _received(request, connection, limit)
    if connection is not None and connection.failure is not None:
        raise connection.failure
    if len(body) > limit:
        raise PayloadTooLarge(limit)
    if encoding and body:
        body = await _unpacked(connection, encoding, body, limit)
    if body.startswith(BOM_UTF8):
        body = body[len(BOM_UTF8) :]
    request.raw = body
    if len(body) >= LARGE_BYTES:
        await _expand(connection, body)
    if decode is not None:
        try:
            request.body = read_json(decode, body)
        except InvalidField as refusal:
            if not is_spelling(refusal) or (spelled := await _spelled(connection, body)) is None:
                raise
            request.raw = body = spelled
            request.body = read_json(decode, body)
        if len(body) >= LARGE_BYTES:
            await _turn(connection, len(body))


def _charge_caller(request: Request, connection: Any) -> None:
    """Count what comes over a proxy's *connection* as the bytes of the caller that it speaks for."""
    if request.address != request.peer:
        connection.charge(address_key(request.address))


def _declared(request: Request, limit: int) -> int | None:
    """Return the bytes of body that the head says; None: it does not.

    Raises:
        PayloadTooLarge: they are more than *limit*.
    """
    text = request.headers.get(b"content-length", b"")
    declared = int(text) if text.isdigit() else None
    if declared is not None and declared > limit:
        raise PayloadTooLarge(limit)
    return declared


async def _received(request: Request, connection: Any, limit: int) -> bytes:
    """Wait for a body that did not come with its head, unless the head says that it is too large."""
    _declared(request, limit)
    message = await request.receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        return await _rest(request, connection, body, limit)
    if message["type"] == "http.disconnect":
        raise TooSlow("the body broke off")
    return body


async def _rest(request: Request, connection: Any, first: bytes, limit: int) -> bytes:
    """Read on after the *first* piece; return the whole."""
    pieces, size, more = [first], len(first), True
    while more:
        if size > limit:
            raise PayloadTooLarge(limit)
        if connection is not None and connection.failure is not None:
            raise connection.failure
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise TooSlow("the body broke off")  # To nobody; what came of it is not taken for all of it.
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        more = message.get("more_body", False)
    return await _joined(connection, pieces, size)


async def _joined(connection: Any, pieces: list[bytes], size: int) -> bytes:
    if size >= LARGE_BYTES:
        await _turn(connection, size)
    return b"".join(pieces) if size < JOINED_ASIDE_BYTES else await asyncio.to_thread(b"".join, pieces)


async def _unpacked(connection: Any, encoding: str, body: bytes, limit: int) -> bytes:
    """Return what a compressed *body* becomes, counted with the bodies while it grows."""
    pieces, size = [], 0
    for piece in unpacked_step_by_step(encoding, body):
        size += len(piece)
        if size > limit:
            raise PayloadTooLarge(limit)
        if connection is not None and not connection.count_more(len(piece)):
            raise Unavailable("too many large bodies are under way; try again", retry_after_s=AGAIN_AFTER_S)
        pieces.append(piece)
        await _turn(connection, len(piece) + min(len(body), FED_BYTES))
    return await _joined(connection, pieces, size)


async def _spelled(connection: Any, body: bytes) -> bytes | None:
    """Return *body* with whole numbers spelled as such; None: it has too many of the others."""
    pieces, since = [], 0
    try:
        for piece in spelled_step_by_step(body):
            pieces.append(piece)
            since += min(len(piece), FED_BYTES) + SPELLED_COST_BYTES
            if since >= FED_BYTES:
                since = 0
                await _turn(connection, TURN_BYTES)
    except TooManyFractions:
        return None
    return await _joined(connection, pieces, len(body))


async def _expand(connection: Any, body: bytes) -> None:
    """Count what becomes of a large body, then wait for a turn to decode it."""
    values = 0
    for so_far in values_step_by_step(body):
        values = so_far
        await _turn(connection, STEP_BYTES)
    if values > VALUES_MAX:
        raise UnsupportedBody(f"the body has {values:,} values, and {VALUES_MAX:,} are allowed")
    if connection is not None and not connection.count_more(values * VALUE_BYTES):
        raise Unavailable("too many large bodies are under way; try again", retry_after_s=AGAIN_AFTER_S)
    await _turn(connection, len(body))


async def _turn(connection: Any, size: int) -> None:
    """Wait for a turn in which *size* bytes may be worked on; a connection that is not counted never waits."""
    if connection is not None and (turn := connection.turns.spend(connection.key, size)) is not None:
        await turn


class BodyStream:
    """The body of a request, read as it comes and kept by nobody here (`Endpoint.streams`).

    What is not read waits in the connection, which then takes no more from its client.
    """

    def __init__(self, request: Request, *, bytes_max: int) -> None:
        """Look at the head; nothing is read yet.

        Raises:
            UnsupportedEncoding: the body is compressed.
            PayloadTooLarge: the head says that it has more than *bytes_max* bytes.
        """
        self._request = request
        self._connection = connection = request.scope.get(CONNECTION)
        if connection is not None and not connection.entered:
            _charge_caller(request, connection)
        if CONTENT_ENCODING in request.headers and encoding_of(request):
            raise UnsupportedEncoding(request.header(CONTENT_ENCODING))
        self.bytes_max = bytes_max
        self.size = 0
        """Bytes that were read."""
        self.declared = _declared(request, bytes_max)
        """Bytes that the head says; None: it does not."""
        self._more = True

    async def read(self, *, within_s: float | None = None) -> bytes:
        """Return what came since the last call, empty at the end.

        Raises:
            TimeoutError: nothing came for *within_s* seconds; read on.
            PayloadTooLarge: with it the body has more than *bytes_max* bytes.
            TooSlow: it broke off, or comes too slowly.
        """
        connection = self._connection
        while self._more:
            if connection is not None and connection.failure is not None:
                raise connection.failure
            async with asyncio.timeout(within_s):
                message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise TooSlow("the body broke off")
            if connection is not None:
                connection.release_body()
            body: bytes = message.get("body", b"")
            self._more = message.get("more_body", False)
            self.size += len(body)
            if self.size > self.bytes_max:
                raise PayloadTooLarge(self.bytes_max)
            if body:
                return body
        if connection is not None and connection.failure is not None:
            raise connection.failure
        return b""
