"""SQL of the room of files; private to it. Commands lock in the order of the tables' names: contents, usage, files."""

from collections.abc import Sequence
from dataclasses import dataclass

from comptoir.blobs.errors import (
    ChecksumMismatch,
    FilesFull,
    FileTooLarge,
    MadeTooMuch,
    OffsetMismatch,
    QuotaReached,
    TooManyParts,
    UnknownFile,
)
from comptoir.blobs.tables import CONTENTS, FILES, KEEPS, PARTS, TRASH, USAGE
from comptoir.blobs.types import Blob, FileLimits, FilesStanding, FileUsage, Kept, MadeFor
from comptoir.kit.db import Database, Rows, Tx

EVERYBODY = bytes(16)
"""Whose row of usage counts all owners' files."""

PARTS_MAX = 32_768
"""Most objects of one upload: 2 GiB by the slowest line that is served, one object each `uploads.PART_S`."""

PARTS_READ_MAX = 64
"""Parts of a file that are looked up at a time."""

_COLUMNS = ", ".join(FILES.names)
_THERE = "(expires_ms IS NULL OR expires_ms > ?)"


@dataclass(frozen=True)
class PartRow:
    """An object of a place."""

    start: int
    size: int
    object_id: bytes


@dataclass(frozen=True, kw_only=True)
class NewPart:
    """An object that was written, about to be counted as the next of its upload."""

    blob: Blob
    part: PartRow | None
    """None: only the end is said, as nothing is left to come."""
    sha256: bytes | None
    """Of the whole, if this is its end."""
    now_ms: int


def locks_of(blob: Blob, sha256: bytes | None = None) -> Rows:
    """Return the rows that a command about *blob* decides on."""
    content = blob.sha256 or sha256
    return (
        (CONTENTS, [content] if content is not None else []),
        (USAGE, [blob.owner_id, EVERYBODY]),
        (FILES, [blob.id]),
    )


# -- counting ------------------------------------------------------------------------------------------------------


def _usage(tx: Tx, owner_id: bytes) -> tuple[FileUsage, FileUsage]:
    """Return, locked, what *owner_id* has and what all have."""
    tx.insert(USAGE, [(EVERYBODY, 0, 0), (owner_id, 0, 0)], ignore_conflicts=True)
    found = tx.select(USAGE, USAGE.names, sorted((owner_id, EVERYBODY)), lock=True)
    counted = {bytes(owner): FileUsage(size, files) for owner, size, files in found}
    return counted[owner_id], counted[EVERYBODY]


def _count(tx: Tx, owner_id: bytes, size: int, files: int) -> None:
    rows = [(owner, size, files) for owner in sorted((owner_id, EVERYBODY))]
    tx.add(USAGE, ("bytes_counted", "files_counted"), rows)


def _reserve(tx: Tx, owner_id: bytes, limits: FileLimits, *, size: int, files: int) -> None:
    """Count *size* bytes and *files* more.

    Raises:
        QuotaReached, FilesFull: that is beyond a limit; nothing is counted.
    """
    own, everybody = _usage(tx, owner_id)
    bytes_free = limits.files_bytes_per_owner_max - own.bytes_counted
    files_free = limits.files_per_owner_max - own.files_counted
    if size > bytes_free or files > files_free:
        raise QuotaReached(bytes_free=max(0, bytes_free), files_free=max(0, files_free))
    if everybody.bytes_counted + size > limits.files_bytes_max:
        raise FilesFull
    _count(tx, owner_id, size, files)


# -- writing -------------------------------------------------------------------------------------------------------


def insert(tx: Tx, blob: Blob, limits: FileLimits, making: MadeFor | None = None) -> Blob:
    """Begin an upload, with room for all that it said; an empty one is complete. One of this id that is there stays.

    Raises:
        QuotaReached, FilesFull, MadeTooMuch: there is no room for it.
    """
    known = row_of(tx, blob.id)
    if known is not None:
        return known
    if blob.sha256 is not None:
        blob = _settle_content(tx, blob, blob.sha256, blob.created_ms)
    _reserve(tx, blob.owner_id, limits, size=blob.counted, files=1)
    tx.insert(FILES, [_values(blob)])
    if making is not None:
        # Its owner's usage is locked, so that two of one keeper don't pass together.
        _check_made(tx, making, blob.counted)
        tx.insert(KEEPS, [(blob.id, making.keeper, blob.created_ms, making.maker)])
    return blob


