"""A room of files on each pair of database and store, and what its tests say to it."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from obstore.store import LocalStore, S3Store

from comptoir.blobs import TABLES, Blob, Blobs, FileLimits
from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Database, ddl, open_database
from comptoir.kit.objects import open_objects

ADA, BOB = b"a" * 16, b"b" * 16

LIMITS = FileLimits(
    file_bytes_max=64 << 20,
    files_bytes_per_owner_max=100 << 20,
    files_per_owner_max=50,
    files_bytes_max=150 << 20,
    upload_ms=60_000,
    kept_ms=3_600_000,
)


@dataclass
class Place:
    """A room, and what tests look at from outside."""

    blobs: Blobs
    db: Database
    clock: FakeClock
    address: str
    """Where its objects are."""

    def another(self) -> Blobs:
        """Return the room as another coordinator has it: the same database and store, nothing remembered."""
        return room(self.db, self.clock, self.address)

    async def objects(self) -> int:
        """Return how many objects there are."""
        if self.address.startswith("s3://"):
            store: LocalStore | S3Store = S3Store.from_url(self.address, client_options={"allow_http": True})
        else:
            store = LocalStore(self.address)
        return len(await obstore.list(store).collect_async())

    async def store_file(self, data: bytes, *, owner_id: bytes = ADA, name: str = "a.bin") -> Blob:
        """Upload *data* in one part."""
        return await put(self.blobs, data, owner_id=owner_id, name=name)


def room(db: Database, clock: FakeClock, address: str, limits: FileLimits = LIMITS) -> Blobs:
    """Return a coordinator's room."""
    return Blobs(db, clock, objects=open_objects(address), limits=limits, secret=b"s" * 32)


async def put(blobs: Blobs, data: bytes, *, owner_id: bytes = ADA, name: str = "a.bin") -> Blob:
    """Upload *data* in one part."""
    blob = await blobs.begin(owner_id=owner_id, name=name, size=len(data))
    if not blob.complete:
        upload = blobs.resume(blob)
        await blobs.append(upload, data)
        blob = upload.blob
    return blob


async def content(blobs: Blobs, blob: Blob) -> bytes:
    """Return the whole of a file."""
    return b"".join([chunk async for chunk in blobs.read(blob, 0, blob.stored)])


def sha(data: bytes) -> bytes:
    """Return the SHA-256."""
    return hashlib.sha256(data).digest()


@pytest.fixture(params=["sqlite-folder", "postgresql-s3"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Place]:
    """Give an empty room: on SQLite with a folder, on PostgreSQL with a bucket."""
    if request.param == "sqlite-folder":
        database, address = str(tmp_path / "comptoir.db"), str(tmp_path / "files")
    else:
        database, address = request.getfixturevalue("postgres_address"), request.getfixturevalue("s3_address")
    db = open_database(database)
    for table in TABLES:
        for statement in ddl(table, db.dialect):
            await db.run(lambda tx, s=statement: tx.execute(s))
    try:
        yield Place(room(db, clock, address), db, clock, address)
    finally:
        await db.close()
