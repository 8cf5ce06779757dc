"""What uploaders call their files, checked; and what is said of a file to those who read it."""

import re
from urllib.parse import quote

from comptoir.blobs.types import MEDIA_CHARS_MAX, NAME_CHARS_MAX
from comptoir.kit.errors import InvalidField
from comptoir.kit.file_names import UNFIT

_MEDIA = re.compile(r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+$")

ANY_MEDIA = "application/octet-stream"

INERT = frozenset(
    (
        "application/json", "application/zip", "audio/aac", "audio/flac", "audio/mp4", "audio/mpeg", "audio/ogg", "audio/wav",
        "audio/webm", "audio/x-wav", "image/avif", "image/gif", "image/jpeg", "image/png", "image/webp", "text/csv",
        "text/plain", "video/mp4", "video/ogg", "video/quicktime", "video/webm", "video/x-matroska",
    )
)  # fmt: skip
"""Media types that run nothing in a browser. Files of all others are sent as bytes of no type."""


def check_name(name: str) -> None:
    """Check what a file is called.

    Raises:
        InvalidField: it is empty, too long, a path, or no single line of text.
    """
    if not 1 <= len(name) <= NAME_CHARS_MAX:
        raise InvalidField("name", f"must be 1 to {NAME_CHARS_MAX} characters")
    if UNFIT.search(name) or name in (".", ".."):
        raise InvalidField("name", "must be a file's name: one line of text, no path")


def check_media(media: str) -> None:
    """Check what a file is said to be; empty: nothing.

    Raises:
        InvalidField: it is no media type.
    """
    if media and (len(media) > MEDIA_CHARS_MAX or not _MEDIA.match(media)):
        raise InvalidField("media", "must be a media type, like text/csv, without parameters")


def served_media(media: str) -> str:
    """Return as what a file is sent: what its uploader says, if that is `INERT`."""
    plain = media.lower()
    return plain if plain in INERT else ANY_MEDIA


def disposition(name: str) -> str:
    """Return the value of Content-Disposition: an attachment, with its name in ASCII, and as it is (RFC 6266)."""
    plain = "".join(char if " " <= char <= "~" and char not in '"\\%' else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
