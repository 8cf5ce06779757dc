"""Become an ordinary user, who can reach this Python and these files wherever they lie, then run a command.

``python ordinary.py UID PATH… -- COMMAND…``, as root. Where a path leads through a folder that is closed to others (a
Python below /root), the folder is covered, in a mount namespace of this process alone, by one that shows nothing but
that path.
"""

import os
import sys
from pathlib import Path

from comptoir.worker.sandbox import launch


def closed_above(path: Path) -> Path | None:
    """Return the highest folder on the way to *path* that others may not pass through."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None


def show(paths: list[Path]) -> None:
    closed: dict[Path, list[Path]] = {}
    for path in paths:
        folder = closed_above(path)
        if folder is not None:
            closed.setdefault(folder, []).append(path)
    launch.call("unshare", 0x20000)
    launch.mount("none", "/", flags=16384 | 1 << 18)
    for folder, inner in closed.items():
        opened = {path: os.open(path, os.O_PATH) for path in inner}
        launch.mount("tmpfs", str(folder), "tmpfs", options="mode=0755")
        for path, descriptor in opened.items():
            path.mkdir(parents=True, exist_ok=True)
            launch.mount(f"/proc/self/fd/{descriptor}", str(path), flags=4096 | 16384)
            os.close(descriptor)


def main() -> None:
    uid, cut = int(sys.argv[1]), sys.argv.index("--")
    show([Path(word).resolve() for word in sys.argv[2:cut]])
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.execv(sys.argv[cut + 1], sys.argv[cut + 1 :])


if __name__ == "__main__":
    main()
