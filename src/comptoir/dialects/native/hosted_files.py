"""Files of a job for the host that has it: inputs to read, and artifacts to upload, in parts that go on after a cut.

Whoever has the lease, over a link, by polling or by being called, uses the same paths, at any coordinator. They are no
part of the link's messages, which stay small.
"""

from functools import partial

from comptoir.blobs import (
    Blob,
    ChecksumMismatch,
    FilesFull,
    FileTooLarge,
    MadeTooMuch,
    OffsetMismatch,
    QuotaReached,
    TooManyParts,
    UnknownFile,
)
from comptoir.dialects.native.filing import RAW, named_file
from comptoir.dialects.native.tus import DISCOVERY, PIECE, VERSIONED, begin, given_up, go_on, look, speak_tus
from comptoir.dispatch import Core
from comptoir.dispatch.errors import NoRoomForArtifact
from comptoir.dispatch.files import Files
from comptoir.dispatch.job_files import LeasedWork, input_of, leased_work, made_under, making
from comptoir.dispatch.onboard import host_of
from comptoir.gateway import file_answer, job_named
from comptoir.hosts import UnknownHost
from comptoir.idempotency import IdempotencyMismatch
from comptoir.jobs import NotYourLease, UnknownJob
from comptoir.kit.errors import InvalidField, NotAllowed
from comptoir.kit.http import (
    Access,
    Endpoint,
    PreconditionFailed,
    RangeNotSatisfiable,
    Reply,
    Request,
    Stream,
    UnsupportedMediaType,
)
from comptoir.kit.objects import FilesExtraMissing, StoreFull
from comptoir.transports.native import lease_named

LEASE = "X-Comptoir-Lease"
"""Header with the lease's name (``att_…``)."""

NUMBER_DIGITS_MAX = 4


async def _work(core: Core, request: Request) -> LeasedWork:
    """Return what the calling host works on under the lease that it names.

    Raises:
        UnknownHost, UnknownJob, NotYourLease; InvalidField: the header is missing, or no lease's name.
    """
    lease = lease_named(request.header(LEASE.lower().encode()))
    if lease is None:
        raise InvalidField(LEASE, "must be the lease's name (att_…), in a header")
    host = await host_of(core, request.principal, None)
    return await leased_work(core, host.id, job_named(request.params["id"]), lease)


async def read_input(core: Core, request: Request) -> Reply | Stream:
    """Send an input of a job, or a part of it."""
    work = await _work(core, request)
    number = request.params["number"]
    if not number.isascii() or not number.isdigit() or len(number) > NUMBER_DIGITS_MAX:
        raise UnknownFile
    return await file_answer(core, request, core.state(Files).blobs, await input_of(core, work, int(number)))


async def _create(core: Core, request: Request) -> Reply:
    work = await _work(core, request)
    path = f"/house/host/jobs/{request.params['id']}/artifacts"
    try:
        return await begin(core, request, owner_id=work.owner_id, path=path, making=making(core, work))
    except QuotaReached as full:
        # How much of it the buyer has used is not for hosts.
        raise NoRoomForArtifact("what all files of one user may have is used up") from full
    except (MadeTooMuch, FileTooLarge, TooManyParts) as full:
        raise NoRoomForArtifact(full.message) from full


async def _find(core: Core, request: Request) -> Blob:
    work = await _work(core, request)
    return (await made_under(core, work, named_file(request.params["file"]))).blob


async def _look(core: Core, request: Request) -> Reply:
    return look(await _find(core, request))


async def _patch(core: Core, request: Request) -> Reply:
    try:
        return await go_on(core, request, await _find(core, request))
    except ChecksumMismatch:
        await _drop(core, request)
        raise


async def _give_up(core: Core, request: Request) -> Reply:
    if not await _drop(core, request):
        raise NotAllowed("the artifact is complete: it stays until the job is over, and then if a frame names it")
    return given_up()


async def _drop(core: Core, request: Request) -> bool:
    work = await _work(core, request)
    kept = await made_under(core, work, named_file(request.params["file"]))
    return await core.state(Files).blobs.give_up(kept, work.keeper)


_LEASED = f"With the lease in {LEASE}."
_HELD = (UnknownHost, UnknownJob, NotYourLease, UnknownFile, FilesExtraMissing, InvalidField)
_FULL = (NoRoomForArtifact, FilesFull, StoreFull)

HOSTED_FILES = (
    Endpoint(
        "GET", "/host/jobs/{id}/inputs/{number}", read_input, Access.HOST,
        "Read an input of a job, or a part of it, by its place in the order's inputs.", media=RAW, also=(206, 304),
        errors=(*_HELD, RangeNotSatisfiable),
        description=f"{_LEASED} Range gives a part (206), ETag is the SHA-256. An input that is an address is fetched "
        "by the host itself.",
    ),
    Endpoint(
        "HEAD", "/host/jobs/{id}/inputs/{number}", read_input, Access.HOST,
        "Ask for the size and SHA-256 (ETag) of an input.", media=RAW, also=(304,), errors=_HELD, description=_LEASED,
    ),
    Endpoint(
        "POST", "/host/jobs/{id}/artifacts", partial(speak_tus, _create), Access.HOST,
        "Begin to upload a file that a job made.", streams=(PIECE,), status=201, media=PIECE, idempotent=True,
        options=DISCOVERY,
        errors=(PreconditionFailed, IdempotencyMismatch, OffsetMismatch, ChecksumMismatch, *_FULL, *_HELD),
        description=f"{_LEASED} {VERSIONED} Upload-Length is needed, and in Upload-Metadata filename; filetype and "
        "sha256 (in hexadecimal digits) may be there. A body is taken as its first bytes.",
    ),
    Endpoint(
        "HEAD", "/host/jobs/{id}/artifacts/{file}", partial(speak_tus, _look), Access.HOST,
        "Ask how much of an artifact has come.", media=PIECE, errors=(PreconditionFailed, *_HELD),
        description=f"{_LEASED} {VERSIONED}",
    ),
    Endpoint(
        "PATCH", "/host/jobs/{id}/artifacts/{file}", partial(speak_tus, _patch), Access.HOST,
        "Go on with the upload of an artifact.", streams=(PIECE,), status=204, options=DISCOVERY,
        errors=(
            PreconditionFailed, *_HELD, UnsupportedMediaType, OffsetMismatch, ChecksumMismatch, TooManyParts, FilesFull,
            StoreFull,
        ),
        description=f"{_LEASED} {VERSIONED} Upload-Offset says where the body begins.",
    ),
    Endpoint(
        "DELETE", "/host/jobs/{id}/artifacts/{file}", partial(speak_tus, _give_up), Access.HOST,
        "Give the upload of an artifact up, so that it no longer counts.", status=204,
        errors=(PreconditionFailed, NotAllowed, *_HELD), description=f"{_LEASED} {VERSIONED}",
    ),
)  # fmt: skip
"""Endpoints of a job's files, for its host."""
