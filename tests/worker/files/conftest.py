"""A host's files against real servers on this machine."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from comptoir.kinds.files import InputFile
from comptoir.kit.urlguard import UrlGuard
from comptoir.worker.addresses import Addresses
from comptoir.worker.backoff import Backoff
from comptoir.worker.files import HostFiles, InputRules, LeaseFiles
from tests.worker.files.stores import JOB, KEY, LEASE, FileStore, file_store, sha256


def at_once() -> Backoff:
    return Backoff(jitter=lambda low, high: 0.0)


@pytest_asyncio.fixture
async def store() -> AsyncIterator[FileStore]:
    async with file_store() as running:
        yield running


class Host:
    """One worker's files, and how a lease's are made."""

    def __init__(self, files: HostFiles, store: FileStore, addresses: Addresses) -> None:
        self.files = files
        self.store = store
        self.addresses = addresses

    def lease(self, *inputs: InputFile, left_s: float = 3600.0, lease: str = LEASE) -> LeaseFiles:
        """Return a lease's files; without *inputs*, those that the store has."""
        asked = inputs or tuple(
            InputFile("in", "file_0", sha256=sha256(content), size=len(content)) for content in self.store.inputs
        )
        until_s = asyncio.get_running_loop().time() + left_s
        return self.files.of_lease(job=JOB, lease=lease, inputs=asked, until_s=until_s)


@asynccontextmanager
async def host_of(
    store: FileStore,
    folder: Path,
    rules: InputRules | None = None,
    *,
    others: Sequence[FileStore] = (),
    guard: UrlGuard | None = None,
) -> AsyncIterator[Host]:
    addresses = Addresses([each.url for each in (store, *others)], pick=lambda count: 0)
    made = HostFiles(folder, addresses=addresses, rules=rules, backoff=at_once, guard=guard)
    made.key = KEY
    try:
        yield Host(made, store, addresses)
    finally:
        await made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "work" / "jobs"


@pytest_asyncio.fixture
async def host(store: FileStore, folder: Path) -> AsyncIterator[Host]:
    async with host_of(store, folder, InputRules(private_addresses=True)) as made:
        yield made
