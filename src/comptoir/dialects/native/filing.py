"""Files in one request: upload, list, read, link and delete them. Uploads that go on after a cut: `tus`."""

from comptoir.blobs import (
    Blob,
    ChecksumMismatch,
    FileLinkRefused,
    FilesFull,
    FileTooLarge,
    OffsetMismatch,
    QuotaReached,
    TooManyParts,
    UnknownFile,
)
from comptoir.dialects.native.file_wire import FileQuery, FilesQuery, FilesView, FileView, LinkBody, LinkQuery, LinkView
from comptoir.dispatch import Core
from comptoir.dispatch.files import Files
from comptoir.gateway import claim, file_answer, fill
from comptoir.idempotency import IdempotencyMismatch
from comptoir.kit.http import (
    Access,
    BodyStream,
    Endpoint,
    FormFile,
    RangeNotSatisfiable,
    Reply,
    Request,
    Stream,
)
from comptoir.kit.ids import parse, public
from comptoir.kit.objects import FilesExtraMissing, StoreFull

FORM = "multipart/form-data"
RAW = "application/octet-stream"

FORM_BYTES_MAX = 1 << 20
"""What a form has beside its file at most: boundaries, heads, other fields."""

NO_TYPE = (RAW, "application/x-www-form-urlencoded")
"""Media types that say nothing: the second is what curl sends unless it is told otherwise."""

UNNAMED = "file"
"""What a file is called whose uploader does not say."""

NO_STORE = (b"cache-control", b"no-store")


def named_file(text: str) -> bytes:
    """Return the id that a path names.

    Raises:
        UnknownFile: it is none.
    """
    file_id = parse("file", text)
    if file_id is None:
        raise UnknownFile
    return file_id


def view(blob: Blob) -> FileView:
    """Show a complete file."""
    assert blob.sha256 is not None and blob.size is not None
    return FileView(
        public("file", blob.id), blob.name, blob.media, blob.size, blob.sha256.hex(), blob.created_ms, blob.expires_ms
    )


async def upload(core: Core, request: Request) -> FileView:
    """Store the body, or the file in a form; a repeat with the same Idempotency-Key gets the file of the first."""
    query: FileQuery = request.query
    blobs = core.state(Files).blobs
    media = request.header(b"content-type").partition(";")[0].strip().lower()
    is_form = media == FORM
    body = BodyStream(request, bytes_max=blobs.limits.file_bytes_max + (FORM_BYTES_MAX if is_form else 0))
    owner_id = request.principal.id
    bound = await claim(core, request, scope=f"{query.name}\n{query.sha256}")
    if bound is not None and not bound.first:
        try:
            found = await blobs.find(bound.resource_id, owner_id=owner_id)
            if found.complete:
                return view(found)
            # Whoever began it is gone, or will find it gone.
            await blobs.delete(found.id, owner_id=owner_id)
        except UnknownFile:
            pass  # It came to nothing, or was deleted since: now it is uploaded.
    name, said, size = query.name, "" if media in NO_TYPE else media, body.declared
    source: BodyStream | FormFile = body
    if is_form:
        source = form = FormFile(request, body)
        await form.begin()
        name, said, size = name or form.name, form.media, None
    elif size is None and b"transfer-encoding" not in request.headers:
        size = 0
    blob = await blobs.begin(
        owner_id=owner_id,
        name=name or UNNAMED,
        media=said,
        size=size,
        expected=bytes.fromhex(query.sha256) or None,
        file_id=bound.resource_id if bound is not None else None,
    )
    if not blob.complete:
        blob = await fill(core, request, source, blobs=blobs, blob=blob, whole=True)
    return view(blob)


async def files(core: Core, request: Request) -> FilesView:
    """Return a page of the caller's files."""
    query: FilesQuery = request.query
    blobs, owner_id = core.state(Files).blobs, request.principal.id
    before = parse("file", query.before) if query.before else None
    found = await blobs.page(owner_id, limit=query.limit + 1, before=before)
    shown = [view(blob) for blob in found[: query.limit]]
    used, limits = await blobs.usage(owner_id), blobs.limits
    return FilesView(
        shown,
        shown[-1].id if len(found) > query.limit else None,
        used.bytes_counted,
        limits.files_bytes_per_owner_max,
        used.files_counted,
        limits.files_per_owner_max,
    )


