"""The sandbox of one worker: it finds walls that hold by trying them, and makes runs behind those, or none at all."""

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from comptoir.kit.urlguard import UrlGuard
from comptoir.worker.sandbox.cgroups import GroupParent, find_parent
from comptoir.worker.sandbox.folders import RunsFolder, erase
from comptoir.worker.sandbox.layers import (
    LAYERS,
    Layer,
    LayerCheck,
    advice,
    bubblewrap_found,
    lacking,
)
from comptoir.worker.sandbox.process import SandboxRun
from comptoir.worker.sandbox.types import MIB, SandboxFailed, SandboxLimits, SandboxMissing

TRIAL = SandboxLimits(wall_s=20, cpu_s=5, memory_bytes=128 * MIB, processes=16, disk_bytes=MIB, output_bytes=64 * 1024)


class Sandbox:
    """Every program of a stranger's on this host runs in here.

    Use: `open`, for each job `new_run`, in it `SandboxRun.start`, then `SandboxRun.erase`; at the end `close`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        unsandboxed: bool = False,
        layers: Sequence[str] = LAYERS,
        control_groups: bool = True,
        guard: UrlGuard | None = None,
    ) -> None:
        """Nothing happens yet.

        Args:
            folder: where runs have their files; several workers may share it, and none may be writable by others.
            unsandboxed: the owner's explicit word that programs run without walls. Refused for root.
            layers: those to choose among, best first.
            control_groups: whether to use them where they are.
        """
        self._runs = RunsFolder(folder)
        self._unsandboxed = unsandboxed
        self._choice = layers
        self._groups = control_groups
        self._guard = guard if guard is not None else UrlGuard()
        self._layer: Layer | None = None
        self._number = 0
        self.checks: list[LayerCheck] = []
        """What `open` found of each layer, for the owner."""

    @property
    def layer(self) -> Layer:
        """The walls in use."""
        assert self._layer is not None, "open the sandbox first"
        return self._layer

    @property
    def sandboxed(self) -> bool:
        """Whether programs are held; an offer says so to buyers."""
        return self.layer.sandboxed

    async def open(self, *, every: bool = False) -> None:
        """Clear what a killed worker left, and try the walls with a program that does nothing.

        Args:
            every: also try the layers after the first that holds, so that `checks` tells of all.

        Raises:
            SandboxMissing: no wall holds here and the owner has not given their word, or has and the worker is root.
        """
        if self._unsandboxed and os.geteuid() == 0:
            raise SandboxMissing("without walls nothing runs as root", "run the worker as an ordinary user")
        await asyncio.to_thread(self._runs.open)
        parent = find_parent() if self._groups and sys.platform == "linux" else None
        if parent is not None:
            await asyncio.to_thread(self._clear_groups, parent)
        if self._unsandboxed:
            self._layer = Layer("none")
            return
        for name in self._choice:
            if self._layer is None or every:
                await self._try(name, parent)
        if self._layer is None:
            await self.close()
            todo = next((each.todo for each in self.checks if each.todo), "see docs/sandbox.md")
            raise SandboxMissing("; ".join(f"{each.name}: {each.why}" for each in self.checks), todo)

    async def close(self) -> None:
        """Erase all runs; those that are under way have to be over. Idempotent."""
        await asyncio.to_thread(self._runs.close)

    def new_run(self) -> SandboxRun:
        """Make the folder of a run."""
        self._number += 1
        return SandboxRun(self.layer, self._runs.new_run(self._number), f"{self._runs.name}-{self._number}")

    def _clear_groups(self, parent: GroupParent) -> None:
        """Kill and remove what workers that are gone left in control groups."""
        for name in self._runs.cleared:
            for group in parent.left_of(name):
                group.kill()
                group.remove()

    async def _try(self, name: str, parent: GroupParent | None) -> None:
        """Note what becomes of one layer, with control groups and, where those fail, without."""
        missing = lacking(name)
        if missing is not None:
            self.checks.append(missing)
            return
        why = ""
        for groups in (parent, None) if parent is not None else (None,):
            layer = Layer(name, bubblewrap_found(), groups, self._guard)
            why = await self._trial(layer)
            if not why:
                held = f"memory is counted by {'control groups' if groups else 'looking, ten times a second'}"
                self.checks.append(LayerCheck(name, True, held))
                self._layer = self._layer or layer
                return
        self.checks.append(LayerCheck(name, False, why, advice(why)))

    async def _trial(self, layer: Layer) -> str:
        """Run a program that does nothing; return why that failed, empty if it did not."""
        self._number += 1
        folder = self._runs.new_run(self._number)
        said = bytearray()

        async def hear(piece: bytes) -> None:
            said.extend(piece)

        try:
            run = SandboxRun(layer, folder, f"{self._runs.name}-{self._number}")
            process = await run.start([shutil.which("true") or "/bin/true"], limits=TRIAL, on_stderr=hear)
            report = await process.wait()
        except SandboxFailed as failed:
            return said.decode(errors="replace").strip() or failed.why
        finally:
            await asyncio.to_thread(erase, folder)
        return "" if report.exit_code == 0 else f"a program that does nothing ended with {report.exit_code}"
