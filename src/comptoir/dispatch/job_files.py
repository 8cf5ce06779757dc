"""Files of jobs: those that an order names are looked up and kept for it, and a host finds them under its lease.

An input is kept in the command that writes its job (`dispatch.submit`), so that there is no job without what it needs,
and nothing is kept for a job that is not there. What a job makes is kept from the first byte. Both end with the job
(`dispatch.release_files`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from comptoir.blobs import Blob, Kept, MadeFor, UnknownFile
from comptoir.dispatch.core import Core
from comptoir.dispatch.files import Files
from comptoir.jobs import JobState, NotYourLease, UnknownJob
from comptoir.kinds import Kind
from comptoir.kinds.named_files import ARTIFACTS_MAX, InputFile
from comptoir.kit.errors import InvalidField
from comptoir.kit.ids import parse, public
from comptoir.kit.urlguard import UrlGuard


def keeper_of(job_id: bytes) -> str:
    """Return the name by which a job needs its files (`Blobs.keep`)."""
    return public("job", job_id)


def job_of(keeper: str) -> bytes | None:
    """Return the job that needs files by this name; None: it is no job's."""
    return parse("job", keeper)


@dataclass(frozen=True)
class KnownInputs:
    """An order's inputs, looked up."""

    body: bytes
    """The order's body, with what is known of the files in it filled in."""
    files: tuple[bytes, ...]
    """The buyer's files that it names, by id."""


async def look_up_inputs(core: Core, kind: Kind, *, owner_id: bytes, body: bytes) -> KnownInputs:
    """Look an order's files up, and fill name, SHA-256 and size of each into its body.

    Raises:
        InvalidField: an input is neither a file nor an address, or both; the file is not there, not complete or not
            the buyer's, or other than was said; the address is none that may be called, as far as its spelling shows;
            or two inputs are called the same. Names the field of the order.
        FilesExtraMissing: no files are kept here.
    """
    guard = UrlGuard(allow_private=core.settings.allow_private_endpoint_urls)
    try:
        inputs = kind.inputs(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidField("body", str(error)) from error
    ids: dict[int, bytes] = {}
    for at, each in enumerate(inputs):
        where = _field(at)
        if bool(each.file) == bool(each.url):
            raise InvalidField(where, "needs either a file or a url")
        if each.url:
            guard.check(f"{where}.url", each.url)
        else:
            ids[at] = parse("file", each.file) or b""
    found = await core.state(Files).blobs.find_all([*filter(None, ids.values())], owner_id=owner_id) if ids else {}
    facts = {at: _with_facts(at, inputs[at], found.get(file_id)) for at, file_id in ids.items()}
    _check_names([facts.get(at, each) for at, each in enumerate(inputs)])
    return KnownInputs(kind.with_facts(body, facts), tuple(dict.fromkeys(ids.values())))


def _field(at: int) -> str:
    return f"body.inputs[{at}]"


def _with_facts(at: int, asked: InputFile, blob: Blob | None) -> InputFile:
    where = _field(at)
    if blob is None or blob.sha256 is None:
        raise InvalidField(f"{where}.file", "no such file of yours, or its upload is not complete")
    sha256 = blob.sha256.hex()
    if asked.sha256 not in (None, sha256):
        raise InvalidField(f"{where}.sha256", f"the file's is {sha256}")
    if asked.size not in (None, blob.size):
        raise InvalidField(f"{where}.size", f"the file has {blob.size} bytes")
    return msgspec.structs.replace(asked, name=asked.name or blob.name, sha256=sha256, size=blob.size)


def _check_names(inputs: Sequence[InputFile]) -> None:
    seen: dict[str, int] = {}
    for at, each in enumerate(inputs):
        name = each.called(at)
        if name in seen:
            raise InvalidField(
                f"{_field(at)}.name", f"input {seen[name]} is called {name!r} too; give one another name"
            )
        seen[name] = at


@dataclass(frozen=True)
class LeasedWork:
    """What a host that holds a lease works on, as far as files go."""

    job_id: bytes
    lease: bytes
    owner_id: bytes
    kind: Kind
    body: bytes

    @property
    def keeper(self) -> str:
        """The name by which it needs files."""
        return keeper_of(self.job_id)

    @property
    def maker(self) -> str:
        """The name by which this lease makes files for it."""
        return public("att", self.lease)


async def leased_work(core: Core, host_id: bytes, job_id: bytes, lease: bytes) -> LeasedWork:
    """Return what *host_id* holds *lease* on, whichever coordinator owns the job.

    Files are not forwarded to the owner as other requests of a host are: they are large, and all coordinators have the
    same store. Where the job is another's, the lease is what the database says.

    Raises:
        NotYourLease: the host has no such lease, or no longer; or nothing of files belongs to such a job.
        Unavailable: the database can't be asked.
    """
    job = core.jobs.live.get(job_id)
    if job is not None:
        held = not job.closing and job.lease is not None and job.lease.id == lease and job.lease.host_id == host_id
        if not held or not job.kind.files:
            raise NotYourLease
        assert job.lease is not None
        core.fleet.seen(host_id)
        job.lease.touch(core.clock.monotonic_s())  # Who fetches or delivers is at work.
        return LeasedWork(job_id, lease, job.owner_id, job.kind, job.body)
    try:
        row = await core.jobs.get(job_id, light=False)
    except UnknownJob:
        raise NotYourLease from None
    kind = core.jobs.kinds.stored(row.kind)
    if row.state != JobState.RUNNING or row.attempt_id != lease or row.host_id != host_id or not kind.files:
        raise NotYourLease
    return LeasedWork(job_id, lease, row.owner_id, kind, row.body)


async def input_of(core: Core, work: LeasedWork, number: int) -> Blob:
    """Return the file that is input *number*, also if its owner has deleted it since.

    Raises:
        UnknownFile: there is no such input, or it is an address, which the host fetches itself.
    """
    inputs = work.kind.inputs(work.body)
    file_id = parse("file", inputs[number].file) if number < len(inputs) else None
    if file_id is None:
        raise UnknownFile
    return (await core.state(Files).blobs.kept(file_id, work.keeper)).blob


async def made_under(core: Core, work: LeasedWork, file_id: bytes) -> Kept:
    """Return a file, or an upload, that was begun under this lease.

    Raises:
        UnknownFile: it was not.
    """
    kept = await core.state(Files).blobs.kept(file_id, work.keeper)
    if kept.maker != work.maker:
        raise UnknownFile
    return kept


def making(core: Core, work: LeasedWork) -> MadeFor:
    """Return for whom an upload under this lease is made, and how much that may be."""
    return MadeFor(work.keeper, work.maker, core.settings.artifacts_bytes_per_job_max, ARTIFACTS_MAX)
