"""The worker's stored state: host id, host key and signing seed, in one file that only its owner can read.

``host.json`` (mode 0600) in a directory per coordinator, locked while a worker runs, replaced atomically.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from comptoir.kit.folderlock import FolderLock, FolderTaken
from comptoir.kit.signing import SigningKey
from comptoir.worker.errors import StateUnusable

STATE_BYTES_MAX = 64 * 1024
"""Largest state file that is read."""


class HostState(msgspec.Struct, frozen=True):
    """What is kept between starts."""

    url: str
    seed: str
    """Seed of the Ed25519 signing key, 64 hexadecimal digits."""
    host_id: str = ""
    api_key: str = ""
    """``hk_live_…``; empty until registered."""


def default_directory(url: str) -> Path:
    """Return the directory for the coordinator at *url* below the user's state directory."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base) / "comptoir" / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def kept_directory(urls: Sequence[str]) -> Path:
    """Return the directory of a trading post at any of *urls*: the first that holds a state, else that of the first."""
    directories = [default_directory(url) for url in urls]
    return next((one for one in directories if (one / "host.json").exists()), directories[0])


class StateFile:
    """``host.json`` in *directory*, held exclusively between `open` and `close`.

    *urls* are the addresses of its trading post; the first is stored.
    """

    def __init__(self, directory: Path, urls: Sequence[str]) -> None:
        self.path = directory / "host.json"
        self._urls = [url.rstrip("/") for url in urls]
        self._lock = FolderLock(directory, name="host.lock")

    def open(self) -> HostState:
        """Lock the directory and return the stored state, or a new one with a new seed (not yet written).

        Raises:
            StateUnusable: not writable, locked by another worker, unreadable, or of another coordinator.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock.take()
        except FolderTaken as error:
            raise StateUnusable(
                f"another worker is running with {self.path}; give this one a directory of its own (--state DIR)"
            ) from error
        except OSError as error:
            raise StateUnusable(f"{self.path.parent} can't be used: {error}; choose another (--state DIR)") from error
        try:
            return self._read()
        except BaseException:
            self.close()
            raise

    def write(self, state: HostState) -> None:
        """Replace the file atomically (temporary file, fsync, rename); readable by its owner only.

        Raises:
            StateUnusable: the directory is not writable or full; the old file is untouched.
        """
        temporary = ""
        try:
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".host-")
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(state)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            raise StateUnusable(f"{self.path} can't be written: {error}") from error

    def fresh(self) -> HostState:
        """Return the state of a host that has not registered, with a new seed (not yet written)."""
        return HostState(url=self._urls[0], seed=SigningKey.generate().seed().hex())

    def close(self) -> None:
        """Unlock; idempotent."""
        self._lock.release()

    def _read(self) -> HostState:
        try:
            with self.path.open("rb") as file:
                state = msgspec.json.decode(file.read(STATE_BYTES_MAX), type=HostState)
            SigningKey(bytes.fromhex(state.seed))
        except FileNotFoundError:
            return self.fresh()
        except (OSError, ValueError) as error:
            raise StateUnusable(f"{self.path} can't be read: {error}. Delete it to register as a new host.") from error
        if state.url not in self._urls:
            raise StateUnusable(
                f"{self.path} belongs to {state.url}, not to {', '.join(self._urls)}; choose another directory with "
                "--state DIR"
            )
        return state
