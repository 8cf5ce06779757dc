"""What goes over the wire about the files of a job."""

import msgspec


class InputView(msgspec.Struct, omit_defaults=True):
    """What goes into a job as a file."""

    name: str
    """What the job knows it as."""
    file: str = ""
    """``file_…``; absent: it is fetched from *url*."""
    url: str = ""
    size: int | None = None
    """Bytes; absent: not known, because no host has fetched it yet."""
    sha256: str | None = None


class ArtifactView(msgspec.Struct, omit_defaults=True):
    """A file that a job made: one of its buyer's, unless that was deleted since."""

    name: str
    file: str
    size: int
    sha256: str
    media: str = ""
    """What its host says it is."""
