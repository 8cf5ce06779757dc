"""Environments: the packages of jobs, made once and shown to every job that asks for the same, read-only.

An environment is keyed by its lock, the exact versions and hashes that requirement lines led to; the lock of lines is
kept as well, so that the second job with the same lines needs no index. What was built is keyed by the lines too: who
has something built decides what their own environment holds, and nobody else's. Several workers may share the folder.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from comptoir.kinds.python.requirements import MACHINE_OWN, name_of
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.python.uv import SITE, Uv
from comptoir.worker.sandbox import usage
from comptoir.worker.sandbox.folders import erase
from comptoir.worker.sandbox.process import SandboxRun

PREPARED_AT_ONCE = 2
"""Environments that are made at one time; it costs the host disk and network that nobody pays for."""
LOCK_FRESH_S = 24 * 3600.0
"""How long lines mean the same versions; then they are looked up anew, and the old lock serves where that fails."""
LOCKS_MAX = 4096
REFUSED_S = 60.0
"""How long lines that can't be met are refused without another try."""
REFUSED_MAX = 256
FILES_MAX = 10_000_000


class Environment:
    """An environment that a job uses: it stays until `release`."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.site = folder / SITE
        self._descriptor = descriptor

    def release(self) -> None:
        """Let it be evicted again; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Environments:
    """The environments of one engine, below a folder that may be shared."""

    def __init__(self, folder: Path, *, uv: Uv, new_run: Callable[[], SandboxRun], bytes_max: int, tag: str) -> None:
        """*bytes_max* bounds all of them together, as far as none is in use; *tag* names what they are made for."""
        self._made = folder / "made"
        self._locks = folder / "locks"
        self._uv = uv
        self._new_run = new_run
        self._bytes_max = bytes_max
        self._tag = tag
        self._turns = asyncio.Semaphore(PREPARED_AT_ONCE)
        self._making: dict[str, asyncio.Lock] = {}
        self._refused: dict[str, tuple[float, EngineError]] = {}

    async def open(self) -> None:
        """Make the folders, and evict what is too much.

        Raises:
            OSError: they can't be.
        """
        for each in (self._made, self._locks):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(self._evict)

    @contextlib.asynccontextmanager
    async def ready(
        self, lines: Sequence[str], *, builds: bool, left_out: Mapping[str, str]
    ) -> AsyncIterator[Path | None]:
        """Give the folder of an environment with *lines* for as long as the block lasts; None: there are none.

        Args:
            builds: packages without a wheel are built.
            left_out: packages that this machine has of its own, with their versions; they are not fetched.

        Raises:
            EngineError: they can't be had; whose fault it is says whether another host may.
        """
        wanted = sorted({line.strip() for line in lines})
        if not wanted:
            yield None
            return
        key = _hash(self._tag, str(builds), *sorted(left_out), *wanted)
        turn = self._making.setdefault(key, asyncio.Lock())
        async with turn:
            self._check_refused(key)
            environment = await self._take(key, wanted, builds=builds, left_out=left_out)
        if not turn.locked():
            self._making.pop(key, None)
        try:
            yield environment.site
        finally:
            environment.release()

    async def _take(self, key: str, wanted: list[str], *, builds: bool, left_out: Mapping[str, str]) -> Environment:
        lock, fresh = self._known_lock(key)
        if lock and fresh and (found := self._find(self._name(lock, key, builds=builds))):
            return found
        async with self._turns:
            try:
                return await self._prepare(key, wanted, lock=lock, builds=builds, left_out=left_out)
            except EngineError as error:
                old = self._find(self._name(lock, key, builds=builds)) if lock else None
                if old is not None:
                    return old
                if error.fault == "buyer":
                    self._refuse(key, error)
                raise

    async def _prepare(
        self, key: str, wanted: list[str], *, lock: str, builds: bool, left_out: Mapping[str, str]
    ) -> Environment:
        """Look the lines up, and make the environment unless another job's lines led to it before."""
        run = self._new_run()
        try:
            lock = await self._uv.lock(run, wanted, left_out=sorted(left_out), builds=builds)
        finally:
            await run.erase()
        if own := sorted(MACHINE_OWN & {name_of(line.partition("==")[0]) for line in lock.splitlines()}):
            words = f"these packages need {', '.join(own)}, which are not fetched: add a line {own[0]!r} to the requirements"
            raise EngineError(
                "requirements", f"{words}, and a host with its own build gets the job", fault="buyer", status=422
            )
        name = self._name(lock, key, builds=builds)
        if (found := self._find(name)) is None:
            run = self._new_run()
            try:
                site = await self._uv.install(run, lock, builds=builds)
                await asyncio.to_thread(self._keep, site, name)
            finally:
                await run.erase()
            found = self._find(name)
        if found is None:
            raise EngineError("requirements", "the environment was evicted at once: this host keeps too few")
        await asyncio.to_thread(self._keep_lock, key, lock)
        await asyncio.to_thread(self._evict)
        return found

    def _name(self, lock: str, key: str, *, builds: bool) -> str:
        return _hash(self._tag, lock, key if builds else "")

    def _known_lock(self, key: str) -> tuple[str, bool]:
        """Return what lines led to before, and whether that still counts."""
        path = self._locks / key
        try:
            return path.read_text(), time.time() - path.stat().st_mtime < LOCK_FRESH_S
        except FileNotFoundError:
            return "", False

    def _keep_lock(self, key: str, lock: str) -> None:
        part = self._locks / f"{key}.{os.getpid()}"
        part.write_text(lock)
        part.rename(self._locks / key)
        kept = sorted(self._locks.iterdir(), key=_used_at)
        for each in kept[: max(0, len(kept) - LOCKS_MAX)]:
            each.unlink(missing_ok=True)

    def _find(self, name: str) -> Environment | None:
        """Return an environment that is there, held against eviction."""
        folder = self._made / name
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.utime(folder)
            same = folder.stat().st_ino == os.fstat(descriptor).st_ino
        except (BlockingIOError, FileNotFoundError):
            same = False
        if not same:
            os.close(descriptor)
            return None
        return Environment(folder, descriptor)

    def _keep(self, site: Path, name: str) -> None:
        """Move what was made to its place, for everybody to read; another worker may have been faster."""
        _open_to_all(site)
        part = self._made / f"{name}.{os.getpid()}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o755)
        site.rename(part / SITE)
        try:
            part.rename(self._made / name)
        except OSError:
            erase(part)

    def _evict(self) -> None:
        """Remove the longest unused of those that nobody uses, until the rest is not too much."""
        sizes = {
            each: usage.read_folder(each, bytes_max=2**63, files_max=FILES_MAX).disk_bytes for each in self._kept()
        }
        total = sum(sizes.values())
        for folder in sorted(sizes, key=_used_at):
            if total <= self._bytes_max:
                return
            if self._remove(folder):
                total -= sizes[folder]

    def _kept(self) -> list[Path]:
        return [each for each in self._made.iterdir() if each.is_dir()]

    def _remove(self, folder: Path) -> bool:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # First out of the way: half an environment must never be found.
            gone = folder.with_suffix(".gone")
            folder.rename(gone)
            erase(gone)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _check_refused(self, key: str) -> None:
        until_s, error = self._refused.get(key, (0.0, None))
        if error is not None and time.monotonic() < until_s:
            raise EngineError(error.code, error.message, fault=error.fault, status=error.status)

    def _refuse(self, key: str, error: EngineError) -> None:
        while len(self._refused) >= REFUSED_MAX:
            self._refused.pop(next(iter(self._refused)))
        self._refused[key] = (time.monotonic() + REFUSED_S, error)


def _hash(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:40]


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _open_to_all(folder: Path) -> None:
    """Make all of it the worker's, for everybody to read and nobody to change; what is no file or folder goes."""
    uid, gid = os.geteuid(), os.getegid()
    for _, _, files, descriptor in os.fwalk(folder, follow_symlinks=False):
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, 0o755)
        for name in files:
            facts = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if not (stat.S_ISREG(facts.st_mode) or stat.S_ISLNK(facts.st_mode)):
                os.unlink(name, dir_fd=descriptor)
                continue
            os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(facts.st_mode):
                os.chmod(name, 0o755 if facts.st_mode & 0o100 else 0o644, dir_fd=descriptor)