def _check_made(tx: Tx, making: MadeFor, size: int) -> None:
    ((files, counted),) = tx.fetch(
        "SELECT count(*), COALESCE(sum(COALESCE(size, stored)), 0) FROM file_keeps JOIN files ON id = file_id "
        "WHERE keeper = ? AND made_by = ?",
        (making.keeper, making.maker),
    )
    if files >= making.files_max or counted + size > making.bytes_max:
        raise MadeTooMuch(
            bytes_free=max(0, making.bytes_max - int(counted)), files_free=max(0, making.files_max - int(files))
        )


def add_part(tx: Tx, new: NewPart, limits: FileLimits) -> Blob:
    """Count a written object as the next of its upload, and the whole as complete where *new* says so; return the
    upload, or the file.

    Raises:
        UnknownFile: the upload is not there any more.
        OffsetMismatch: another request has brought more of it, or its end, meanwhile.
        FileTooLarge, TooManyParts, QuotaReached, FilesFull: with this object it is beyond a limit.
        ChecksumMismatch: it is complete, and not what was said. In each case nothing is written.
    """
    if new.sha256 is not None:
        tx.select(CONTENTS, ("sha256",), [new.sha256], lock=True)
    owner_id = new.blob.owner_id
    if new.blob.size is None:
        _usage(tx, owner_id)
    blob = row_of(tx, new.blob.id, lock=True)
    if blob is None or not is_there(blob, new.now_ms):
        raise UnknownFile
    start = new.part.start if new.part is not None else new.blob.stored
    if blob.complete or blob.stored != start:
        raise OffsetMismatch(blob.stored)
    if blob.place != new.blob.place:
        raise UnknownFile  # It was deleted, and begun again under its id.
    stored, parts = blob.stored, blob.parts
    if new.part is not None:
        stored, parts = stored + new.part.size, parts + 1
        if blob.size is not None and stored > blob.size:
            raise FileTooLarge(blob.size, declared=True)
        if stored > limits.file_bytes_max:
            raise FileTooLarge(limits.file_bytes_max)
        if parts > PARTS_MAX:
            raise TooManyParts(PARTS_MAX)
        if blob.size is None:
            _reserve(tx, owner_id, limits, size=new.part.size, files=0)
        tx.insert(PARTS, [(blob.place, new.part.start, new.part.size, new.part.object_id)])
    blob = _with(blob, stored=stored, parts=parts, expires_ms=new.now_ms + limits.upload_ms)
    if new.sha256 is not None:
        if blob.expected is not None and blob.expected != new.sha256:
            raise ChecksumMismatch(expected=blob.expected, found=new.sha256)
        kept_to_ms = new.now_ms + limits.kept_ms if limits.kept_ms else None
        blob = _with(blob, size=stored, sha256=new.sha256, created_ms=new.now_ms, expires_ms=kept_to_ms)
        blob = _settle_content(tx, blob, new.sha256, new.now_ms)
    columns = tuple(name for name in FILES.names if name not in ("id", "owner_id"))
    tx.update(FILES, columns, [(blob.id, *(getattr(blob, name) for name in columns))])
    return blob


def _settle_content(tx: Tx, blob: Blob, sha256: bytes, now_ms: int) -> Blob:
    """Make a complete *blob* refer to its content: what came now, or the same that was there before."""
    mine = (sha256, blob.stored, blob.place)
    found = tx.select(CONTENTS, CONTENTS.names, [sha256], lock=True)
    if not found:
        if tx.insert(CONTENTS, [mine], ignore_conflicts=True):
            return blob
        # Another coordinator has just stored the same.
        found = tx.select(CONTENTS, CONTENTS.names, [sha256], lock=True)
    ((_, size, place),) = found
    assert size == blob.stored, "two contents with one SHA-256"
    _throw_away(tx, blob.place, now_ms)
    return _with(blob, place=bytes(place))


def _throw_away(tx: Tx, place: bytes, now_ms: int) -> None:
    tx.execute("DELETE FROM file_parts WHERE place = ?", (place,))
    tx.insert(TRASH, [(place, now_ms, None)], ignore_conflicts=True)


def remove(tx: Tx, blob: Blob, now_ms: int) -> bool:
    """Take a file away from its owner, and all of it where nothing needs it any more; an upload likewise.

    *blob* is what was read of it before. False: it has changed since; read it again.
    """
    return _drop(tx, blob, now_ms, due=False)


def collect(tx: Tx, blob: Blob, now_ms: int) -> bool:
    """Do the same with one that has expired; False: it has changed, or something needs it."""
    return _drop(tx, blob, now_ms, due=True)


