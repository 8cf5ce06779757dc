"""What the room of files gives and takes."""

from dataclasses import dataclass

import msgspec

PART_BYTES = 4 << 20
"""Largest object of a file: what an upload has in memory at a time, twice, and what is written again after a cut."""

NAME_CHARS_MAX = 255
"""Longest name of a file, as file systems have it."""

MEDIA_CHARS_MAX = 127
"""Longest media type."""

KEEPER_CHARS_MAX = 100
"""Longest name of what needs a file: a kind of thing and its id."""


@dataclass(frozen=True, kw_only=True)
class FileLimits:
    """What may be stored, and for how long; the settings of the same names say why."""

    file_bytes_max: int
    files_bytes_per_owner_max: int
    files_per_owner_max: int
    files_bytes_max: int
    upload_ms: int
    """Milliseconds after its last byte at which an upload is given up."""
    kept_ms: int
    """Milliseconds after it came at which a file expires; 0: never."""


class Blob(msgspec.Struct, frozen=True):
    """A stored file, or an upload on the way to one: the fields of the table ``files``."""

    id: bytes
    owner_id: bytes
    place: bytes
    """Where its objects are."""
    name: str
    """1 to `NAME_CHARS_MAX` characters, no path."""
    media: str
    """What its uploader says it is; not to be believed."""
    size: int | None
    """Bytes; None: an upload that did not say."""
    stored: int
    """Bytes that came so far."""
    parts: int
    """Objects that it came in."""
    sha256: bytes | None
    """Of the whole; None: an upload."""
    expected: bytes | None
    """What its uploader says it is."""
    created_ms: int
    expires_ms: int | None
    """From when on it is not there; None: never."""

    @property
    def complete(self) -> bool:
        """Whether all of it is here."""
        return self.sha256 is not None

    @property
    def counted(self) -> int:
        """Bytes that it counts."""
        return self.stored if self.size is None else self.size


@dataclass(frozen=True)
class FilesStanding:
    """What all owners have together."""

    files: int
    """Unfinished uploads included."""
    uploads: int
    """Unfinished ones."""
    bytes_counted: int


@dataclass(frozen=True)
class FileUsage:
    """What an owner's files and uploads count."""

    bytes_counted: int
    files_counted: int


@dataclass(frozen=True)
class MadeFor:
    """For whom an upload is made, which is not its owner: it is kept from its beginning, until the keeper's end."""

    keeper: str
    """What makes it, such as ``job_…``: 1 to `KEEPER_CHARS_MAX` characters."""
    maker: str
    """Which of those that work on it one after the other, such as ``att_…``; as long."""
    bytes_max: int
    """Bytes that what this maker makes may have together, the unfinished ones in full."""
    files_max: int


@dataclass(frozen=True)
class Kept:
    """A file or an upload that a keeper needs, whether or not its owner still has it."""

    blob: Blob
    maker: str
    """Who made it for the keeper; empty: nobody, the owner had it before."""
