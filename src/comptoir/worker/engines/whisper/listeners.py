"""The processes that hear (`listener`), from the worker's side: some are kept warm, each with one model.

A process of its own for each job, because CTranslate2 can't be stopped from outside in the middle of a window: what a
buyer cancels is killed. And not the sandbox, since it would have to show the GPU, and nothing that a stranger made is
parsed here: samples are numbers that the sandbox decoded.
"""

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.whisper.protocol import Piece, Said

LOADING_S = 600.0
"""How long a model may take to load; the largest has 3 GB."""
LINE_BYTES_MAX = 1024 * 1024
"""Longest line that is said: a segment of 30 seconds with its words has some 30 KB."""
LAST_WORDS_LINES = 20
LAST_WORDS_CHARS_MAX = 300
"""Of what a process printed before it died, what its owner is shown."""
MODULE = "comptoir.worker.engines.whisper.listener"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}

_encode = msgspec.json.Encoder().encode
_said = msgspec.json.Decoder(Said).decode


class ListenerSpec(msgspec.Struct, frozen=True):
    """What a process is started with."""

    folder: Path
    device: str
    compute: str
    threads: int


class Listener:
    """One process, with its model loaded."""

    def __init__(self, spec: ListenerSpec, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self.about: dict[str, object] = {}
        """What it said of itself: ``device``, ``compute``, ``multilingual``."""
        self.between = True
        """Whether it is free for the next piece."""
        self._process = process
        self._last: deque[str] = deque(maxlen=LAST_WORDS_LINES)
        self._log = asyncio.ensure_future(self._keep_last_words())

    @classmethod
    async def start(cls, spec: ListenerSpec) -> "Listener":
        """Start a process and wait until it has loaded its model.

        Raises:
            EngineError: it can't be loaded; the message has the process's last words.
        """
        words = ["-m", MODULE, str(spec.folder), spec.device, spec.compute, str(spec.threads)]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *words,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            limit=LINE_BYTES_MAX,
            env={**os.environ, **OFFLINE, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,  # A Ctrl-C in the worker's terminal is the worker's.
        )
        listener = cls(spec, process)
        try:
            async with asyncio.timeout(LOADING_S):
                listener.about = (await listener._next()).ready or {}
        except TimeoutError as error:
            await listener.kill()
            raise EngineError("model_not_loaded", f"{spec.folder} did not load within {LOADING_S:.0f} s") from error
        except BaseException:
            await listener.kill()
            raise
        return listener

    async def hear(self, piece: Piece, samples: bytes) -> AsyncIterator[Said]:
        """Yield what is in a piece, up to `Said.done`. One that is left before is killed by `Listeners.lent`.

        Raises:
            EngineError: the process died, or refused the piece.
        """
        stdin = self._process.stdin
        assert stdin is not None
        self.between = False
        try:
            stdin.write(_encode(piece) + b"\n")
            stdin.write(samples)
            await stdin.drain()
        except (ConnectionError, RuntimeError) as error:
            raise await self._died() from error
        while True:
            said = await self._next()
            self.between = said.done or bool(said.refused)
            if said.refused:
                raise EngineError("bad_request", said.refused, fault="buyer", status=422)
            yield said
            if said.done:
                return

    async def kill(self) -> None:
        """End the process at once; idempotent."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._log

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.returncode is None

    async def _next(self) -> Said:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            line = await stdout.readuntil()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError) as error:
            raise await self._died() from error
        return _said(line)

    async def _died(self) -> EngineError:
        await self.kill()
        words = next((line for line in reversed(self._last) if line.strip()), "it does not say why")
        # What it prints names folders of the host, which are nobody's business.
        words = words.replace(str(self.spec.folder), "the model")[:LAST_WORDS_CHARS_MAX]
        return EngineError("whisper", f"the model's process ended: {words}")

    async def _keep_last_words(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        while True:
            try:
                line = await stderr.readline()
            except ValueError:
                continue  # A line beyond the limit, which was dropped.
            if not line:
                return
            self._last.append(line.decode(errors="replace").strip())


class Listeners:
    """At most *most* processes; those that are free keep their model."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free: list[Listener] = []
        """The one that was used last is the last."""
        self._lent = 0
        self._places = asyncio.Semaphore(most)

    @contextlib.asynccontextmanager
    async def lent(self, spec: ListenerSpec) -> AsyncIterator[Listener]:
        """Lend a process with *spec*'s model; one that is given back in the middle of a piece is killed.

        Raises:
            EngineError: it can't be loaded.
        """
        async with self._places:
            self._lent += 1
            try:
                listener = await self._take(spec)
                try:
                    yield listener
                finally:
                    if listener.between and listener.alive:
                        self._free.append(listener)
                    else:
                        await asyncio.shield(listener.kill())
            finally:
                self._lent -= 1

    async def close(self) -> None:
        """Kill those that are free; idempotent."""
        while self._free:
            await self._free.pop().kill()

    async def _take(self, spec: ListenerSpec) -> Listener:
        self._free = [each for each in self._free if each.alive]
        for each in reversed(self._free):
            if each.spec == spec:
                self._free.remove(each)
                return each
        if len(self._free) + self._lent > self._most:
            await self._free.pop(0).kill()
        return await Listener.start(spec)
