"""uv, the resolver: which versions requirement lines lead to, and their files in a folder.

Where only wheels are taken, uv runs as the worker and outside the walls: installing a wheel unpacks it and runs nothing
of it, and the owner's index may be a private one. Where its owner allows builds, what is built runs code of strangers:
then all of uv runs behind the walls, with a network that reaches public addresses alone, and knows no password.
Bytecode is made behind the walls either way.
"""

import asyncio
import contextlib
import logging
import os
import signal
import stat
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.python.host_python import HostPython
from comptoir.worker.engines.python.index import folders_in, index_settings, no_index
from comptoir.worker.sandbox import usage
from comptoir.worker.sandbox.process import SandboxRun
from comptoir.worker.sandbox.results import NoResult, open_result
from comptoir.worker.sandbox.types import GIB, MIB, Bound, SandboxLimits

_log = logging.getLogger(__name__)

LOOK_S = 0.2
"""How often it is looked how much uv has written."""
FILES_MAX = 200_000
"""Most files of an environment, with what uv keeps while it makes it."""
SAID_BYTES_MAX = 64 * 1024
"""How much of what uv says is read."""
LOCK_BYTES_MAX = 1024 * 1024
WORDS_CHARS_MAX = 400
UNSATISFIABLE = 1
"""Exit code of uv where the lines are at fault; 2 is anything else."""
SITE = "site"
"""Folder, in the work folder of a run, that an environment is made in."""
PLACE = "/environment"
"""Where a program finds its environment."""
_LOCK, _LINES, _LEFT_OUT = "lock.txt", "requirements.txt", "left-out.txt"


