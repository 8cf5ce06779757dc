"""Finds the ffmpeg of this machine: the owner's, else the system's, else the one that imageio-ffmpeg brings."""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import msgspec

from comptoir.worker.engines.base import EngineError
from comptoir.worker.sandbox.types import Bound

REMEDY = "apt-get install ffmpeg, or pip install 'comptoir[ffmpeg]'"
VERSION_S = 10.0
"""How long a program may take to say its version."""
VERSION_MIN = 5
"""Oldest version that the arguments are for."""

_SEEN = ("/usr/", "/bin/", "/lib/", "/lib64/")
"""What every program in the sandbox sees of this machine at the same place."""
_FOLDER = "/opt/ffmpeg"
_version = re.compile(r"^ff\w+ version (\S+)")
_major = re.compile(r"n?(\d+)\.").match


class FfmpegProgram(msgspec.Struct, frozen=True):
    """Where the programs are, and how the sandbox shows them."""

    ffmpeg: str
    """Absolute path, without links."""
    ffprobe: str
    """Empty: there is none, and ffmpeg's own report is read."""

    @property
    def bound(self) -> tuple[Bound, ...]:
        """What has to be shown of this machine, beside what every program sees."""
        return tuple(Bound(path, _inside(path)) for path in (self.ffmpeg, self.ffprobe) if path and not _seen(path))

    def path(self, program: str, *, sandboxed: bool) -> str:
        """Return how a program finds *program*, one of the two."""
        return program if _seen(program) or not sandboxed else _inside(program)


def _seen(path: str) -> bool:
    return path.startswith(_SEEN)


def _inside(path: str) -> str:
    return f"{_FOLDER}/{'ffprobe' if 'ffprobe' in os.path.basename(path) else 'ffmpeg'}"


def find_program(named: str = "") -> FfmpegProgram:
    """Find ffmpeg, and the ffprobe beside it or on the path.

    Args:
        named: the owner's word for where it is.

    Raises:
        EngineError: there is none; the message says what to install.
    """
    found = shutil.which(named or "ffmpeg") or ("" if named else _packaged())
    if not found:
        what = f"no program is at {named}" if named else "ffmpeg is not installed"
        raise EngineError("engine_missing", f"{what}: {REMEDY}")
    ffmpeg = os.path.realpath(found)
    beside = Path(ffmpeg).with_name("ffprobe")
    ffprobe = str(beside) if os.access(beside, os.X_OK) else (not named and shutil.which("ffprobe")) or ""
    return FfmpegProgram(ffmpeg, os.path.realpath(ffprobe) if ffprobe else "")


def _packaged() -> str:
    """Return the program that imageio-ffmpeg brings; empty: it is not installed, or brings none for this machine."""
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        return ""
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except RuntimeError:
        return ""


def version_in(report: str) -> str:
    """Return the version that a program's report begins with.

    Raises:
        EngineError: it is none, or too old.
    """
    said = _version.match(report)
    if not said:
        raise EngineError("engine_missing", f"what is called ffmpeg here does not say its version: {REMEDY}")
    major = _major(said[1])  # A build of the day has a hash for a version, and is new enough.
    if major and int(major[1]) < VERSION_MIN:
        raise EngineError("engine_missing", f"ffmpeg {said[1]} is older than {VERSION_MIN}: {REMEDY}")
    return said[1]


def found() -> str:
    """Say which ffmpeg is here and in which version, for `comptoir host doctor`.

    Raises:
        EngineError: none that could be used; the message says what to install.
    """
    program = find_program()
    try:
        done = subprocess.run([program.ffmpeg, "-version"], capture_output=True, timeout=VERSION_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError("engine_missing", f"{program.ffmpeg} does not run: {error}") from error
    version = version_in(done.stdout.decode(errors="replace"))
    probe = "ffprobe" if program.ffprobe else "its own report, since there is no ffprobe"
    return f"{program.ffmpeg}, version {version}; probes with {probe}"


def missing() -> str:
    """Return what is missing here, with what to do about it; empty: nothing. For `comptoir host doctor`."""
    try:
        found()
    except EngineError as error:
        return error.message
    return ""
