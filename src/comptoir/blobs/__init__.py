"""Files: what buyers upload and jobs make, stored once for all who have the same.

Owns: tables ``files``, ``file_parts``, ``file_contents``, ``file_keeps``, ``file_usage``, ``file_trash``, and the
objects in the store.
Invariant: a content is named by its SHA-256 and never changes; each file is one owner's reference to one. An object is
written before a row speaks of it, and erased after no row does, so a crash leaves bytes that nothing refers to, and
never a file without its bytes. What an owner's files and uploads count is the sum of their bytes.
Units: bytes; milliseconds since 1970 UTC; ids are 16 bytes. Knows: nobody. Who needs a file beside its owner says so by
a keeper's name (`Blobs.keep`).
"""

from comptoir.blobs.errors import (
    BlobRefusal,
    ChecksumMismatch,
    FileLinkRefused,
    FilesFull,
    FileTooLarge,
    MadeTooMuch,
    OffsetMismatch,
    QuotaReached,
    TooManyParts,
    UnknownFile,
)
from comptoir.blobs.keeps import Keeps, file_rows
from comptoir.blobs.links import LINK_S_MAX
from comptoir.blobs.names import disposition, served_media
from comptoir.blobs.service import Blobs, Upload
from comptoir.blobs.tables import TABLES
from comptoir.blobs.types import NAME_CHARS_MAX, PART_BYTES, Blob, FileLimits, FilesStanding, Kept, MadeFor

__all__ = [
    "LINK_S_MAX",
    "NAME_CHARS_MAX",
    "PART_BYTES",
    "TABLES",
    "Blob",
    "BlobRefusal",
    "Blobs",
    "ChecksumMismatch",
    "FileLimits",
    "FileLinkRefused",
    "FileTooLarge",
    "FilesFull",
    "FilesStanding",
    "Keeps",
    "Kept",
    "MadeFor",
    "MadeTooMuch",
    "OffsetMismatch",
    "QuotaReached",
    "TooManyParts",
    "UnknownFile",
    "Upload",
    "disposition",
    "file_rows",
    "served_media",
]
