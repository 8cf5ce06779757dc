"""Tables of the room of files; private to it."""

from comptoir.kit.db import Table

FILES = Table(
    "files",
    {
        "id": "id",
        "owner_id": "id",
        "place": "id",
        "name": "text",
        "media": "text",
        "size": "int?",
        "stored": "int",
        "parts": "int",
        "sha256": "bytes?",
        "expected": "bytes?",
        "created_ms": "int",
        "expires_ms": "int?",
    },
    key=("id",),
    indexes=(("owner_id", "id"), ("sha256",)),
    partial=((("expires_ms",), "expires_ms IS NOT NULL"),),
)
"""One owner's reference to a content, or an upload (``sha256`` is NULL): ``stored`` of ``size`` bytes came so far."""

PARTS = Table(
    "file_parts",
    {"place": "id", "start": "int", "size": "int", "object_id": "id"},
    key=("place", "start"),
)
"""The objects of a place, in their order and without gaps."""

CONTENTS = Table(
    "file_contents",
    {"sha256": "bytes", "size": "int", "place": "id"},
    key=("sha256",),
)
"""Where each content is; some file refers to it."""

KEEPS = Table(
    "file_keeps",
    {"file_id": "id", "keeper": "text", "since_ms": "int", "made_by": "text?"},
    key=("file_id", "keeper"),
    indexes=(("keeper",),),
)
"""Who needs a file, beside its owner; and, if the keeper made it for the owner, which of its makers did."""

USAGE = Table(
    "file_usage",
    {"owner_id": "id", "bytes_counted": "int", "files_counted": "int"},
    key=("owner_id",),
)
"""What each owner's files and uploads count; sixteen zero bytes: all owners together."""

TRASH = Table(
    "file_trash",
    {"place": "id", "since_ms": "int", "erased_ms": "int?"},
    key=("place",),
    indexes=(("since_ms",),),
)
"""Places whose objects nothing refers to any more, until they are surely gone."""

TABLES = (FILES, PARTS, CONTENTS, KEEPS, USAGE, TRASH)
