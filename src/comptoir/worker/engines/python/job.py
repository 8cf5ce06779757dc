"""One program from its start to the delivery of what it left."""

import asyncio
import io
from functools import partial
from typing import BinaryIO

from comptoir.kinds.files import file_frame
from comptoir.kinds.python import PythonOrder
from comptoir.link import Usage
from comptoir.worker.engines.base import EngineError, Finish, JobFiles
from comptoir.worker.engines.programs import Relay
from comptoir.worker.engines.python.channel import CHANNEL_BYTES_MAX, Channel, PrintedLines, Shown
from comptoir.worker.engines.python.layout import Layout
from comptoir.worker.engines.python.results import (
    RESULT_FILE,
    ProgramEnd,
    artifact_names,
    files_left,
    fits,
    how_it_ended,
    media_of,
    readable,
)
from comptoir.worker.sandbox.process import SandboxProcess, SandboxRun
from comptoir.worker.sandbox.results import NoResult, open_result
from comptoir.worker.sandbox.types import MIB, RunReport, SandboxLimits

TELL_S = 1.0
"""How often the time that the program has taken is told."""
STARTING_S = 30.0
"""How long walls and interpreter may take until the program itself begins, beyond its own time."""
OPEN_FILES = 4096
DISK_FILES = 10_000


class _Undelivered(Exception):
    """A file of the program's can't be delivered, by its own or its buyer's doing."""


class PythonJob:
    """One program in its run."""

    def __init__(self, order: PythonOrder, run: SandboxRun, relay: Relay, *, wall_s: float, sandboxed: bool) -> None:
        """*wall_s*: the time that it has, no more than was agreed."""
        self._order, self._run, self._relay = order, run, relay
        self._wall_s = wall_s
        self._sandboxed = sandboxed
        self._shown = Shown(relay)
        self._channel = Channel(self._shown)
        self._printed = PrintedLines(self._shown)
        self._wall_ms = 0

    async def execute(self, layout: Layout) -> RunReport:
        """Run the program to its end; nothing of it outlives this call."""
        process = await self._run.start(
            layout.argv,
            limits=self._limits(), inputs=layout.bounds, env=layout.env, stdin=self._order.stdin.encode(),
            on_stdout=self._print, on_stderr=partial(self._relay.log, "stderr"), on_channel=self._channel.take,
            network=self._order.network and self._sandboxed,
        )  # fmt: skip
        clock = asyncio.create_task(self._keep_time(process))
        try:
            report = await process.wait()
            self._wall_ms = min(self._shown.wall_ms, int(self._wall_s * 1000))
            return report
        finally:
            clock.cancel()
            await process.stop()
            await asyncio.wait((clock,))

    async def finish(self, report: RunReport, layout: Layout, files: JobFiles) -> Finish:
        """Deliver what the program left, say how it ended, and return the end of the job.

        Raises:
            EngineError: files can't be delivered, and not because of their owner's limits.
        """
        ended = how_it_ended(report, self._channel, calls=self._order.calls)
        self._relay.progress(note="delivering files", count=self._wall_ms)
        result = self._channel.result
        if result is not None and not readable(result):
            ended, result = (
                ProgramEnd("result", "what it gave as its result is no JSON, or too long", report.exit_code),
                None,
            )
        inline = result is not None and fits(result)
        try:
            if result is not None and not inline:
                await self._deliver(files, io.BytesIO(result), RESULT_FILE)
            await self._deliver_left(layout, files, taken=[] if inline or result is None else [RESULT_FILE])
        except _Undelivered as error:
            if ended.reason == "stop":
                ended = ProgramEnd("files", str(error), 0)
        cpu_ms = min(round(report.cpu_s * 1000), self._wall_ms * self._order.limits.cores)
        await self._relay.say(ended.frame(self._wall_ms, result if inline else None))
        return Finish(ended.reason, Usage(prompt_tokens=cpu_ms, completion_tokens=self._wall_ms))

    async def _deliver_left(self, layout: Layout, files: JobFiles, *, taken: list[str]) -> None:
        work = self._run.work
        try:
            paths = await asyncio.to_thread(files_left, work, layout.before, self._order.outputs)
        except NoResult as error:
            raise _Undelivered(str(error)) from error
        most = self._order.limits.files
        for path, name in zip(paths[:most], artifact_names([*taken, *paths])[len(taken) :], strict=False):
            with open_result(work, path) as content:
                await self._deliver(files, content, name)
        if len(paths) > most:
            raise _Undelivered(f"it left {len(paths)} files, and {most} are delivered")

    async def _deliver(self, files: JobFiles, content: BinaryIO, name: str) -> None:
        try:
            artifact = await files.deliver(content, name=name, media=media_of(name))
        except EngineError as error:
            if error.fault != "buyer":
                raise
            raise _Undelivered(f"{name} can't be delivered: {error.message}") from error
        await self._relay.say(file_frame(artifact=artifact))

    async def _keep_time(self, process: SandboxProcess) -> None:
        """Tell the time that the program takes, and stop it when that is up."""
        await self._shown.begun.wait()
        while (left_s := self._wall_s - self._shown.wall_ms / 1000) > 0:
            await asyncio.sleep(min(left_s, TELL_S))
            self._shown.tell()
        await process.stop()

    async def _print(self, piece: bytes) -> None:
        self._printed.take(piece)
        await self._relay.log("stdout", piece)

    def _limits(self) -> SandboxLimits:
        asked = self._order.limits
        return SandboxLimits(
            wall_s=self._wall_s + STARTING_S, cpu_s=asked.cpu_most_s, cores=asked.cores,
            memory_bytes=asked.memory_mib * MIB, processes=asked.processes, open_files=OPEN_FILES,
            file_bytes=asked.disk_mib * MIB, disk_bytes=asked.disk_mib * MIB, disk_files=DISK_FILES,
            output_bytes=asked.output_kib * 1024, channel_bytes=CHANNEL_BYTES_MAX,
            network_bytes=asked.network_mib * MIB,
        )  # fmt: skip
