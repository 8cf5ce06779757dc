"""Brings a job's results into a folder, and writes over nothing that it was not told to."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from comptoir.cli.api import Api
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.transfer import download, local_name

OTHERS_MAX = 10_000
"""Most other names that are tried for a file whose own is taken."""


def check_folder(folder: Path) -> None:
    """Check, before anything is bought, that results can go there.

    Raises:
        Failure: something that is no folder has this name.
    """
    if folder.exists() and not folder.is_dir():
        raise Failure(f"{folder} is no folder", "give --out another one", code=Exit.USAGE)


def save(api: Api, artifacts: Sequence[dict[str, Any]], folder: Path, *, force: bool) -> list[dict[str, Any]]:
    """Download *artifacts*; return them with the ``path`` of each, and under ``said`` what is not as expected.

    One that is there already, byte for byte, is not downloaded again. One whose name is taken, by something else or by
    another artifact, gets a number, unless *force* says that it may be written over.

    Raises:
        Failure: as `download`; those before it are there.
    """
    found: list[dict[str, Any]] = []
    taken: set[Path] = set()
    for artifact in artifacts:
        folder.mkdir(parents=True, exist_ok=True)
        wanted = folder / local_name(str(artifact["name"]))
        path, has = _place(wanted, str(artifact["sha256"]), taken, force=force)
        taken.add(path)
        if not has:
            download(api, str(artifact["file"]), partial(_chosen, path), sha256=str(artifact["sha256"]))
        said = f"{wanted.name} was there already: this one is {path.name}" if path != wanted else ""
        found.append({**artifact, "path": str(path), "said": said})
    return found


def _place(wanted: Path, sha256: str, taken: set[Path], *, force: bool) -> tuple[Path, bool]:
    """Return where an artifact goes, and whether it is there already."""
    for number in range(1, OTHERS_MAX):
        path = wanted if number == 1 else wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        if path in taken:
            continue
        if not path.exists() and not path.is_symlink():
            return path, False
        if path.is_file() and _digest(path) == sha256:
            return path, True
        if force and path.is_file():
            return path, False
    raise Failure(f"{wanted} and {OTHERS_MAX:,} other names are taken", "give --out another folder", code=Exit.USAGE)


def _chosen(path: Path, name: str) -> Path:
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
