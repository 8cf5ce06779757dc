"""What a program sees instead of the host's files: a root of its own, made of a few folders that every program needs,
what it was given, and what it may write."""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from comptoir.worker.sandbox.types import Bound

WORK, HOME, TMP, SHM = "/work", "/home/user", "/tmp", "/dev/shm"
PLACES = {"work": WORK, "home": HOME, "tmp": TMP, "shm": SHM}
"""Where the parts of a run's folder are seen."""

_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Links into /usr on today's systems, folders on others."""
_ETC = (
    "alternatives",
    "fonts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "OpenCL",
    "pki/tls/certs",
    "ssl/certs",
    "ssl/openssl.cnf",
    "vulkan",
)
"""What loaders, libraries and TLS read; nothing of the host's people, names or services."""
_SYS = ("/sys/devices", "/sys/bus/pci", "/sys/class/drm", "/sys/dev/char")
"""What drivers look a GPU up in; shown only with one."""

_PATH = "/usr/local/bin:/usr/bin:/bin"


class Mount(msgspec.Struct, frozen=True):
    """One place of the host that is seen inside."""

    how: str
    """``ro``, ``rw``, or ``dev``: as ro, and device files work."""
    source: str
    target: str


class View(msgspec.Struct, frozen=True):
    """Everything that a program sees, beside /proc and the plain devices."""

    mounts: list[Mount]
    links: list[tuple[str, str]]
    """Text and path of each symbolic link."""


def make_view(folder: Path, *, uid: int, inputs: Sequence[Bound], devices: Sequence[str]) -> View:
    """Put together what the run in *folder* sees.

    Raises:
        ValueError: an input or device is missing or not what it has to be; the message names it.
    """
    mounts, links = [Mount("ro", "/usr", "/usr")], []
    for name in _TOP:
        place = Path("/", name)
        if place.is_symlink():
            links.append((os.readlink(place), str(place)))
        elif place.is_dir():
            mounts.append(Mount("ro", str(place), str(place)))
    for name in _ETC:
        place = Path("/etc", name)
        if place.exists():
            mounts.append(Mount("ro", str(place.resolve()), str(place)))
    for name, text in _identity(uid, os.getgid() if os.geteuid() else uid).items():
        made = folder / "etc" / name
        made.unlink(missing_ok=True)  # Of the program before, which nobody but root could write anew.
        made.write_text(text)
        made.chmod(0o444)
        mounts.append(Mount("ro", str(made), f"/etc/{name}"))
    mounts += [Mount("rw", str(folder / part), place) for part, place in PLACES.items()]
    mounts += [_checked(each) for each in inputs]
    mounts += [_device(path) for path in devices]
    if devices:
        mounts += [Mount("ro", path, path) for path in _SYS if os.path.isdir(path)]
    return View(mounts, links)


def _identity(uid: int, gid: int) -> dict[str, str]:
    return {
        "passwd": f"job:x:{uid}:{gid}::{HOME}:/bin/sh\n",
        "group": f"job:x:{gid}:\n",
        "hosts": "127.0.0.1 localhost sandbox\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "resolv.conf": "",
    }


def _checked(given: Bound) -> Mount:
    source, target = Path(given.source), given.target
    if not source.is_absolute() or not source.exists() or source.is_symlink():
        raise ValueError(f"input {given.source!r} is not there, or a link")
    if not target.startswith("/") or os.path.normpath(target) != target or target == "/":
        raise ValueError(f"input {given.source!r} can't be shown at {target!r}")
    return Mount("ro", given.source, target)


def _device(path: str) -> Mount:
    if not path.startswith("/dev/") or os.path.normpath(path) != path:
        raise ValueError(f"{path!r} is no device")
    if not os.path.exists(path) or not stat.S_ISCHR(os.stat(path).st_mode):
        raise ValueError(f"there is no device {path!r}")
    return Mount("dev", path, path)


def device_groups(devices: Sequence[str]) -> list[int]:
    """Return the groups without which *devices* can't be opened."""
    facts = [os.stat(path) for path in devices]
    return sorted({each.st_gid for each in facts if each.st_mode & 0o006 != 0o006})


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a program: a few words that programs rely on, and what it was *given*.

    Raises:
        ValueError: a name or value that can't be one.
    """
    for name, value in given.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"{name!r} can't be set in an environment")
    return {"PATH": _PATH, "HOME": HOME, "TMPDIR": TMP, "LANG": "C.UTF-8", "USER": "job", **given}
