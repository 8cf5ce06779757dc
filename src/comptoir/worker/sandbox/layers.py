"""Which walls this machine can build: bubblewrap's, or Landlock's within namespaces of our own."""

import os
import shutil
import sys

import msgspec

from comptoir.kit.urlguard import UrlGuard
from comptoir.worker.sandbox import launch
from comptoir.worker.sandbox.cgroups import GroupParent
from comptoir.worker.sandbox.syscall_filter import MACHINES

LAYERS = ("bubblewrap", "landlock")
"""In the order of preference."""

LANDLOCK_MIN = 2
"""Linux 5.19: before that, nothing could be moved from one folder to another."""

NAMESPACES_TODO = (
    "allow user namespaces: sysctl user.max_user_namespaces=10000, and where they exist "
    "kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0; "
    "in a container, start it with --security-opt seccomp=unconfined"
)


class Layer(msgspec.Struct, frozen=True):
    """How programs are held here."""

    name: str
    """One of `LAYERS`, or ``none``."""
    bwrap: str = ""
    """Where bubblewrap is."""
    groups: GroupParent | None = None
    """Where control groups may be made; None: what is used is counted by looking."""
    guard: UrlGuard = UrlGuard()
    """Judges where a program with a network may connect to."""

    @property
    def sandboxed(self) -> bool:
        """Whether there are any walls."""
        return self.name != "none"


class LayerCheck(msgspec.Struct, frozen=True):
    """What was found of one layer."""

    name: str
    ready: bool
    why: str
    """In words for the host's owner: what holds, or what is missing."""
    todo: str = ""
    """What to do where it is missing; empty where nothing needs to be."""


def bubblewrap_found() -> str:
    """Return where bubblewrap is; empty: nowhere."""
    return shutil.which("bwrap") or ""


def landlock_version() -> int:
    """Return the version of Landlock in the running kernel; 0: it is absent or switched off."""
    try:
        return launch.call("syscall", 444, None, 0, 1)
    except OSError:
        return 0


def lacking(name: str) -> LayerCheck | None:
    """Return what is plainly missing for a layer; None: it is worth a trial."""
    if sys.platform != "linux":
        return LayerCheck(name, False, "it needs Linux", "run the worker on Linux, or in a virtual machine with it")
    if os.uname().machine not in MACHINES:
        return LayerCheck(name, False, f"it is built for {' and '.join(MACHINES)}, not for {os.uname().machine}")
    if not os.path.exists("/proc/self/ns/user"):
        return LayerCheck(name, False, "this kernel has no user namespaces", "take a kernel with CONFIG_USER_NS")
    if name == "bubblewrap" and not bubblewrap_found():
        return LayerCheck(name, False, "bubblewrap is not installed", "apt-get install bubblewrap")
    if name == "landlock" and landlock_version() < LANDLOCK_MIN:
        found = landlock_version()
        why = f"the kernel has Landlock {found}, not {LANDLOCK_MIN}" if found else "the kernel has no Landlock"
        return LayerCheck(name, False, why, "take Linux 5.19 or newer, or install bubblewrap")
    return None


def advice(why: str) -> str:
    """Return what can be done about a trial that failed with *why*."""
    if "unshare" in why or "uid_map" in why or "ermi" in why or "namespace" in why:
        return NAMESPACES_TODO
    return "see docs/sandbox.md, and report what is said here"
