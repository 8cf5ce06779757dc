"""Refusals of the room of files."""

from comptoir.kit.errors import NotAllowed, Refusal


class BlobRefusal(Refusal):
    """Root of this room's errors."""


class UnknownFile(BlobRefusal):
    """There is no such file, or it is somebody else's, or it has expired."""

    def __init__(self) -> None:
        super().__init__("no such file")


class FileTooLarge(BlobRefusal):
    """The file is larger than the setting ``file_bytes_max``, or than was said when its upload began."""

    def __init__(self, bytes_max: int, *, declared: bool = False) -> None:
        why = "as was said when its upload began" if declared else "allowed"
        super().__init__(f"the file is larger than {bytes_max} bytes, {why}")
        self.bytes_max = bytes_max


class QuotaReached(BlobRefusal):
    """The owner's files would be more than ``files_bytes_per_owner_max`` or ``files_per_owner_max``."""

    def __init__(self, *, bytes_free: int, files_free: int) -> None:
        super().__init__(
            f"your files may have {bytes_free} bytes and number {files_free} more; unfinished uploads count, and "
            "deleting files makes room"
        )
        self.bytes_free = bytes_free
        self.files_free = files_free


class MadeTooMuch(BlobRefusal):
    """What a maker makes would be more than its `MadeFor` allows; *bytes_free* and *files_free* say what is left."""

    def __init__(self, *, bytes_free: int, files_free: int) -> None:
        super().__init__(f"what is made may have {bytes_free} bytes and number {files_free} more")
        self.bytes_free = bytes_free
        self.files_free = files_free


class FilesFull(BlobRefusal):
    """All owners' files together would be more than the setting ``files_bytes_max``."""

    def __init__(self) -> None:
        super().__init__("the trading post keeps as many files as it may; try again later")


class OffsetMismatch(BlobRefusal):
    """The bytes do not go on where the upload is; *offset* says where that is."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the upload has {offset} bytes; go on from there")
        self.offset = offset


class TooManyParts(BlobRefusal):
    """The upload came in too many small pieces; *parts_max* are kept of one."""

    def __init__(self, parts_max: int) -> None:
        super().__init__(f"the upload came in more than {parts_max} pieces; upload it again in larger ones")
        self.parts_max = parts_max


class ChecksumMismatch(BlobRefusal):
    """What came is not what was said to come: its SHA-256 is another one. The upload is given up."""

    def __init__(self, *, expected: bytes, found: bytes) -> None:
        super().__init__(f"the file's SHA-256 is {found.hex()}, and {expected.hex()} was said; upload it again")
        self.expected = expected
        self.found = found


class FileLinkRefused(NotAllowed):
    """A signed URL has expired, or it was not signed here."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this link to a file {reason}; ask its owner for a new one")
