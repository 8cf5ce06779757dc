"""Artifacts: a frame that says what was made is compared with what was uploaded under that lease, before it is taken.

Frames are taken without waiting for anything, so what the database has of a file is looked up before, once: frames
that name a file nobody looked for yet are not taken but say so (`FilesUnseen`), and are taken again after `look`. It
works at any coordinator and after any restart, wherever the file was uploaded; frames without files cost nothing.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar
from weakref import WeakKeyDictionary

from comptoir.blobs import Kept
from comptoir.dispatch.core import Core, State
from comptoir.dispatch.errors import BadFrame
from comptoir.dispatch.files import Files
from comptoir.dispatch.job_files import keeper_of
from comptoir.jobs import Lease, LiveJob
from comptoir.kinds.files import ARTIFACTS_MAX, Artifact, Fetched, InputFile, artifact_in, file_fetched
from comptoir.kit.errors import Unavailable
from comptoir.kit.ids import parse, public

AGAIN_S = 0.1
"""Pause before it is looked again for a file that could not be looked for."""

T = TypeVar("T")


class FilesUnseen(Exception):
    """Frames name files that were not looked for yet; nothing was taken."""

    def __init__(self, file_ids: Sequence[bytes]) -> None:
        super().__init__(f"{len(file_ids)} files are to be looked for")
        self.file_ids = file_ids


class _UnderLease:
    """What is known of the files of one lease."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.maker = public("att", lease.id)
        self.found: dict[bytes, Kept | None] = {}
        """Those looked for; None: the job has no such file. At most as many as its frames name."""
        self.named: set[bytes] = set()
        """Those that frames under this lease have named, up to frame *upto*."""
        self.upto = lease.first_frame


class Artifacts(State):
    """What is known of the files of jobs that hosts work on here."""

    def __init__(self, core: Core) -> None:
        self._of: WeakKeyDictionary[LiveJob, _UnderLease] = WeakKeyDictionary()

    def of(self, job: LiveJob) -> _UnderLease:
        """Return what is known of the files of *job*'s lease."""
        lease, known = job.lease, self._of.get(job)
        assert lease is not None, "frames come through a lease"
        if known is None or known.lease is not lease:
            known = self._of[job] = _UnderLease(lease)
        for frame in job.frames[known.upto :]:
            artifact = artifact_in(frame.extra)
            if artifact is not None:
                known.named.add(parse("file", artifact.file) or b"")
        known.upto = len(job.frames)
        return known


def check_files(core: Core, job: LiveJob, extras: Sequence[bytes]) -> None:
    """Check what new frames' *extras* say of files: that each was uploaded under the job's lease, whole, and as they
    say; and that what was fetched is what the order asked for.

    Raises:
        FilesUnseen: some were not looked for yet.
        BadFrame: one was not, or is another, or was named before; the host is to blame.
    """
    for fetched in filter(None, map(file_fetched, extras)):
        if wrong := _fetched_wrong(job.kind.inputs(job.body), fetched):
            raise BadFrame(f"input {fetched.number} is not what was to be fetched: {wrong}")
    made = [artifact for extra in extras if (artifact := artifact_in(extra)) is not None]
    if not made:
        return
    known = core.state(Artifacts).of(job)
    ids = [parse("file", artifact.file) or b"" for artifact in made]
    if len(known.named) + len(ids) > ARTIFACTS_MAX:
        raise BadFrame(f"more than {ARTIFACTS_MAX} files are said to have been made")
    unseen = [file_id for file_id in dict.fromkeys(ids) if file_id not in known.found]
    if unseen:
        raise FilesUnseen(unseen)
    named = set(known.named)
    for artifact, file_id in zip(made, ids, strict=True):
        if file_id in named:
            raise BadFrame(f"the file {artifact.file} is said to have been made twice")
        named.add(file_id)
        if wrong := _wrong(artifact, known.found[file_id], known.maker):
            raise BadFrame(f"the file {artifact.name!r} is not what was uploaded under this lease: {wrong}")


def _fetched_wrong(inputs: Sequence[InputFile], fetched: Fetched) -> str:
    asked = inputs[fetched.number] if fetched.number < len(inputs) else None
    if asked is None or not asked.url:
        return "it is no address"
    if asked.sha256 not in (None, fetched.sha256) or asked.size not in (None, fetched.size):
        return f"it has {fetched.size} bytes with the SHA-256 {fetched.sha256}"
    return ""


def _wrong(artifact: Artifact, kept: Kept | None, maker: str) -> str:
    if kept is None or kept.maker != maker:
        return f"no {artifact.file} was"
    blob = kept.blob
    if blob.sha256 is None:
        return f"{blob.stored} of {blob.size} bytes were"
    if (artifact.size, artifact.sha256) != (blob.size, blob.sha256.hex()):
        return f"{blob.size} bytes with the SHA-256 {blob.sha256.hex()} were"
    return f"its name is {blob.name!r}" if artifact.name != blob.name else ""


async def look(core: Core, job: LiveJob, unseen: FilesUnseen) -> None:
    """Look for the files that frames of *job* name.

    Raises:
        Unavailable: the database can't be asked.
    """
    lease = job.lease
    found = await core.state(Files).blobs.kept_among(unseen.file_ids, keeper_of(job.id))
    if job.lease is lease and lease is not None:
        core.state(Artifacts).of(job).found |= {file_id: found.get(file_id) for file_id in unseen.file_ids}


async def look_while_away(core: Core, job: LiveJob, unseen: FilesUnseen) -> None:
    """Look for them as soon as the database can be asked, or the job has moved on."""
    lease = job.lease
    while job.lease is lease and not job.closing:
        try:
            await look(core, job, unseen)
        except Unavailable:
            await asyncio.sleep(AGAIN_S)
            await core.db.wait_available()
        else:
            return


async def taken(core: Core, job: LiveJob, take: Callable[[], T]) -> T:
    """Return what *take* does, which takes frames: at once, or after looking for the files that they name.

    Raises:
        Unavailable: the database can't be asked. And what *take* raises.
    """
    try:
        return take()
    except FilesUnseen as unseen:
        await look(core, job, unseen)
    return take()