class Uv:
    """Runs uv for one engine."""

    def __init__(
        self, binary: str, python: HostPython, *, bytes_max: int, seconds: float, environment: Mapping[str, str]
    ) -> None:
        """*bytes_max* and *seconds* bound what one call writes and how long it takes."""
        self._binary = os.path.realpath(binary)
        self._python = python
        self._bytes_max = bytes_max
        self._seconds = seconds
        self._settings = index_settings(environment)
        self._no_index = no_index(environment)

    async def lock(self, run: SandboxRun, lines: Sequence[str], *, left_out: Sequence[str], builds: bool) -> str:
        """Return the exact versions and hashes that *lines* lead to here, without the packages *left_out*.

        Raises:
            EngineError: they lead to none, or it can't be found out now.
        """
        (run.work / _LINES).write_text("".join(f"{line}\n" for line in lines))
        (run.work / _LEFT_OUT).write_text("".join(f"{name}\n" for name in left_out))
        words = ["pip", "compile", _LINES, "-o", _LOCK, "--generate-hashes", "--no-header", "--no-annotate"]
        words += ["--excludes", _LEFT_OUT] if left_out else []
        await self._uv(run, words, builds=builds)
        try:
            # What was built may have left a link there, to a file of the host's.
            with open_result(run.work, _LOCK) as file:
                return file.read(LOCK_BYTES_MAX).decode(errors="replace")
        except NoResult as error:
            raise EngineError("requirements", f"there is no lock: {error.why}", fault="buyer", status=422) from error

    async def install(self, run: SandboxRun, lock: str, *, builds: bool) -> Path:
        """Install what *lock* says into a folder of *run*, in which nothing ran yet, with bytecode; return the folder.

        Raises:
            EngineError: it can't be had now.
        """
        (run.work / _LOCK).write_text(lock)
        words = ["pip", "install", "--target", SITE, "--no-deps", "--require-hashes", "-r", _LOCK]
        site = run.work / SITE
        site.mkdir()
        await self._uv(run, [*words, "--link-mode", "copy"], builds=builds)
        await self._compile(run)
        if not stat.S_ISDIR(site.lstat().st_mode):
            raise EngineError("requirements", "what was built replaced its own folder", fault="buyer", status=422)
        return site

    async def _uv(self, run: SandboxRun, words: list[str], *, builds: bool) -> None:
        words = [*words, "--no-cache", "--no-progress", "--color", "never"]
        words += [] if builds else ["--only-binary", ":all:"]
        words += ["--no-index"] if self._no_index else []
        if builds:
            code, said = await self._inside(run, words)
        else:
            code, said = await self._outside(run, words)
        if code:
            _log.info("uv ended with %d: %s", code, said)
            raise _refusal(code, said)

    async def _outside(self, run: SandboxRun, words: list[str]) -> tuple[int, str]:
        """Run uv as the worker, in the run's work folder; nothing of it outlives this call."""
        said = run.folder / "uv.log"
        python = self._python.program(sandboxed=False)
        settings = self._settings | {"TMPDIR": str(run.work), "UV_PYTHON_DOWNLOADS": "never"}
        settings.setdefault("PATH", "/usr/bin:/bin")
        with said.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(self._binary, *words, "--python", python),
                cwd=run.work, env=settings, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(asyncio.shield(process.wait()), LOOK_S)
                        break
                    await self._check_size(run)
        except TimeoutError as error:
            late = f"fetching the packages took longer than {self._seconds:g} s"
            raise EngineError("requirements", late, fault="capacity") from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        await self._check_size(run)
        return process.returncode or 0, _read(said)

    async def _check_size(self, run: SandboxRun) -> None:
        look = partial(usage.read_folder, run.work, bytes_max=self._bytes_max, files_max=FILES_MAX)
        found = await asyncio.to_thread(look)
        if found.disk_bytes > self._bytes_max or found.files > FILES_MAX:
            raise _too_large(self._bytes_max)

    async def _inside(self, run: SandboxRun, words: list[str]) -> tuple[int, str]:
        """Run uv behind the walls, where packages are built."""
        said = bytearray()

        async def hear(piece: bytes) -> None:
            said.extend(piece[: SAID_BYTES_MAX - len(said)])

        bounds = [Bound(self._binary, "/uv"), *self._python.bounds]
        bounds += [Bound(str(each), str(each)) for each in folders_in(self._settings)]
        env = {name: value for name, value in self._settings.items() if name.startswith("UV_")}
        env |= {**self._python.env(sandboxed=True), "UV_PYTHON_DOWNLOADS": "never"}
        process = await run.start(
            ["/uv", *words, "--python", self._python.program(sandboxed=True)],
            limits=self._limits(), inputs=bounds, env=env, on_stdout=hear, on_stderr=hear, network=True,
        )  # fmt: skip
        try:
            report = await process.wait()
        finally:
            await process.stop()
        if report.exit_code is None:
            raise EngineError("requirements", f"reached the limit of {report.reason}", fault="buyer")
        return report.exit_code, said.decode(errors="replace")

    async def _compile(self, run: SandboxRun) -> None:
        """Make bytecode of all of it, as far as it goes: code of another Python's stays as it is."""
        sandboxed = run.inside("/work") == "/work"
        place = run.inside(f"/work/{SITE}")
        words = ["-I", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", place]
        process = await run.start(
            [self._python.program(sandboxed=sandboxed), *words, "-p", PLACE if sandboxed else place, place],
            limits=self._limits(), inputs=self._python.bounds, env=self._python.env(sandboxed=sandboxed),
        )  # fmt: skip
        try:
            await process.wait()
        finally:
            await process.stop()

    def _limits(self) -> SandboxLimits:
        return SandboxLimits(
            wall_s=self._seconds, cpu_s=self._seconds * 2, cores=2, memory_bytes=2 * GIB, file_bytes=self._bytes_max,
            disk_bytes=self._bytes_max, disk_files=FILES_MAX, output_bytes=4 * MIB, network_bytes=2 * self._bytes_max,
        )  # fmt: skip


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(SAID_BYTES_MAX).decode(errors="replace")
    except FileNotFoundError:
        return ""


def _too_large(bytes_max: int) -> EngineError:
    words = f"the packages take more than {bytes_max // MIB} MiB or {FILES_MAX} files, which this host does not allow"
    return EngineError("requirements", words, fault="buyer", status=422)


def _refusal(code: int, said: str) -> EngineError:
    """Return what becomes of an order whose packages uv could not get."""
    if code == UNSATISFIABLE:
        # Without lines that say where packages lie: that is the owner's business.
        causes = [line.strip() for line in said.splitlines() if "://" not in line and " /" not in line]
        words = " ".join(causes).strip()[:WORDS_CHARS_MAX]
        return EngineError("requirements", f"the requirements can't be met here: {words}", fault="buyer", status=422)
    return EngineError("requirements", "the packages can't be fetched now", fault="capacity")