def _drop(tx: Tx, blob: Blob, now_ms: int, *, due: bool) -> bool:
    if blob.sha256 is not None:
        tx.select(CONTENTS, ("sha256",), [blob.sha256], lock=True)
    _usage(tx, blob.owner_id)
    found = row_of(tx, blob.id, lock=True)
    if found is None:
        return not due
    if found.sha256 != blob.sha256 or (due and is_there(found, now_ms)):
        return False
    if tx.fetch("SELECT 1 FROM file_keeps WHERE file_id = ? LIMIT 1", (blob.id,)):
        if not due:
            tx.update(FILES, ("expires_ms",), [(blob.id, now_ms)])
        return not due
    tx.execute("DELETE FROM files WHERE id = ?", (blob.id,))
    _count(tx, found.owner_id, -found.counted, -1)
    if found.sha256 is None:
        _throw_away(tx, found.place, now_ms)
    elif not tx.fetch("SELECT 1 FROM files WHERE sha256 = ? LIMIT 1", (found.sha256,)):
        tx.execute("DELETE FROM file_contents WHERE sha256 = ?", (found.sha256,))
        _throw_away(tx, found.place, now_ms)
    return True


def keep(tx: Tx, blob: Blob, keeper: str, now_ms: int) -> None:
    """Note that *keeper* needs a file.

    Raises:
        UnknownFile: it is not there for its owner any more.
    """
    found = row_of(tx, blob.id, lock=True)
    if found is None or not found.complete or not is_there(found, now_ms):
        raise UnknownFile
    tx.insert(KEEPS, [(blob.id, keeper, now_ms, None)], ignore_conflicts=True)


def release(tx: Tx, keeper: str, wanted: frozenset[bytes], *, maker: str | None, now_ms: int) -> None:
    """*keeper* needs nothing any more; what it made and is not *wanted* is gone for its owner, and collected next.

    Of one *maker*, only that, and the keeper needs the rest still.
    """
    rows = tx.fetch("SELECT file_id, made_by FROM file_keeps WHERE keeper = ? AND made_by IS NOT NULL", (keeper,))
    useless = sorted({bytes(file_id) for file_id, by in rows if maker in (None, by)} - wanted)
    if useless:
        tx.update(FILES, ("expires_ms",), [(file_id, now_ms) for file_id in useless])
    if maker is None:
        tx.execute("DELETE FROM file_keeps WHERE keeper = ?", (keeper,))
    for file_id in useless if maker is not None else ():
        tx.execute("DELETE FROM file_keeps WHERE file_id = ? AND keeper = ?", (file_id, keeper))


def give_up(tx: Tx, file_id: bytes, keeper: str) -> bool:
    """*keeper* does not go on with an upload of its own; False: it is complete, and stays."""
    found = row_of(tx, file_id, lock=True)
    if found is not None and found.complete:
        return False
    tx.execute("DELETE FROM file_keeps WHERE file_id = ? AND keeper = ? AND made_by IS NOT NULL", (file_id, keeper))
    return True


def mark_erased(tx: Tx, place: bytes, now_ms: int) -> None:
    """Note that a place's objects were erased for the first time."""
    tx.update(TRASH, ("erased_ms",), [(place, now_ms)])


def forget_place(tx: Tx, place: bytes) -> None:
    """Nothing can come to a place any more."""
    tx.execute("DELETE FROM file_trash WHERE place = ?", (place,))


# -- reading -------------------------------------------------------------------------------------------------------


def is_there(blob: Blob, now_ms: int) -> bool:
    """Tell whether a file or an upload has not expired."""
    return blob.expires_ms is None or blob.expires_ms > now_ms


def _values(blob: Blob) -> tuple[object, ...]:
    return tuple(getattr(blob, name) for name in FILES.names)


def _with(blob: Blob, **changed: object) -> Blob:
    return Blob(**{name: getattr(blob, name) for name in FILES.names} | changed)


def _blob(row: Sequence[object]) -> Blob:
    # PostgreSQL's driver gives memory views where SQLite's gives bytes.
    return Blob(*(bytes(value) if isinstance(value, memoryview) else value for value in row))  # type: ignore[arg-type]


def row_of(tx: Tx, file_id: bytes, *, lock: bool = False) -> Blob | None:
    """Return a file or an upload inside a command."""
    return next((_blob(row) for row in tx.select(FILES, FILES.names, [file_id], lock=lock)), None)


def rows_of(tx: Tx, file_ids: Sequence[bytes]) -> list[Blob]:
    """Return files and uploads inside a command, locked."""
    return [_blob(row) for row in tx.select(FILES, FILES.names, file_ids, lock=True)]


