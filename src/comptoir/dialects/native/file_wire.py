"""What goes over the wire about files in the native dialect."""

from typing import Annotated

import msgspec
from msgspec import Meta

from comptoir.blobs import LINK_S_MAX, NAME_CHARS_MAX
from comptoir.dialects.native.wire import Limit

FileName = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]
Sha256 = Annotated[str, Meta(pattern="^([0-9a-fA-F]{64})?$")]


class FileQuery(msgspec.Struct):
    """What is said of a file that is uploaded in one request."""

    name: Annotated[FileName, Meta(description="What it is called; a form may say it as well.")] = ""
    sha256: Annotated[Sha256, Meta(description="Its SHA-256; something else that arrives is refused.")] = ""


class FilesQuery(msgspec.Struct):
    """Page of the caller's files."""

    limit: Limit = 50
    before: Annotated[str, Meta(pattern="^(file_[0-9a-f]{32})?$", description="Id of the last file seen.")] = ""


class LinkBody(msgspec.Struct):
    """How long a link to a file shall hold."""

    lasts_s: Annotated[int, Meta(ge=1, le=LINK_S_MAX)] = 3_600
    """Seconds; never longer than the file itself."""


class LinkQuery(msgspec.Struct):
    """What a signed link says."""

    until_ms: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    signature: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class FileView(msgspec.Struct):
    """A stored file."""

    id: str
    name: str
    media: str
    """What its uploader says it is; empty: nothing."""
    size: int
    """Bytes."""
    sha256: str
    created_ms: int
    expires_ms: int | None
    """When it is deleted; null: never."""


class FilesView(msgspec.Struct):
    """A page of files, newest first, and what all of the caller's count."""

    files: list[FileView]
    next: str | None
    """Give it as ``before`` for the next page."""
    bytes_used: int
    """Of files and unfinished uploads."""
    bytes_max: int
    files_used: int
    files_max: int


class LinkView(msgspec.Struct):
    """A link with which anybody may read a file."""

    url: str
    until_ms: int
