"""The weights of this machine: named by the owner, else found where faster-whisper keeps what its users fetched.

Nothing is fetched. A model is a folder that CTranslate2 wrote: ``model.bin``, ``config.json`` and ``tokenizer.json``,
without which faster-whisper would fetch one.
"""

import hashlib
import os
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from comptoir.worker.engines.base import EngineError

BINARY = "model.bin"
NEEDED = (BINARY, "config.json", "tokenizer.json")
REMEDY = "huggingface-cli download Systran/faster-whisper-base, or --engine whisper,model=whisper-base:/path"
VARIABLES_MAX = 10_000
"""Most variables in a file that are looked at; the largest Whisper has some 2,000."""
VERSION_MAX = 6
"""Newest format of CTranslate2's files that is read here."""

_CACHED = re.compile(r"models--[\w.-]+--faster-(distil-)?whisper-([\w.-]+?)(?:-ct2)?\Z", re.IGNORECASE).match
_LAYER = re.compile(r"(encoder|decoder)/layer_(\d{1,3})/").match
_is_sha256 = re.compile(r"[0-9a-f]{64}\Z").match


class Weights(msgspec.Struct, frozen=True):
    """One model."""

    name: str
    """What it is sold as."""
    folder: Path
    sha256: str
    """Of its `BINARY`."""
    translates: bool
    """Whether it is as deep where it writes as where it hears. The turbo and distilled ones are not, which were trained
    to write down alone."""


def find_weights(named: Mapping[str, str]) -> list[Weights]:
    """Return the models that the owner *named*, by folder, else all in the cache of faster-whisper; blocks, and reads
    each whole.

    Raises:
        EngineError: a folder holds none, a file is broken, or there are none; the message says what to do.
    """
    folders = {name: Path(place).expanduser() for name, place in named.items()} or dict(cached())
    if not folders:
        raise EngineError("model_not_found", f"there are no weights of faster-whisper on this machine: {REMEDY}")
    return [_look(name, folder) for name, folder in folders.items()]


def cached() -> Iterator[tuple[str, Path]]:
    """Yield name and folder of each whole model in the cache of huggingface_hub."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    for folder in sorted(Path(os.environ.get("HF_HUB_CACHE") or home / "hub").glob("models--*--*")):
        named = _CACHED(folder.name)
        snapshots = sorted(folder.glob("snapshots/*"), key=lambda each: each.stat().st_mtime, reverse=True)
        whole = next((each for each in snapshots if not _missing(each)), None)
        if named and whole is not None:
            yield f"whisper-{named[1] or ''}{named[2]}".lower(), whole


def _missing(folder: Path) -> str:
    return next((name for name in NEEDED if not (folder / name).is_file()), "")


def _look(name: str, folder: Path) -> Weights:
    if missing := _missing(folder):
        raise EngineError("model_not_found", f"{folder} is no model of faster-whisper: it has no {missing}")
    path = folder / BINARY
    try:
        with path.open("rb") as file:
            encoder, decoder = layers(file)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, struct.error) as error:
        raise EngineError("model_not_loaded", f"{path} is no model that can be used: {error}") from error
    kept_as = path.resolve().name
    if _is_sha256(kept_as) and kept_as != sha256:
        raise EngineError("model_not_loaded", f"{path} is broken: its SHA-256 is not the one that it is kept under")
    return Weights(name, folder, sha256, decoder >= encoder)


def layers(file: BinaryIO) -> tuple[int, int]:
    """Return how many layers hear, and how many write, by the names of a file's variables; reads no weights.

    Raises:
        ValueError: it is no Whisper that CTranslate2 wrote. struct.error, OSError: it is cut off.
    """

    def number(form: str) -> int:
        return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])

    def text() -> str:
        length = number("<H")
        return file.read(length)[: length - 1].decode("ascii", errors="replace")

    version = number("<I")
    if not 4 <= version <= VERSION_MAX:
        raise ValueError(f"its format is {version}, and 4 to {VERSION_MAX} are known")
    if (spec := text()) != "WhisperSpec":
        raise ValueError(f"it is a {spec[:40]!r}")
    number("<I")
    depth = {"encoder": 0, "decoder": 0}
    for _ in range(min(number("<I"), VARIABLES_MAX)):
        if layer := _LAYER(text()):
            depth[layer[1]] = max(depth[layer[1]], int(layer[2]) + 1)
        rank = number("<B")
        file.seek(4 * rank + 1, os.SEEK_CUR)
        file.seek(number("<I"), os.SEEK_CUR)
    if not all(depth.values()):
        raise ValueError("it has no layers")
    return depth["encoder"], depth["decoder"]
