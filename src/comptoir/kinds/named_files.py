"""Files as orders and frames name them: what goes into a program (`InputFile`), and what came out of it (`Artifact`).

Names are the buyer's or the host's words. They are one part of a path and never a folder, and no file on a coordinator
or a host is called by them unless its engine does so inside the walls of a job.
"""

from pathlib import PurePath
from typing import Annotated
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from comptoir.kit.file_names import fit_name

INPUTS_MAX = 64
"""Most inputs of one job."""

ARTIFACTS_MAX = 4096
"""Most artifacts of one job."""

NAME_CHARS_MAX = 255

STEM_CHARS_MAX = 200
"""Of what an input is called, what a file is called after that is made of it."""

Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX, pattern=r"\A(?!\.{1,2}\Z)[^/\x00-\x1f\x7f]+\Z")]
"""Name of a file in a job: one part of a path, and neither ``.`` nor ``..``."""

Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]

Bytes = Annotated[int, Meta(ge=0, le=2**53 - 1)]

_is_name = msgspec.json.Decoder(Name).decode


class InputFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One input: a file of the buyer's here, or an address that the worker fetches it from."""

    name: Name | None = None
    """What the program finds it as. None: the file's own name, or the last part of the address."""
    file: Annotated[str, Meta(max_length=64)] = ""
    """``file_…``, of the buyer. Either this or *url*."""
    url: Annotated[str, Meta(max_length=2048)] = ""
    """HTTP or HTTPS, public; fetched once, by the host."""
    sha256: Sha256 | None = None
    """What it has to be. Of a *file* the trading post fills it in, so that the receipt's hash of the body covers it."""
    size: Bytes | None = None
    """Bytes; filled in likewise."""

    def called(self, number: int) -> str:
        """Return what the program finds input *number* (its place in the order, from 0) as.

        Its name; else the last part of its address; else, where that is no name, ``input-NUMBER``. No two inputs of an
        accepted order are called the same.
        """
        if self.name is not None:
            return self.name
        try:
            last = unquote(urlsplit(self.url).path.rpartition("/")[2], errors="strict")
            return _is_name(msgspec.json.encode(last))
        except ValueError:
            return f"input-{number}"

    def made_into(self, number: int, ending: str, *, otherwise: str) -> str:
        """Return what a file is called that is made of input *number*: its name with another *ending*; where nothing
        is left of that, *otherwise*."""
        stem = PurePath(fit_name(self.called(number))).stem
        return f"{stem.strip('. ')[:STEM_CHARS_MAX] or otherwise}.{ending}"


class Artifact(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that a job made; it is the buyer's once its frame has arrived."""

    name: Name
    file: Annotated[str, Meta(max_length=64)]
    """``file_…``"""
    size: Bytes
    sha256: Sha256
    media: Annotated[str, Meta(max_length=100)] = ""
    """What the host says it is, such as ``video/mp4``; empty: unknown. Never believed by a server of files."""
