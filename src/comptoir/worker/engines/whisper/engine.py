"""The engine itself: finds weights and ffmpeg, tries each model, and has each job's sound heard (`speech.Speech`)."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from comptoir.kinds.capabilities import LACKING, PROBED
from comptoir.kinds.errors import BadOrderField
from comptoir.kinds.ffmpeg.formats import SANDBOX
from comptoir.kinds.files import current, file_frame
from comptoir.kinds.whisper import LANGUAGES, TRANSLATE, Whisper
from comptoir.kinds.whisper.order import SECONDS_MAX, asks_other_languages, read_order
from comptoir.kinds.whisper.spoken import Heard, heard_in
from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.engines.ffmpeg.probing import Tools
from comptoir.worker.engines.ffmpeg.program import find_program
from comptoir.worker.engines.ffmpeg.program import found as ffmpeg_found
from comptoir.worker.engines.ffmpeg.program import missing as ffmpeg_missing
from comptoir.worker.engines.programs import Programs, Relay, relayed
from comptoir.worker.engines.whisper.listeners import Listeners, ListenerSpec
from comptoir.worker.engines.whisper.protocol import SAMPLE_BYTES, SAMPLE_RATE
from comptoir.worker.engines.whisper.sound import OVER_S, decode
from comptoir.worker.engines.whisper.speech import Speech
from comptoir.worker.engines.whisper.weights import Weights, cached, find_weights
from comptoir.worker.sandbox.types import MIB, SandboxLimits

WALL_S = 12 * 3600.0
"""Longest work on one sound, unless the owner says otherwise."""
DECODER_MIB = 1024
"""Memory of ffmpeg while it decodes one."""
DECODER_S = 1800.0
PCM_BYTES_MAX = (SECONDS_MAX + OVER_S + 1) * SAMPLE_RATE * SAMPLE_BYTES
"""Longest decoded sound: 461 MB."""
INSTALL = "pip install 'comptoir[whisper]'"


class WhisperEngine:
    """Hears speech. *model* maps the names that are sold to folders; without it, those in the usual cache are sold.

    *device* is ``auto``, ``cpu`` or ``cuda``; *compute* is CTranslate2's word for how it computes, and ``auto`` is int8
    on a CPU and float16 on a GPU.
    """

    name = "whisper"

    def __init__(
        self,
        *,
        folder: Path,
        threads: int,
        slots: int = 1,
        model: Mapping[str, str] | None = None,
        device: str = "auto",
        compute: str = "auto",
        program: str = "",
        unsandboxed: bool = False,
        wall_s: float = WALL_S,
    ) -> None:
        if not wall_s > 0:
            raise EngineError("engine_spec", f"engine whisper: wall_s has to be above 0, not {wall_s}")
        self._programs = Programs(folder, unsandboxed=unsandboxed)
        self._named, self._program = dict(model or {}), program
        self._device, self._compute = device, compute
        self._threads, self._wall_s = max(1, threads // max(1, slots)), wall_s
        self._listeners = Listeners(max(1, slots))
        self._weights: dict[str, Weights] = {}
        self._multilingual: dict[str, bool] = {}
        self._tools: Tools

    async def start(self) -> None:
        """Find weights and ffmpeg, open the sandbox, and load each model once.

        Raises:
            EngineError: one of them is missing or broken; the message says what to do.
        """
        if importlib.util.find_spec("faster_whisper") is None:
            raise EngineError("engine_missing", f"engine whisper needs faster_whisper, not installed here: {INSTALL}")
        program = await asyncio.to_thread(find_program, self._program)
        found = await asyncio.to_thread(find_weights, self._named)
        await self._programs.start()
        limits = SandboxLimits(
            wall_s=DECODER_S,
            cpu_s=DECODER_S,
            cores=self._threads,
            memory_bytes=DECODER_MIB * MIB,
            file_bytes=PCM_BYTES_MAX,
            disk_bytes=PCM_BYTES_MAX + MIB,
        )
        self._tools = Tools(program, self._programs.sandboxed, {}, limits, PCM_BYTES_MAX)
        for weights in found:
            async with self._listeners.lent(self._spec(weights)) as listener:
                self._multilingual[weights.name] = bool(listener.about.get("multilingual"))
            self._weights[weights.name] = weights

    async def models(self) -> list[ModelOffer]:
        """Return an offer for each model, with the hash of its weights."""
        return [self._offer(each) for each in self._weights.values()]

    def _offer(self, weights: Weights) -> ModelOffer:
        multilingual = self._multilingual[weights.name]
        able = {
            TRANSLATE: multilingual and weights.translates,
            LANGUAGES: multilingual,
            SANDBOX: self._programs.sandboxed,
        }
        return ModelOffer(
            weights.name,
            [Whisper.name],
            can_continue=True,
            fingerprint=f"sha256:{weights.sha256}",
            capabilities={name: PROBED if can else LACKING for name, can in able.items()},
        )

    def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Hear one sound; see `Engine.run`. Closing the iterator kills the process that hears it."""
        return relayed(request, self._work, goes_on=True)

    async def close(self) -> None:
        """End the processes, and erase what is left of runs."""
        await self._listeners.close()
        await self._programs.close()

    async def _work(self, request: EngineRequest, relay: Relay) -> Finish:
        files = request.files
        if files is None:
            raise EngineError("no_files", "an order for a transcript came without its files")
        try:
            order = read_order(request.body)
        except BadOrderField as bad:
            raise EngineError("bad_request", str(bad), fault="buyer", status=400) from bad
        weights = self._weights.get(request.model)
        if weights is None:
            raise EngineError("model_not_served", f"{request.model} is not served here", fault="capacity")
        able = self._offer(weights).capabilities
        if order.body.task == "translate" and able[TRANSLATE] == LACKING:
            raise EngineError("bad_request", f"task: {weights.name} can't translate", fault="buyer", status=422)
        if asks_other_languages(order) and able[LANGUAGES] == LACKING:
            raise EngineError("bad_request", f"language: {weights.name} hears English", fault="buyer", status=422)
        heard = heard_in(current(request.prefix))
        if heard.result:
            return Finish("stop", Usage())
        (source,) = await relay.fetch(files, 1)
        run = self._programs.new_run()
        try:
            async with asyncio.timeout(self._wall_s):
                sound = await decode(self._tools, run, relay, order=order, source=source)
                if 0 < request.max_tokens < sound.duration_ms:
                    words = f"output_max: is {request.max_tokens}, and the sound has {sound.duration_ms} ms"
                    raise EngineError("bad_request", words, fault="buyer", status=422)
                if heard.position_ms > sound.duration_ms:
                    # Whoever counted that heard another sound.
                    heard = Heard(segments=[], files=[])
                    await relay.say(file_frame(begun_again=True))
                relay.progress(note=f"waiting for {weights.name}")
                async with self._listeners.lent(self._spec(weights, exact=not order.body.fp16)) as listener:
                    return await Speech(listener, relay, sound, order=order, heard=heard).tell(files)
        except TimeoutError as error:
            words = "the sound takes longer than this host works on one"
            raise EngineError("wall", words, fault="buyer", status=422) from error
        finally:
            await run.erase()

    def _spec(self, weights: Weights, *, exact: bool = False) -> ListenerSpec:
        compute = "float32" if exact else self._compute
        return ListenerSpec(weights.folder, self._device, compute, self._threads)


def found() -> str:
    """Say which weights are in the usual cache, for `comptoir host doctor`; their hashes are taken at start."""
    names = [name for name, _ in cached()]
    return (
        f"{', '.join(names) or 'no weights in the usual cache: name them with model='}; decodes with {ffmpeg_found()}"
    )


def missing() -> str:
    """Return what is missing here, with what to do about it; empty: nothing. For `comptoir host doctor`."""
    if importlib.util.find_spec("faster_whisper") is None:
        return f"faster-whisper is not installed: {INSTALL}"
    return ffmpeg_missing()