async def read(core: Core, request: Request) -> Reply | Stream:
    """Send a file of the caller's, or a part of it."""
    blobs = core.state(Files).blobs
    blob = await blobs.find(named_file(request.params["id"]), owner_id=request.principal.id)
    if not blob.complete:
        raise UnknownFile
    return await file_answer(core, request, blobs, blob)


async def follow_link(core: Core, request: Request) -> Reply | Stream:
    """Send a file, or a part of it, to whoever has a signed link."""
    query: LinkQuery = request.query
    blobs, file_id = core.state(Files).blobs, named_file(request.params["id"])
    blobs.check(file_id, until_ms=query.until_ms, signature=query.signature)
    blob = await blobs.find(file_id)
    return await file_answer(core, request, blobs, blob)


async def link(core: Core, request: Request) -> LinkView:
    """Sign a link to a file of the caller's."""
    body: LinkBody = request.body
    blobs, text = core.state(Files).blobs, request.params["id"]
    blob = await blobs.find(named_file(text), owner_id=request.principal.id)
    if not blob.complete:
        raise UnknownFile
    until_ms, signature = blobs.sign(blob, lasts_s=body.lasts_s)
    path = f"/house/links/{text}?until_ms={until_ms}&signature={signature}"
    return LinkView(core.settings.public_url.rstrip("/") + path, until_ms)


async def delete(core: Core, request: Request) -> None:
    """Delete a file of the caller's, or give an upload up."""
    await core.state(Files).blobs.delete(named_file(request.params["id"]), owner_id=request.principal.id)


STORING = (FileTooLarge, QuotaReached, FilesFull, ChecksumMismatch, TooManyParts, StoreFull)
"""Why an upload may be refused, beside what is wrong with its request."""

_READING = (UnknownFile, RangeNotSatisfiable, FilesExtraMissing)
_PART = "Range and If-Range give a part (206), If-None-Match asks whether it has changed (304)."

FILING = (
    Endpoint(
        "POST", "/files", upload, Access.BUYER, "Upload a file: the body itself, or the file of a form.",
        query=FileQuery, streams=(RAW, FORM), response=FileView, status=201, idempotent=True,
        errors=(FilesExtraMissing, IdempotencyMismatch, UnknownFile, OffsetMismatch, *STORING),
        description="One that breaks off is given up; /house/uploads takes uploads that go on after a cut.",
    ),
    Endpoint(
        "GET", "/files", files, Access.BUYER, "List your files, newest first.", query=FilesQuery, response=FilesView,
        errors=(FilesExtraMissing,), reads=True,
    ),
    Endpoint(
        "GET", "/files/{id}", read, Access.BUYER, "Read a file, or a part of it.", media=RAW, also=(206, 304),
        errors=_READING, description=_PART,
    ),
    Endpoint(
        "HEAD", "/files/{id}", read, Access.BUYER, "Ask for a file's size, name and SHA-256 (ETag).", media=RAW,
        also=(304,), errors=(UnknownFile, FilesExtraMissing),
    ),
    Endpoint(
        "DELETE", "/files/{id}", delete, Access.BUYER, "Delete a file.", status=204,
        errors=(UnknownFile, FilesExtraMissing),
    ),
    Endpoint(
        "POST", "/files/{id}/link", link, Access.BUYER, "Make a link with which anybody may read a file for a while.",
        request=LinkBody, response=LinkView, errors=(UnknownFile, FilesExtraMissing), example={"lasts_s": 3600},
    ),
    Endpoint(
        "GET", "/links/{id}", follow_link, Access.PUBLIC, "Read a file by a signed link.", query=LinkQuery, media=RAW,
        also=(206, 304), errors=(FileLinkRefused, *_READING), description=_PART,
    ),
    Endpoint(
        "HEAD", "/links/{id}", follow_link, Access.PUBLIC, "Ask for a linked file's size, name and SHA-256 (ETag).",
        query=LinkQuery, media=RAW, also=(304,), errors=(FileLinkRefused, UnknownFile, FilesExtraMissing),
    ),
)  # fmt: skip
"""Endpoints of files."""
