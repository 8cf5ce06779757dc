"""The files of one lease, and of all leases of one worker."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import aiohttp
import msgspec

from comptoir.kinds.files import Artifact, Fetched, InputFile
from comptoir.kit.folderlock import FolderTaken
from comptoir.kit.urlguard import UrlGuard
from comptoir.worker.addresses import Addresses
from comptoir.worker.backoff import Backoff
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.programs import disk_error
from comptoir.worker.files.arriving import check_room
from comptoir.worker.files.artifacts import deliver
from comptoir.worker.files.calls import LeaseCalls
from comptoir.worker.files.inputs import fetch_file
from comptoir.worker.files.outside import Outside
from comptoir.worker.sandbox.folders import RunsFolder, erase

_log = logging.getLogger(__name__)

GIB = 1024**3

INPUTS_BYTES_MAX = 16 * GIB
"""Bytes of all inputs of one job that a host takes unless its owner says otherwise."""

DEADLINE_MARGIN_S = 1.0
"""How long before a job's deadline trying ends, so that there is time to say why."""

AGAIN_MAX_S = 5.0
"""Longest pause before a coordinator, or an address that does not name one, is asked again."""


class InputRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a host's owner allows of inputs."""

    bytes_max: int = INPUTS_BYTES_MAX
    """Bytes of all inputs of one job together."""
    private_addresses: bool = False
    """Whether addresses in private networks may be fetched from: for closed installations."""


class HostFiles:
    """Makes the files of leases, below one folder that no other worker uses; call `open` first."""

    def __init__(
        self,
        folder: Path,
        *,
        addresses: Addresses,
        rules: InputRules | None = None,
        guard: UrlGuard | None = None,
        backoff: Callable[[], Backoff] = lambda: Backoff(last_s=AGAIN_MAX_S),
    ) -> None:
        """*folder* may be shared with other workers; *guard*: for tests, instead of that of the *rules*."""
        self.key = ""
        """The host's key, set once it is known."""
        self.rules = rules or InputRules()
        self._folders = RunsFolder(folder)
        self._addresses = addresses
        self._backoff = backoff
        self._session: aiohttp.ClientSession | None = None
        self._outside = Outside(guard or UrlGuard(allow_private=self.rules.private_addresses), backoff)
        self._opened = False
        self._number = 0
        self._erasing = asyncio.Lock()

    def open(self, *, needed: bool) -> None:
        """Erase what a killed worker left. Blocks as long as that takes.

        Args:
            needed: files are to be expected; else nothing is done where there never were any.

        Raises:
            OSError, FolderTaken: the folder can't be used.
        """
        if needed or self._folders.base.exists():
            self._open()

    async def close(self) -> None:
        """Erase all that is left, and close all connections; idempotent. No job may run any more."""
        if self._session is not None:
            await self._session.close()
        await self._outside.close()
        if self._opened:
            async with self._erasing:
                try:
                    await asyncio.to_thread(self._folders.close)
                except OSError:
                    _log.exception("the files of jobs could not be erased: %s", self._folders.path)

    def of_lease(self, *, job: str, lease: str, inputs: Sequence[InputFile], until_s: float) -> "LeaseFiles":
        """Return the files of a lease; nothing is made before they are used.

        Args:
            job, lease: as ``job_…`` and ``att_…``.
            until_s: the job's deadline, on the event loop's clock.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        calls = LeaseCalls(
            self._session,
            addresses=self._addresses,
            key=self.key,
            job=job,
            lease=lease,
            until_s=until_s - DEADLINE_MARGIN_S,
            backoff=self._backoff,
        )
        return LeaseFiles(calls, self._outside, inputs=inputs, rules=self.rules, host=self)

    def _open(self) -> None:
        if not self._opened:
            self._folders.open()
            self._opened = True

    def new_folder(self) -> Path:
        """Make a folder for one lease.

        Raises:
            OSError, FolderTaken: it can't be made.
        """
        self._open()
        self._number += 1
        folder = self._folders.path / str(self._number)
        folder.mkdir(mode=0o700)
        return folder

    async def erase(self, folder: Path) -> None:
        """Erase a lease's folder; what can't be erased now is erased when a worker starts next.

        It is done also if the caller is cancelled meanwhile, as a job is that is settled while it cleans up.
        """
        await asyncio.shield(self._erase(folder))

    async def _erase(self, folder: Path) -> None:
        async with self._erasing:
            try:
                await asyncio.to_thread(erase, folder)
            except OSError:
                _log.exception("the files of a job could not be erased: %s", folder)


class LeaseFiles:
    """The files of one lease: see `JobFiles`. `erase` ends it."""

    def __init__(
        self,
        calls: LeaseCalls,
        outside: Outside,
        *,
        inputs: Sequence[InputFile],
        rules: InputRules,
        host: HostFiles,
    ) -> None:
        self._calls = calls
        self._outside = outside
        self._inputs = inputs
        self._left = rules.bytes_max - sum(each.size or 0 for each in inputs if not each.url)
        """Bytes that may still be fetched from addresses."""
        self._host = host
        self._folder: Path | None = None
        self._erased = False
        self._there: dict[int, tuple[Path, Fetched | None]] = {}
        self._turn = asyncio.Lock()

    @property
    def folder(self) -> Path:
        """A private folder, made when it is first asked for.

        Raises:
            EngineError: it can't be made.
        """
        if self._erased:
            raise EngineError("files_erased", "the job's files are gone, as it is over")
        if self._folder is None:
            try:
                self._folder = self._host.new_folder()
            except OSError as error:
                raise disk_error(error) from error
            except FolderTaken as error:
                raise EngineError("disk", str(error)) from error
        return self._folder

    async def fetch(self, number: int) -> tuple[Path, Fetched | None]:
        """Return an input as a plain file; see `JobFiles.fetch`."""
        if not 0 <= number < len(self._inputs):
            raise EngineError("no_input", f"the order has no input {number}", fault="buyer")
        if self._left < 0:
            raise EngineError("inputs_too_large", "the inputs are larger than this host takes", fault="capacity")
        async with self._turn:
            if number not in self._there:
                self._there[number] = await self._fetch(number, self._inputs[number])
        return self._there[number]

    async def _fetch(self, number: int, asked: InputFile) -> tuple[Path, Fetched | None]:
        path = self.folder / f"in-{number}"
        check_room(path.parent, asked.size or 0)
        if not asked.url:
            await fetch_file(self._calls, number, asked, path)
            return path, None
        fetched = await self._outside.fetch(number, asked, path, bytes_max=self._left, until_s=self._calls.until_s)
        self._left -= fetched.size
        return path, fetched

    async def deliver(self, content: BinaryIO, *, name: str, media: str = "") -> Artifact:
        """Upload an artifact; see `JobFiles.deliver`."""
        return await deliver(self._calls, content, name=name, media=media)

    async def erase(self) -> None:
        """Erase everything of this lease; idempotent. Its engine has to have ended."""
        self._erased = True
        folder, self._folder = self._folder, None
        if folder is not None:
            await self._host.erase(folder)
