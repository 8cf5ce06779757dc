"""Embeddings in the encoding that the client requested, whatever the engine used: numbers, or base64 of float32."""

import asyncio
import base64
import sys
from array import array

import msgspec

from comptoir.dialects.openai.render import usage_object
from comptoir.jobs import LiveJob

VECTORS_PER_TURN = 32
"""Vectors converted before control returns to the event loop: about 2 ms at 1,536 numbers each."""

_encode = msgspec.json.Encoder().encode
_decode_numbers = msgspec.json.Decoder(list[float]).decode


class NoVectors(Exception):
    """A host sent invalid embeddings; our own worker checks before it sends."""


class _StoredVector(msgspec.Struct):
    embedding: msgspec.Raw
    index: int = 0


class _VectorExtra(msgspec.Struct):
    data: list[_StoredVector] = []


_read = msgspec.json.Decoder(_VectorExtra).decode


async def embeddings_body(job: LiveJob, *, as_base64: bool) -> bytes:
    """Return the body of a completed embeddings job.

    Raises:
        NoVectors: the host sent something else.
    """
    try:
        return await _body(job, as_base64=as_base64)
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise NoVectors(str(error)) from error


async def _body(job: LiveJob, *, as_base64: bool) -> bytes:
    pieces: list[bytes] = []
    for frame in job.frames:
        if not frame.extra:
            continue
        for vector in _read(frame.extra).data:
            said = _spelled(vector.embedding, as_base64=as_base64)
            pieces.append(b'{"object":"embedding","index":%d,"embedding":%b}' % (vector.index, said))
            if len(pieces) % VECTORS_PER_TURN == 0:
                await asyncio.sleep(0)
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (b",".join(pieces), _encode(job.model), _usage(job))


def _spelled(raw: msgspec.Raw, *, as_base64: bool) -> bytes:
    data = bytes(raw)
    is_base64 = data.startswith(b'"')
    if is_base64 == as_base64:
        return data
    if as_base64:
        return b'"' + base64.b64encode(_little_endian(array("f", _decode_numbers(data))).tobytes()) + b'"'
    numbers = array("f")
    numbers.frombytes(base64.b64decode(msgspec.json.decode(data, type=str), validate=True))
    return _encode(_little_endian(numbers).tolist())


def _little_endian(numbers: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _usage(job: LiveJob) -> bytes:
    prompt = job.usage.prompt_tokens
    return usage_object(job, b'"prompt_tokens":%d,"total_tokens":%d' % (prompt, prompt))
