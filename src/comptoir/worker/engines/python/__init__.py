"""The engine of the kind python: buyers' programs, each behind the walls of the sandbox, on the host's interpreter.

A job's life (`PythonEngine._work`): its inputs are fetched, its packages made ready (`environments`), its files put in
their places (`layout`), the program runs and is heard (`job`, `channel`), and what it left is delivered (`results`).
Charged is the time from the program's start to the end of its last process.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Literal

import uv as uv_package

from comptoir.kinds.capabilities import LACKING, PROBED
from comptoir.kinds.python import BadOrder, PythonOrder, read_order
from comptoir.kinds.python.order import BUILDS, CLASSES, EVERYBODYS, NETWORK, SANDBOX, TORCH
from comptoir.kinds.python.requirements import MACHINE_OWN, name_of
from comptoir.link import Frame, ModelOffer
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.engines.programs import Programs, Relay, disk_error, relayed
from comptoir.worker.engines.python.environments import Environments
from comptoir.worker.engines.python.host_python import host_python
from comptoir.worker.engines.python.index import index_settings, secrets_in
from comptoir.worker.engines.python.job import PythonJob
from comptoir.worker.engines.python.layout import lay_out
from comptoir.worker.engines.python.machine_own import found_in, meets
from comptoir.worker.engines.python.uv import Uv
from comptoir.worker.sandbox.types import MIB

YesNo = Literal["yes", "no"]

MODEL = "python"
"""Name under which any interpreter is offered; beside it the exact one, as ``python3.12``."""
DEFAULT_WALL_S = 3600
MEMORY_SHARE = 0.8
"""Part of the machine's memory that all slots together may use, unless the owner says otherwise."""