async def find(db: Database, file_id: bytes, now_ms: int) -> Blob | None:
    """Return a file or an upload that has not expired."""
    row = await db.fetch_point(FILES, FILES.names, (file_id,))
    blob = _blob(row) if row is not None else None
    return blob if blob is not None and is_there(blob, now_ms) else None


async def find_all(db: Database, file_ids: Sequence[bytes], now_ms: int, *, of: bytes) -> list[Blob]:
    """Return those files and uploads that have not expired."""
    rows = await db.fetch_keys(FILES, FILES.names, file_ids, of=of)
    return [blob for blob in map(_blob, rows) if is_there(blob, now_ms)]


async def kept(db: Database, file_ids: Sequence[bytes], keeper: str) -> list[Kept]:
    """Return those of *file_ids*, files or uploads, that *keeper* needs."""
    notes = await db.fetch_keys(KEEPS, ("file_id", "keeper", "made_by"), file_ids)
    makers = {bytes(file_id): maker or "" for file_id, of, maker in notes if of == keeper}
    rows = await db.fetch_keys(FILES, FILES.names, list(makers))
    return [Kept(blob, makers[blob.id]) for blob in map(_blob, rows)]


async def kept_by(db: Database, keeper: str) -> list[tuple[bytes, str]]:
    """Return the files that *keeper* needs, each with who made it for the keeper; empty: nobody did."""
    rows = await db.fetch_few(KEEPS, ("file_id", "made_by"), (keeper,), by=("keeper",))
    return [(bytes(file_id), maker or "") for file_id, maker in rows]


async def keepers(db: Database, *, after: str, before_ms: int, limit: int) -> list[str]:
    """Return keepers that have needed something since before *before_ms*, in their order, those after *after*."""
    sql = f"SELECT DISTINCT keeper FROM file_keeps WHERE keeper > ? AND since_ms <= ? ORDER BY keeper LIMIT {limit}"
    return [row[0] for row in await db.fetch(sql, [after, before_ms])]


async def page(db: Database, owner_id: bytes, now_ms: int, *, limit: int, before: bytes | None) -> list[Blob]:
    """Return complete files of an owner, newest first."""
    older, params = ("AND id < ?", [before]) if before is not None else ("", [])
    sql = (
        f"SELECT {_COLUMNS} FROM files WHERE owner_id = ? AND sha256 IS NOT NULL AND {_THERE} {older} "
        f"ORDER BY id DESC LIMIT {limit}"
    )
    return [_blob(row) for row in await db.fetch(sql, [owner_id, now_ms, *params], of=owner_id)]


async def usage(db: Database, owner_id: bytes) -> FileUsage:
    """Return what an owner's files and uploads count."""
    row = await db.fetch_point(USAGE, ("bytes_counted", "files_counted"), (owner_id,))
    return FileUsage(*row) if row is not None else FileUsage(0, 0)


async def standing(db: Database) -> FilesStanding:
    """Return what all owners have together."""
    counted = await usage(db, EVERYBODY)
    ((uploads,),) = await db.fetch("SELECT count(*) FROM files WHERE sha256 IS NULL")
    return FilesStanding(counted.files_counted, int(uploads), counted.bytes_counted)


async def parts(db: Database, place: bytes, start: int, end: int) -> list[PartRow]:
    """Return the first `PARTS_READ_MAX` objects of a place that have bytes from *start* up to *end*, in order."""
    sql = (
        "SELECT start, size, object_id FROM file_parts WHERE place = ? AND start < ? AND start + size > ? "
        f"ORDER BY start LIMIT {PARTS_READ_MAX}"
    )
    rows = await db.fetch(sql, [place, end, start])
    return [PartRow(int(at), int(size), bytes(object_id)) for at, size, object_id in rows]


async def expired(db: Database, now_ms: int, limit: int) -> list[Blob]:
    """Return files and uploads that have expired and that nobody needs, oldest first."""
    sql = (
        f"SELECT {_COLUMNS} FROM files WHERE expires_ms <= ? AND NOT EXISTS "
        f"(SELECT 1 FROM file_keeps WHERE file_keeps.file_id = files.id) ORDER BY expires_ms LIMIT {limit}"
    )
    return [_blob(row) for row in await db.fetch(sql, [now_ms])]


async def trash(db: Database, sure_ms: int, limit: int) -> list[tuple[bytes, int]]:
    """Return places to erase, with when they were thrown away: those never erased, and those from before *sure_ms*."""
    sql = (
        "SELECT place, since_ms FROM file_trash WHERE erased_ms IS NULL OR since_ms <= ? "
        f"ORDER BY since_ms LIMIT {limit}"
    )
    return [(bytes(place), int(since_ms)) for place, since_ms in await db.fetch(sql, [sure_ms])]
