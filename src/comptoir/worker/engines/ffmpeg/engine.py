"""The engine itself: finds ffmpeg, tries its encoders, and has each job's film made (`film.Film`)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from comptoir.kinds.capabilities import LACKING, PROBED
from comptoir.kinds.errors import BadOrderField
from comptoir.kinds.ffmpeg import Ffmpeg
from comptoir.kinds.ffmpeg.formats import AUDIO_CODECS, SANDBOX
from comptoir.kinds.ffmpeg.order import read_order
from comptoir.link import Frame, ModelOffer
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.engines.ffmpeg.command import ENCODERS
from comptoir.worker.engines.ffmpeg.film import Film
from comptoir.worker.engines.ffmpeg.probing import Tools
from comptoir.worker.engines.ffmpeg.program import find_program, version_in
from comptoir.worker.engines.ffmpeg.running import Words, run_to_end
from comptoir.worker.engines.programs import Programs, Relay, relayed
from comptoir.worker.sandbox.process import SandboxRun
from comptoir.worker.sandbox.types import MIB, SandboxFailed, SandboxLimits

MEMORY_MIB = 4096
OUTPUT_MIB = 8192
WALL_S = 6 * 3600.0
"""Longest work on one film, unless the owner says otherwise."""
SLACK_BYTES = 64 * MIB
"""How much longer than the bound a file may be: its index comes after the last packet."""
PROCESSES = 128
PROCESSES_PER_CORE = 8
"""Threads: decoder, filters and encoder have some for each core, and for frames and planes beside."""
LOG_BYTES_MAX = 256 * MIB
"""What ffmpeg may say in all, most of which is dropped: a broken film is complained of packet by packet."""
TRIAL_S = 60.0
"""How long a trial at start may take."""
TRIAL_BYTES_MAX = 256 * 1024
"""Of what ffmpeg says at start; its list of encoders has 20 KB."""

_TRIAL_WORDS = {
    "libx265": ("-x265-params", "pools=1:frame-threads=1:log-level=error"),
    "libsvtav1": ("-svtav1-params", "lp=1"),
    "libaom-av1": ("-cpu-used", "8"),
    "libvpx-vp9": ("-deadline", "realtime", "-cpu-used", "8"),
}
_PICTURES = ("-f", "lavfi", "-i", "color=size=64x64:rate=10:duration=0.2")
_SOUND = ("-f", "lavfi", "-i", "anullsrc=sample_rate=48000:channel_layout=stereo")


class FfmpegEngine:
    """Makes films. *program* is the owner's ffmpeg, where it is not the one that is found; the rest bounds one job."""

    name = "ffmpeg"

    def __init__(
        self,
        *,
        folder: Path,
        threads: int,
        slots: int = 1,
        program: str = "",
        unsandboxed: Literal["yes", "no"] = "no",
        memory_mib: int = MEMORY_MIB,
        output_mib: int = OUTPUT_MIB,
        wall_s: float = WALL_S,
    ) -> None:
        for option, value in (("memory_mib", memory_mib), ("output_mib", output_mib), ("wall_s", wall_s)):
            if not value > 0:
                raise EngineError("engine_spec", f"engine ffmpeg: {option} has to be above 0, not {value}")
        self._programs = Programs(folder, unsandboxed=unsandboxed == "yes")
        self._named = program
        cores = max(1, threads // max(1, slots))
        bytes_max = output_mib * MIB
        self._limits = SandboxLimits(
            wall_s=wall_s,
            cpu_s=wall_s * cores,
            cores=cores,
            memory_bytes=memory_mib * MIB,
            processes=PROCESSES + PROCESSES_PER_CORE * cores,
            file_bytes=bytes_max + SLACK_BYTES,
            disk_bytes=bytes_max + 2 * SLACK_BYTES,
            output_bytes=LOG_BYTES_MAX,
        )
        self._bytes_max = bytes_max
        self._tools: Tools

    async def start(self) -> None:
        """Find ffmpeg, open the sandbox, and try each encoder in it.

        Raises:
            EngineError: there is no ffmpeg, no sandbox, or no encoder works.
        """
        program = await asyncio.to_thread(find_program, self._named)
        await self._programs.start()
        self._tools = Tools(program, self._programs.sandboxed, {}, self._limits, self._bytes_max)
        run = self._programs.new_run()
        try:
            version_in(await self._said(run, ["-version"]))
            encoders = await self._find_encoders(run)
        except SandboxFailed as failed:
            raise EngineError("no_sandbox", f"{program.ffmpeg} can't be run in the sandbox: {failed.why}") from failed
        finally:
            await run.erase()
        if not encoders:
            raise EngineError("engine_missing", f"none of the encoders that are sold works with {program.ffmpeg}")
        self._tools = msgspec.structs.replace(self._tools, encoders=encoders)

    async def models(self) -> list[ModelOffer]:
        """Return the one offer, with the codecs that were tried."""
        able = {codec: PROBED if codec in self._tools.encoders else LACKING for codec in ENCODERS}
        able[SANDBOX] = PROBED if self._tools.sandboxed else LACKING
        return [ModelOffer(Ffmpeg.name, [Ffmpeg.name], can_continue=True, capabilities=able)]

    def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Make one film; see `Engine.run`. Closing the iterator ends ffmpeg at once."""
        return relayed(request, self._work)

    async def close(self) -> None:
        """Erase what is left of runs."""
        await self._programs.close()

    async def _work(self, request: EngineRequest, relay: Relay) -> Finish:
        files = request.files
        if files is None:
            raise EngineError("no_files", "an order for a film came without its files")
        try:
            order = read_order(request.body)
        except BadOrderField as bad:
            raise EngineError("bad_request", str(bad), fault="buyer", status=400) from bad
        if lacking := [each for each in (order.codec, order.audio_codec) if each and each not in self._tools.encoders]:
            raise EngineError("model_not_served", f"this host has no encoder of {lacking[0]}", fault="capacity")
        (source,) = await relay.fetch(files, 1)
        run = self._programs.new_run()
        try:
            film = Film(self._tools, run, relay, order=order, source=source, units_max=request.max_tokens)
            return await film.make(files, request.body)
        finally:
            await run.erase()

    # -- at start ------------------------------------------------------------------------------------------------

    async def _find_encoders(self, run: SandboxRun) -> dict[str, str]:
        """Return what makes each codec here, seen to work: all together, or each by itself where one does not."""
        rows = [line.split() for line in (await self._said(run, ["-hide_banner", "-encoders"])).splitlines()]
        listed = {row[1] for row in rows if len(row) > 1}
        wanted = {codec: [each for each in names if each in listed] for codec, names in ENCODERS.items()}
        first = {codec: names[0] for codec, names in wanted.items() if names}
        if first and await self._works(run, first):
            return first
        found: dict[str, str] = {}
        for codec, names in wanted.items():
            for each in names:
                if await self._works(run, {codec: each}):
                    found[codec] = each
                    break
        return found

    async def _works(self, run: SandboxRun, encoders: dict[str, str]) -> bool:
        """Tell whether a few frames, or a moment of sound, can be made by each of *encoders*."""
        words = [*_PICTURES, *_SOUND]
        for codec, encoder in encoders.items():
            sound = codec in AUDIO_CODECS
            words += ["-map", "1:a" if sound else "0:v", "-c", encoder, *_TRIAL_WORDS.get(encoder, ())]
            words += ["-threads", "1", "-t", "0.2", "-f", "null", "-"]
        return bool(await self._said(run, ["-nostdin", "-loglevel", "error", *words], ok="done"))

    async def _said(self, run: SandboxRun, words: Sequence[str], *, ok: str = "") -> str:
        """Return what ffmpeg prints, or *ok*, if it ends well; else nothing."""
        out, err = Words(TRIAL_BYTES_MAX), Words(TRIAL_BYTES_MAX)
        tools = self._tools
        limits = msgspec.structs.replace(tools.limits, wall_s=TRIAL_S, cpu_s=TRIAL_S)
        report = await run_to_end(
            run, [tools.ffmpeg, *words], inputs=tools.program.bound, limits=limits, sinks=(out.take, err.take)
        )
        return (ok or out.first.decode(errors="replace")) if report.exit_code == 0 else ""