class PythonEngine:
    """Runs Python programs for buyers."""

    name = "python"

    def __init__(
        self,
        *,
        slots: int,
        folder: Path,
        wall_s: int = DEFAULT_WALL_S,
        memory_mib: int = 0,
        cores: int = 0,
        disk_mib: int = 16 * 1024,
        network: YesNo = "no",
        builds: YesNo = "no",
        unsandboxed: YesNo = "no",
        torch: Path | None = None,
        cache_mib: int = 20 * 1024,
        environment_mib: int = 8 * 1024,
        environment_s: float = 300.0,
    ) -> None:
        """Nothing happens yet.

        Args:
            wall_s, memory_mib, cores, disk_mib: the most that one job may agree on; 0: the machine's, shared by the
                slots.
            network: whether programs may reach public addresses.
            builds: whether packages without a wheel are built, behind the walls.
            unsandboxed: the owner's word that programs run without walls.
            torch: a folder of packages with this machine's own build of torch.
            cache_mib: of all environments together.
            environment_mib, environment_s: of one, and how long making it may take.
        """
        self._python = host_python()
        self._programs = Programs(folder, unsandboxed=unsandboxed == "yes")
        self._maxima = _maxima(slots, wall_s=wall_s, memory_mib=memory_mib, cores=cores, disk_mib=disk_mib)
        self._allowed = {NETWORK: network == "yes", BUILDS: builds == "yes"}
        self._unsandboxed = unsandboxed == "yes"
        self._torch = torch
        self._own = found_in(torch) if torch is not None else {}
        self._uv = Uv(
            _uv_binary(), self._python, bytes_max=environment_mib * MIB, seconds=environment_s,
            environment=os.environ,
        )  # fmt: skip
        self._environments = Environments(
            folder / "environments", uv=self._uv, new_run=self._programs.new_run, bytes_max=cache_mib * MIB,
            tag=f"{os.uname().machine} {self._python.version}",
        )  # fmt: skip

    async def start(self) -> None:
        """Find walls that hold, and look at the environments that are there.

        Raises:
            EngineError: none hold, or an option can't be granted; the message says what to do.
        """
        for field, least in EVERYBODYS.items():
            if self._maxima[field] < least:
                raise EngineError(
                    "engine_spec", f"engine python: {field} must be at least {least}, which any job may ask for"
                )
        if self._allowed[BUILDS]:
            if self._unsandboxed:
                raise EngineError("engine_spec", "engine python: builds=yes needs a sandbox, which is switched off")
            if known := secrets_in(index_settings(os.environ)):
                words = f"builds=yes would show the password in {known[0]} to what is built"
                raise EngineError("engine_spec", f"engine python: {words}; use an index without one")
        if self._torch is not None and TORCH not in self._own:
            raise EngineError("engine_spec", f"engine python: there is no torch in {self._torch}")
        if self._torch is not None and os.geteuid() == 0 and self._torch.stat().st_mode & 0o005 != 0o005:
            words = f"programs of root's worker are other users, who may not read {self._torch}"
            raise EngineError("engine_spec", f"engine python: {words}")
        await self._programs.start()
        try:
            await self._environments.open()
        except OSError as error:
            await self._programs.close()
            raise disk_error(error) from error

    async def models(self) -> list[ModelOffer]:
        """Return the interpreter under both of its names, with what its owner allows."""
        able = {name: PROBED if yes else LACKING for name, yes in self._able().items()}
        names = (MODEL, f"python{self._python.version}")
        return [ModelOffer(name, ["python"], can_continue=True, capabilities=able) for name in names]

    def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Run one program; closing stops it at once."""
        return relayed(request, self._work)

    async def close(self) -> None:
        """Erase all runs; environments stay."""
        await self._programs.close()

    async def _work(self, request: EngineRequest, relay: Relay) -> Finish:
        order, files = _order_of(request), request.files
        if files is None:
            raise EngineError("no_files", "this worker fetches and delivers no files")
        self._check_granted(order)
        sandboxed = self._programs.sandboxed
        paths = await relay.fetch(files, len(order.inputs))
        lines = self._lines_of(order)
        if lines:
            relay.progress(note="preparing the packages")
        async with self._environments.ready(lines, builds=order.builds, left_out=self._own) as environment:
            run = self._programs.new_run()
            try:
                lay = partial(
                    lay_out, order, run, files.folder, inputs=paths, environment=environment,
                    machine_own=self._torch if order.requirements else None, python=self._python, sandboxed=sandboxed,
                )  # fmt: skip
                layout = await asyncio.to_thread(lay)
                job = PythonJob(order, run, relay, wall_s=_wall_s(order, request), sandboxed=sandboxed)
                return await job.finish(await job.execute(layout), layout, files)
            finally:
                await run.erase()

    def _check_granted(self, order: PythonOrder) -> None:
        """Refuse what the offer does not grant, should it come all the same: another host may."""
        able = self._able()
        if missing := sorted(name for name in order.asks if not able[name]):
            raise EngineError("not_granted", f"this host grants no {', '.join(missing)}", fault="capacity", status=422)

    def _lines_of(self, order: PythonOrder) -> list[str]:
        """Return the lines that packages are fetched for.

        Raises:
            EngineError: this machine's own build is of another version than one asks for.
        """
        for line in order.requirements:
            name = name_of(line)
            if name in MACHINE_OWN and not meets(line, self._own.get(name, "")):
                words = f"this host has {name} {self._own.get(name) or 'not'}, and {line.strip()!r} was asked for"
                raise EngineError("requirements", words, fault="capacity", status=422)
        return [line for line in order.requirements if name_of(line) not in MACHINE_OWN]

    def _able(self) -> dict[str, bool]:
        said = {SANDBOX: self._programs.sandboxed, TORCH: bool(self._own), **self._allowed}
        return said | {each.name: self._maxima[each.field] >= each.most for each in CLASSES}


def _order_of(request: EngineRequest) -> PythonOrder:
    try:
        return read_order(request.body)
    except BadOrder as bad:
        raise EngineError("bad_order", f"the order {bad}", fault="buyer", status=422) from bad


def _wall_s(order: PythonOrder, request: EngineRequest) -> float:
    """Return the seconds that a program has: those of its limits, as far as they are paid."""
    paid_s = request.max_tokens / 1000 if request.max_tokens else order.limits.wall_s
    return min(order.limits.wall_s, paid_s)


def _maxima(slots: int, **given: int) -> dict[str, int]:
    """Return the most of each limit that one job may agree on; what was not given is the machine's, shared."""
    memory_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    own = {"memory_mib": int(memory_mib * MEMORY_SHARE) // slots, "cores": (os.cpu_count() or 1) // slots}
    return {field: value or max(own[field], EVERYBODYS[field]) for field, value in given.items()}


def _uv_binary() -> str:
    try:
        return uv_package.find_uv_bin()
    except FileNotFoundError as error:
        raise EngineError("engine_missing", "engine python needs the program uv: pip install uv") from error


def missing() -> str:
    """Return what the engine misses on this machine; empty if nothing. The sandbox is looked at apart."""
    try:
        _uv_binary()
    except EngineError as error:
        return error.message
    return ""


def about() -> str:
    """Return what is sold here, in words for the host's owner."""
    return f"sells Python {host_python().version}, the interpreter that this worker runs on"
