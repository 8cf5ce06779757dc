"""The sandbox: where every program of a stranger's runs on a host.

Owns the folders, processes and control groups of runs. Its invariant: what runs in it reads nothing of the host but
what it was given, reaches nobody, uses no more than was agreed, and is gone, all of it, before its end is told. Where
that can't be held nothing runs. Bytes and seconds throughout. It imports kit, and knows no job.
"""

from comptoir.worker.sandbox.layers import LAYERS
from comptoir.worker.sandbox.service import Sandbox
from comptoir.worker.sandbox.types import SandboxMissing

__all__ = ["LAYERS", "Sandbox", "SandboxMissing"]
