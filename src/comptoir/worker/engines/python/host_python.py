"""The interpreter that jobs run on: the host's own, without what its owner installed in it."""

import glob
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from comptoir.worker.sandbox.types import Bound

PLACE = "/python"
"""Where a program finds an interpreter that does not lie below /usr."""


class HostPython(NamedTuple):
    """One interpreter."""

    prefix: str
    """Its folder on the host."""
    version: str
    """``3.12``"""

    @property
    def place(self) -> str:
        """Its folder inside the walls."""
        return self.prefix if self.prefix == "/usr" or self.prefix.startswith("/usr/") else PLACE

    @property
    def bounds(self) -> list[Bound]:
        """What of the host a program has to see to run on it."""
        return [] if self.place == self.prefix else [Bound(self.prefix, PLACE)]

    def program(self, *, sandboxed: bool) -> str:
        """Return the path of the interpreter, as a program finds it."""
        return f"{self.place if sandboxed else self.prefix}/bin/python{self.version}"

    def env(self, *, sandboxed: bool) -> Mapping[str, str]:
        """Return what its loader needs: where its own library is, if it has one."""
        if not glob.glob(f"{glob.escape(self.prefix)}/lib/libpython*.so*"):
            return {}
        return {"LD_LIBRARY_PATH": f"{self.place if sandboxed else self.prefix}/lib"}


def host_python() -> HostPython:
    """Return the interpreter that this worker runs on, without its virtual environment."""
    return HostPython(os.path.realpath(sys.base_prefix), f"{sys.version_info.major}.{sys.version_info.minor}")
