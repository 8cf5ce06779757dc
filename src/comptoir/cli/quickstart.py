"""``quickstart.env`` in the data folder: address and keys of a local trading post, readable by its owner only."""

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

FILE_NAME = "quickstart.env"
FILE_BYTES_MAX = 64 * 1024
FILE_MODE = 0o600

_HEAD = """\
# Written by 'comptoir up'. Load it with:  set -a; . ./quickstart.env; set +a
# COMPTOIR_KEY is the demo buyer's, COMPTOIR_ADMIN_KEY the operator's: keep both to yourself.
"""


class Quickstart(NamedTuple):
    """What the file says; empty where it says nothing."""

    url: str = ""
    key: str = ""
    admin_key: str = ""


def read_quickstart(folder: Path) -> Quickstart | None:
    """Return what the file in *folder* says, or None when there is none that can be read."""
    try:
        with (folder / FILE_NAME).open(encoding="utf-8") as file:
            text = file.read(FILE_BYTES_MAX)
    except (OSError, UnicodeDecodeError):
        return None
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith("#"):
            found[name.strip()] = value.strip().strip("'\"")
    return Quickstart(found.get("COMPTOIR_URL", ""), found.get("COMPTOIR_KEY", ""), found.get("COMPTOIR_ADMIN_KEY", ""))


def write_quickstart(folder: Path, content: Quickstart) -> Path:
    """Replace the file atomically: whoever reads it sees the old one or the new one, whole, mode 0600.

    Raises:
        OSError: the folder is not writable; the old file is untouched.
    """
    text = f"{_HEAD}COMPTOIR_URL={content.url}\nCOMPTOIR_KEY={content.key}\nCOMPTOIR_ADMIN_KEY={content.admin_key}\n"
    # mkstemp makes the file with mode 0600 from its first moment.
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".quickstart-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, FILE_MODE)
        os.replace(temporary, folder / FILE_NAME)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return folder / FILE_NAME
