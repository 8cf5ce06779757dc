"""Uploads that go on after a cut: tus 1.0 (https://tus.io), with creation, creation-with-upload, expiration and
termination."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import partial

from comptoir.blobs import Blob, MadeFor, OffsetMismatch, UnknownFile
from comptoir.dialects.native.filing import NO_STORE, STORING, UNNAMED, delete, named_file
from comptoir.dispatch import Core
from comptoir.dispatch.files import Files
from comptoir.gateway import claim, fill, render_plain_error
from comptoir.idempotency import IdempotencyMismatch
from comptoir.kit.errors import InvalidField, Refusal
from comptoir.kit.http import (
    Access,
    BodyStream,
    Endpoint,
    HttpRefusal,
    PreconditionFailed,
    Reply,
    Request,
    UnsupportedMediaType,
    shown,
)
from comptoir.kit.ids import public
from comptoir.kit.objects import FilesExtraMissing

VERSION = b"1.0.0"
EXTENSIONS = b"creation,creation-with-upload,expiration,termination"
PIECE = "application/offset+octet-stream"
"""Media type of a body that goes on with an upload."""

METADATA_CHARS_MAX = 4096
"""Longest Upload-Metadata."""

LENGTH_DIGITS_MAX = 18

_RESUMABLE = (b"tus-resumable", VERSION)


def _number(request: Request, name: str) -> int:
    text = request.header(name.lower().encode())
    if not text.isascii() or not text.isdigit() or len(text) > LENGTH_DIGITS_MAX:
        raise InvalidField(name, "must be a number of bytes")
    return int(text)


def _metadata(request: Request) -> dict[str, str]:
    """Decode ``name base64, name base64``.

    Raises:
        InvalidField: it is something else.
    """
    text = request.header(b"upload-metadata")
    found = {}
    if len(text) > METADATA_CHARS_MAX:
        raise InvalidField("Upload-Metadata", f"must be at most {METADATA_CHARS_MAX} characters")
    for pair in filter(None, map(str.strip, text.split(","))):
        name, _, value = pair.partition(" ")
        try:
            found[name] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise InvalidField("Upload-Metadata", f"{shown(name)}: must be base64 of UTF-8") from error
    return found


def _standing(blob: Blob) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that say where an upload is."""
    headers = (_RESUMABLE, NO_STORE, (b"upload-offset", b"%d" % blob.stored))
    if blob.complete:
        return (*headers, (b"x-comptoir-file", public("file", blob.id).encode()))
    assert blob.expires_ms is not None
    return (*headers, (b"upload-expires", formatdate(blob.expires_ms // 1000, usegmt=True).encode()))


async def speak_tus(handler: Callable[[Core, Request], Awaitable[Reply]], core: Core, request: Request) -> Reply:
    """Serve a request of tus; what is refused says the version as well, and where the upload is if that was wrong."""
    try:
        version = request.header(b"tus-resumable")
        if version.encode() != VERSION:
            raise PreconditionFailed(
                f"'Tus-Resumable: {shown(version)}' is not spoken here; send 'Tus-Resumable: 1.0.0'",
                (b"tus-version", VERSION),
            )
        return await handler(core, request)
    except Refusal as refusal:
        reply = render_plain_error(refusal, request)
        reply.headers += (_RESUMABLE,)
        if isinstance(refusal, HttpRefusal):
            reply.headers += refusal.headers
        if isinstance(refusal, OffsetMismatch):
            reply.headers += ((b"upload-offset", b"%d" % refusal.offset),)
        return reply


async def _create(core: Core, request: Request) -> Reply:
    return await begin(core, request, owner_id=request.principal.id, path="/house/uploads")


async def begin(core: Core, request: Request, *, owner_id: bytes, path: str, making: MadeFor | None = None) -> Reply:
    """Begin an upload of *owner_id* as the request says, and say where below *path* it goes on."""
    blobs = core.state(Files).blobs
    said = _metadata(request)
    size = _number(request, "Upload-Length")
    scope = f"{size}\n{request.header(b'upload-metadata')}"
    bound = await claim(core, request, scope=scope if making is None else f"{making.maker}\n{scope}")
    digest = said.get("sha256", "")
    try:
        expected = bytes.fromhex(digest) if digest else None
    except ValueError:
        expected = b""
    if expected is not None and len(expected) != 32:
        raise InvalidField("Upload-Metadata", "sha256: must be 64 hexadecimal digits")
    blob = await blobs.begin(
        owner_id=owner_id,
        name=said.get("filename", UNNAMED),
        media=said.get("filetype", "").partition(";")[0].strip(),
        size=size,
        expected=expected,
        file_id=bound.resource_id if bound is not None else None,
        making=making,
    )
    if request.header(b"content-type") == PIECE and not blob.complete and not blob.stored:
        blob = await _take(core, request, blob)
    location = (b"location", f"{path}/{public('file', blob.id)}".encode())
    return Reply(201, headers=(location, *_standing(blob)))


async def _take(core: Core, request: Request, blob: Blob) -> Blob:
    assert blob.size is not None
    source = BodyStream(request, bytes_max=blob.size - blob.stored)
    return await fill(core, request, source, blobs=core.state(Files).blobs, blob=blob, whole=False)


async def _find(core: Core, request: Request) -> Blob:
    file_id = named_file(request.params["id"])
    blob = await core.state(Files).blobs.find(file_id, owner_id=request.principal.id)
    if blob.size is None:
        raise UnknownFile  # An upload in one request, which nobody else can go on with.
    return blob


async def _look(core: Core, request: Request) -> Reply:
    return look(await _find(core, request))


def look(blob: Blob) -> Reply:
    """Say where an upload is."""
    return Reply(200, headers=((b"upload-length", b"%d" % (blob.size or 0)), *_standing(blob)))


async def _patch(core: Core, request: Request) -> Reply:
    return await go_on(core, request, await _find(core, request))


async def go_on(core: Core, request: Request, blob: Blob) -> Reply:
    """Bring the body into an upload, and say where it is then."""
    if request.header(b"content-type") != PIECE:
        raise UnsupportedMediaType(PIECE)
    offset = _number(request, "Upload-Offset")
    if blob.stored != offset:
        raise OffsetMismatch(blob.stored)
    if not blob.complete:
        blob = await _take(core, request, blob)
    return Reply(204, headers=_standing(blob))


async def _give_up(core: Core, request: Request) -> Reply:
    await delete(core, request)
    return given_up()


def given_up() -> Reply:
    """Say that an upload was given up."""
    return Reply(204, headers=(_RESUMABLE,))


DISCOVERY = ((b"tus-version", VERSION), (b"tus-extension", EXTENSIONS), _RESUMABLE)
VERSIONED = "A request of tus 1.0: needs 'Tus-Resumable: 1.0.0'."

TUS = (
    Endpoint(
        "POST", "/uploads", partial(speak_tus, _create), Access.BUYER, "Begin an upload that can go on after a cut.",
        streams=(PIECE,), status=201, media=PIECE, idempotent=True, options=DISCOVERY,
        errors=(PreconditionFailed, FilesExtraMissing, IdempotencyMismatch, UnknownFile, OffsetMismatch, *STORING),
        description=f"{VERSIONED} Upload-Length is needed; Upload-Metadata may name filename, filetype and sha256 (in "
        "hexadecimal digits). A body is taken as its first bytes.",
    ),
    Endpoint(
        "HEAD", "/uploads/{id}", partial(speak_tus, _look), Access.BUYER, "Ask how much of an upload has come.", media=PIECE,
        errors=(PreconditionFailed, UnknownFile, FilesExtraMissing), description=VERSIONED,
    ),
    Endpoint(
        "PATCH", "/uploads/{id}", partial(speak_tus, _patch), Access.BUYER, "Go on with an upload.", streams=(PIECE,),
        status=204, options=DISCOVERY,
        errors=(PreconditionFailed, UnknownFile, FilesExtraMissing, UnsupportedMediaType, OffsetMismatch, *STORING),
        description=f"{VERSIONED} Upload-Offset says where the body begins. With the last byte the upload is a file.",
    ),
    Endpoint(
        "DELETE", "/uploads/{id}", partial(speak_tus, _give_up), Access.BUYER, "Give an upload up.", status=204,
        errors=(PreconditionFailed, UnknownFile, FilesExtraMissing), description=VERSIONED,
    ),
)  # fmt: skip
"""Endpoints of uploads that go on."""
