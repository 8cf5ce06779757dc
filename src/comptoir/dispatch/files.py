"""Files: the room of files as one coordinator has it, by its settings, and the sweep that collects what nothing
needs."""

import logging
from pathlib import Path

from comptoir.blobs import Blobs, FileLimits, FilesStanding
from comptoir.dispatch.core import Core, State
from comptoir.kit.errors import Unavailable
from comptoir.kit.objects import FilesExtraMissing, open_objects
from comptoir.settings import Settings

log = logging.getLogger(__name__)

DAY_MS = 24 * 3600 * 1000

FOLDER = "files"
"""Where files are kept in the data folder, unless the setting ``files_store`` names another place."""


class Files(State):
    """The files of this trading post, where it keeps any."""

    def __init__(self, core: Core) -> None:
        """Open the store.

        Raises:
            StoreUnusable: ``files_store``, or what the environment says of it, can't be understood or used.
        """
        settings = core.settings
        self.standing = FilesStanding(0, 0, 0)
        """What all owners had at the last sweep."""
        self.bytes_in = self.bytes_out = self.artifacts = 0
        """Bytes that were stored and sent here since the start, by and to whomever; and files that results named."""
        self._missing: FilesExtraMissing | None = None
        try:
            objects = open_objects(store_address(settings))
        except FilesExtraMissing as missing:
            self._missing = missing
            return
        self._blobs = Blobs(
            core.db, core.clock, objects=objects, limits=limits_of(settings), secret=core.receipts.derive(b"files")
        )
        self._collecting = False

    @property
    def blobs(self) -> Blobs:
        """The room.

        Raises:
            FilesExtraMissing: the extra ``comptoir[files]`` is not installed.
        """
        if self._missing is not None:
            raise FilesExtraMissing(self._missing.package)
        return self._blobs

    @property
    def kept_here(self) -> bool:
        """Whether this coordinator keeps files: the extra is installed."""
        return self._missing is None

    def count_in(self, size: int) -> None:
        """Count bytes that were stored here."""
        self.bytes_in += size

    def count_out(self, size: int) -> None:
        """Count bytes that were sent from here."""
        self.bytes_out += size

    def count_artifacts(self, files: int) -> None:
        """Count files that a result named."""
        self.artifacts += files

    async def collect(self) -> None:
        """Delete and erase what nothing needs any more; nothing happens while a call before is under way."""
        if self._missing is not None or self._collecting:
            return
        self._collecting = True
        try:
            files, places = await self._blobs.collect()
            self.standing = await self._blobs.standing()
        except Unavailable as away:
            log.warning("files that nothing needs are erased later: %s", away)
        else:
            if files or places:
                log.info("%d files have expired, and the bytes of %d were erased", files, places)
        finally:
            self._collecting = False


def store_address(settings: Settings) -> str:
    """Return what `open_objects` takes."""
    if settings.files_store.startswith("s3://"):
        return settings.files_store
    if settings.files_store:
        return str(Path(settings.files_store).expanduser().resolve())
    return str(settings.data_path() / FOLDER)


def limits_of(settings: Settings) -> FileLimits:
    """Return what may be stored."""
    return FileLimits(
        file_bytes_max=settings.file_bytes_max,
        files_bytes_per_owner_max=settings.files_bytes_per_owner_max,
        files_per_owner_max=settings.files_per_owner_max,
        files_bytes_max=settings.files_bytes_max,
        upload_ms=round(settings.upload_s * 1000),
        kept_ms=settings.files_retention_days * DAY_MS,
    )
